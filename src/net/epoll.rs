//! Level-triggered registration with mio's epoll instance. mio registers edge-triggered, where a reader has to ask once
//! more than there is to learn that a socket is empty. A session's socket mostly holds one answer: there the kernel's own
//! second look is cheaper than ours (measured: 2 % of an exchange).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::Registry;

/// Adds a socket: an event with this token comes from each poll as long as there is something to read, or an error.
pub fn add_level(epoll: &Registry, socket: impl AsFd, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: token,
    };
    let (epoll, socket) = (epoll.as_raw_fd(), socket.as_fd().as_raw_fd());
    // SAFETY: both descriptors are open, for the call borrows who owns them, and `event` is a readable epoll_event.
    match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
