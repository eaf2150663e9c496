//! One UDP port, many addresses, a handler for each.

pub mod cli;
pub mod config;
pub mod datagram;
pub mod dispatch;
