//! Other processes: the peer of a connection, whether one runs, and its end.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::option::socklen;

/// A peer's process and user, as they were when it connected (SO_PEERCRED in unix(7)). The process is 0 where it cannot be seen
/// from here: it is in another PID namespace.
pub fn peer(stream: &UnixStream) -> io::Result<(u32, u32)> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = socklen::<libc::ucred>();
    let fd = stream.as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; `peer` is `len` writable bytes, all of them plain numbers.
    let told = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match told {
        0 => Ok((u32::try_from(peer.pid).unwrap_or(0), peer.uid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user that this process acts as.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Ends a process that has been told everything and does not say a word (SIGKILL in signal(7)).
pub fn kill(pid: u32) -> io::Result<()> {
    match process(pid).map(|pid| kill_process(pid, Signal::KILL)) {
        // One that has ended is as good.
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Whether a process runs (kill(2) with signal 0). One that we may not signal does.
pub fn runs(pid: u32) -> bool {
    process(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// As the kernel's calls want it; nothing where there can be none of that number.
fn process(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer of a pair is this process itself.
    #[test]
    fn the_peer_is_known() {
        let (here, _there) = UnixStream::pair().expect("a pair");
        assert_eq!(
            peer(&here).expect("its credentials"),
            (std::process::id(), rustix::process::getuid().as_raw())
        );
    }
}
