//! Passing descriptors to another process over a connected unix stream socket (SCM_RIGHTS in unix(7)). What arrives is owned
//! from birth and closed on exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};

/// Descriptors in one message (SCM_MAX_FD in include/net/scm.h).
const FDS_MAX: usize = 253;
/// The byte that descriptors travel with: a stream carries them only beside data.
const MARK: u8 = b'f';

/// Sends descriptors; the other side keeps them when ours are closed.
pub fn send_fds(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    for fds in fds.chunks(FDS_MAX) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(fds));
        loop {
            match sendmsg(stream, &[IoSlice::new(&[MARK])], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Receives so many descriptors. Where this process may not have so many open, the kernel leaves some out: then it is an
/// error, and those that came are closed.
pub fn receive_fds(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut fds = Vec::with_capacity(count.min(1 << 16));
    while fds.len() < count {
        let expected = (count - fds.len()).min(FDS_MAX);
        let before = fds.len();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut mark = [0];
        let received = recvmsg(stream, &mut [IoSliceMut::new(&mut mark)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() != before + expected || mark != [MARK] {
            return Err(io::Error::other(
                "fewer descriptors came than were sent: this process may have no more files open (`ulimit -n`, or \
                 LimitNOFILE= in a unit)",
            ));
        }
    }
    Ok(fds)
}

/// A peer's process and user, as they were when it connected (SO_PEERCRED in unix(7)).
pub fn peer(stream: &UnixStream) -> io::Result<(u32, u32)> {
    let credentials = sockopt::socket_peercred(stream)?;
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or(0);
    Ok((pid, credentials.uid.as_raw()))
}

/// Whether somebody waits to be accepted, or something to be read, within this time.
pub fn is_readable(socket: impl AsFd, patience: Duration) -> bool {
    let mut wish = [PollFd::new(&socket, PollFlags::IN)];
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    poll(&mut wish, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Nanoseconds of CLOCK_MONOTONIC, which is the same for all processes of a boot.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The user that this process acts as.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Ends a process that has been told everything and does not say a word (SIGKILL in signal(7)).
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Thousands arrive in order, each the very same file, whatever a message may carry.
    #[test]
    fn many_arrive_in_order() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let files: Vec<File> = (0..600).map(|_| tempfile::tempfile().expect("a file")).collect();
        let inodes: Vec<u64> = files.iter().map(|file| file.metadata().expect("its inode").ino()).collect();
        let sender = std::thread::spawn(move || {
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            send_fds(&here, &fds).expect("sent");
        });
        let received = receive_fds(&there, 600).expect("received");
        sender.join().expect("sent");
        let arrived: Vec<u64> =
            received.into_iter().map(|fd| File::from(fd).metadata().expect("its inode").ino()).collect();
        assert_eq!(arrived, inodes);
    }

    /// A peer that goes away, or sends something else, is an error and no panic.
    #[test]
    fn nonsense_is_an_error() {
        let (here, there) = UnixStream::pair().expect("a pair");
        std::io::Write::write_all(&mut &here, b"x").expect("written");
        assert!(receive_fds(&there, 1).is_err());
        drop(here);
        assert_eq!(receive_fds(&there, 1).expect_err("gone").kind(), io::ErrorKind::UnexpectedEof);
    }
}
