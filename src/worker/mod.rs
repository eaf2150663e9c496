//! The data plane: one thread, one mio loop, sockets of its own. Shares nothing, never blocks, never logs.

pub mod command;
pub mod event_loop;
pub mod flush;
pub mod listener;
pub mod send_socket;
pub mod upstream_sockets;
pub mod worker_state;
