//! Other processes: the credentials of a peer, whether a process runs, and SIGKILL.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::option::socklen;

/// Returns the process ID and the user ID of a peer at the time when it connected (SO_PEERCRED in unix(7)). The process
/// ID is 0 if the peer is in another PID namespace and not visible from here.
///
/// # Errors
/// Returns the error of getsockopt(2).
pub fn peer(stream: &UnixStream) -> io::Result<(u32, u32)> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = socklen::<libc::ucred>();
    let fd = stream.as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; `peer` is `len` writable bytes, all of them plain numbers.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok((u32::try_from(peer.pid).unwrap_or(0), peer.uid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the effective user ID of this process.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Kills a process that received the request to end and does not react (SIGKILL in signal(7)). A process that has ended
/// already is not an error.
///
/// # Errors
/// Returns the error of kill(2).
pub fn kill(pid: u32) -> io::Result<()> {
    match process(pid).map(|pid| kill_process(pid, Signal::KILL)) {
        // The process has ended already.
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Returns whether a process runs (kill(2) with signal 0). The result is also `true` for a process that this one may
/// not signal.
pub fn runs(pid: u32) -> bool {
    process(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Returns a process ID in the form that system calls take; `None` if no process can have it.
fn process(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer of a pair is this process itself.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn the_peer_is_known() {
        let (here, _there) = UnixStream::pair().expect("a pair");
        assert_eq!(
            peer(&here).expect("its credentials"),
            (std::process::id(), rustix::process::getuid().as_raw())
        );
    }
}
