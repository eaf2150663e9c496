//! Sockets and everything else that needs the kernel: batches of datagrams in and out, control messages, multicast,
//! interfaces, descriptor passing.
//!
//! All unsafe code of the crate is in this room, and every block states why it is sound. Nothing here depends on
//! routes, handlers or the configuration. A descriptor is owned from the moment it exists (`UdpSocket`, `OwnedFd`), and
//! each call borrows it.

#![expect(unsafe_code, reason = "system calls that no safe crate offers")]

pub mod address;
pub mod clock;
pub mod control_message;
pub mod epoll;
pub mod errno;
pub mod error_queue;
pub mod fd_passing;
pub mod fib;
pub mod inherited;
pub mod interfaces;
pub mod kept_source;
mod kernel_memory;
pub mod limits;
pub mod multicast;
pub mod notify;
pub mod option;
pub mod orphan;
pub mod priority;
pub mod probe;
pub mod process;
pub mod receive;
pub mod send;
pub mod socket;
pub mod upstream;
pub mod wait;
