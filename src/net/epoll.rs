//! Level-triggered registration with mio's epoll instance. mio registers edge-triggered. A reader then needs one more
//! receive call to find that a socket is empty. The socket of a session mostly holds one reply. For such a socket, the
//! kernel's own second check is cheaper than that call (measured: 2 % of an exchange).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::Registry;

/// Adds a socket: every poll returns an event with this token as long as the socket holds a datagram or an error.
///
/// # Errors
/// Returns the error of epoll_ctl(2).
pub fn add_level(epoll: &Registry, socket: impl AsFd, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: token,
    };
    let epoll = epoll.as_raw_fd();
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: both descriptors are open, since their owners are borrowed for the call. `event` is a readable
    // epoll_event.
    match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
