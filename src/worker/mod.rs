//! The data plane. Each worker is one thread with one mio loop and its own sockets. Workers share only limits (rates,
//! quotas, source ports). A worker never blocks and never logs.

pub mod command;
pub mod event_loop;
pub mod flush;
pub mod listener;
pub mod send_socket;
pub mod upstream_sockets;
pub mod worker_state;
