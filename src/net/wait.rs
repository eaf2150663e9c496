//! Waiting for a descriptor, in threads that may block. Workers never do.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Waits until a write would not block, or would fail (poll(2)).
pub fn until_writable(fd: impl AsFd) -> io::Result<()> {
    let mut wish = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the descriptor is borrowed for the call and `wish` is one writable pollfd.
    match unsafe { libc::poll(&raw mut wish, 1, -1) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}
