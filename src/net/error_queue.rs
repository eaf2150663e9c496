//! Empties a socket's queue of errors (IP_RECVERR in ip(7)), which would fill its receive buffer and never let it rest.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Errors taken in one call; the rest stays for the next event.
const ERRORS_MAX: usize = 64;

/// Takes errors off the queue and returns how many there were.
pub fn discard(socket: impl AsFd) -> usize {
    // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    let fd = socket.as_fd().as_raw_fd();
    let mut take = || {
        // SAFETY: the descriptor is borrowed for the call and the header names no buffer that the kernel could write to.
        match unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    (0..ERRORS_MAX).take_while(|_| take().is_ok()).count()
}
