//! Waits for a descriptor, in threads that may block. Workers never do.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until a write would not block, or would fail (poll(2)).
///
/// # Errors
/// Returns the error of poll(2).
pub fn until_writable(fd: impl AsFd) -> io::Result<()> {
    until(PollFlags::OUT, fd)
}

/// Waits until there is something to read, or the end of the file; of a process (pidfd_open(2)), until it has ended.
///
/// # Errors
/// Returns the error of poll(2).
pub fn until_readable(fd: impl AsFd) -> io::Result<()> {
    until(PollFlags::IN, fd)
}

/// Returns whether a connection can be accepted, or something can be read, within this time.
pub fn is_readable(socket: impl AsFd, wait_max: Duration) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(wait_max.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait_max.subsec_nanos()),
    };
    poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Waits for an event, whatever signals interrupt the call.
fn until(event: PollFlags, fd: impl AsFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(&fd, event)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
