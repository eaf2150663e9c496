//! One UDP port, many addresses, a handler for each.

pub mod cli;
pub mod config;
pub mod control;
pub mod datagram;
pub mod dispatch;
pub mod handlers;
pub mod net;
pub mod worker;
