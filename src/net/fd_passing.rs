//! Passes descriptors to another process over a connected unix stream socket (SCM_RIGHTS in unix(7)). Received
//! descriptors are owned from the moment they arrive, and closed on exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::clock;

/// The largest number of descriptors in one message (SCM_MAX_FD in include/net/scm.h).
pub const FDS_MAX: usize = 253;
/// The byte that descriptors are sent with: a stream carries descriptors only together with data.
const MARK: u8 = b'f';

/// The pause before descriptors are sent again after too many were in flight. The reader needs some microseconds for a
/// message.
const CROWDED: Duration = Duration::from_millis(1);

/// Sends descriptors; the other side keeps them when ours are closed. The peer must receive all of them by the
/// deadline, however slowly.
///
/// # Errors
/// Returns `TimedOut` or `WouldBlock` after the deadline, or the error of sendmsg(2).
pub fn send_fds(stream: &UnixStream, fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<()> {
    for fds in fds.chunks(FDS_MAX) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(fds));
        loop {
            stream.set_write_timeout(Some(clock::left(deadline)?))?;
            match sendmsg(
                stream,
                &[IoSlice::new(&[MARK])],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                // A user may have no more descriptors in flight than one process may have open (too_many_unix_fds in
                // the kernel). There is room again when the other side has received some.
                Err(Errno::TOOMANYREFS) => thread::sleep(CROWDED),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Receives exactly `count` descriptors by the deadline.
///
/// # Errors
/// Returns `TimedOut` or `WouldBlock` after the deadline, `UnexpectedEof` if the peer closed, `InvalidData` if a
/// message does not hold what was announced, or the error of recvmsg(2). If this process may not have so many files
/// open, the kernel leaves some out, which is an error too. Descriptors that arrived before an error are closed.
pub fn receive_fds(
    stream: &UnixStream,
    count: usize,
    deadline: Instant,
) -> io::Result<Vec<OwnedFd>> {
    let mut fds = Vec::with_capacity(count.min(1 << 16));
    while fds.len() < count {
        stream.set_read_timeout(Some(clock::left(deadline)?))?;
        let expected = (count - fds.len()).min(FDS_MAX);
        let before = fds.len();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut mark = [0];
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut mark)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Err(Errno::INTR) => continue,
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
        // MSG_CTRUNC: the kernel had more than it could give (scm_detach_fds in net/core/scm.c).
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "fewer descriptors arrived than were sent, because this process may not open more files; raise \
                 `ulimit -n`, or LimitNOFILE= in the unit",
            ));
        }
        if fds.len() != before + expected || mark != [MARK] {
            let came = fds.len() - before;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{came} descriptors arrived in a message that should hold {expected}"),
            ));
        }
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Sends one message that `send_fds` would not send.
    fn send_raw(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(
            stream,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .expect("sent");
    }

    /// Returns whether no other process has the writing end of the pipe open; `write`, our own, is closed first.
    fn is_closed(mut read: impl Read, write: impl Sized) -> bool {
        drop(write);
        read.read(&mut [0]).expect("the end of the pipe") == 0
    }

    /// Thousands of descriptors arrive in order, each the very same file and closed on exec, however many a message may
    /// carry.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn many_arrive_in_order() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let files: Vec<File> = (0..100)
            .map(|_| tempfile::tempfile().expect("a file"))
            .collect();
        let inodes: Vec<u64> = files
            .iter()
            .map(|file| file.metadata().expect("its inode").ino())
            .collect();
        let sender = thread::spawn(move || {
            let fds: Vec<_> = (0..10_000)
                .map(|index| files[index % 100].as_fd())
                .collect();
            send_fds(&here, &fds, soon()).expect("sent");
        });
        // In parts, so that all tests of this process find files.
        let mut count = 0;
        while count < 10_000 {
            for fd in receive_fds(&there, (10_000 - count).min(FDS_MAX), soon()).expect("received")
            {
                let flags = rustix::io::fcntl_getfd(&fd).expect("its flags");
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                let inode = File::from(fd).metadata().expect("its inode").ino();
                assert_eq!(inode, inodes[count % 100]);
                count += 1;
            }
        }
        sender.join().expect("sent");
    }

    /// A peer that closes, or sends something else, causes an error and no panic, and no descriptor stays open.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn nonsense_is_an_error() {
        let (here, there) = UnixStream::pair().expect("a pair");
        (&here).write_all(b"x").expect("written");
        assert_eq!(
            receive_fds(&there, 1, soon()).expect_err("garbage").kind(),
            io::ErrorKind::InvalidData
        );

        // Two where one was announced; and one with another byte.
        for (count, mark) in [(2, MARK), (1, b'x')] {
            let (read, write) = io::pipe().expect("a pipe");
            send_raw(&here, &[mark], &vec![write.as_fd(); count]);
            assert_eq!(
                receive_fds(&there, 1, soon()).expect_err("garbage").kind(),
                io::ErrorKind::InvalidData
            );
            assert!(is_closed(read, write));
        }

        drop(here);
        assert_eq!(
            receive_fds(&there, 1, soon()).expect_err("gone").kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(
            send_fds(&there, &[there.as_fd()], soon()).is_err(),
            "no peer receives it"
        );
    }

    /// A peer that sends or receives one message now and then does not hold the other side past the deadline.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn slowness_has_an_end() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let slow = thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(70))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                send_raw(&here, &[MARK], &[here.as_fd(); FDS_MAX]);
            }
            here
        });
        let late = receive_fds(&there, 100_000, Instant::now() + Duration::from_millis(200))
            .expect_err("late");
        assert!(
            matches!(
                late.kind(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
            ),
            "{late}"
        );
        drop(stop);
        let here = slow.join().expect("it ends");
        // No process reads, so the socket's buffer is full after some hundred messages.
        let fds = vec![here.as_fd(); 1_000_000];
        let late = send_fds(&here, &fds, Instant::now() + Duration::from_millis(200))
            .expect_err("the peer does not read");
        assert!(
            matches!(
                late.kind(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
            ),
            "{late}"
        );
    }

    /// Returns whether this is the process under `wrapper` that a test needs for itself, since its limits must not
    /// apply to other tests. Otherwise that process is started, and has passed the test when this returns.
    fn is_inside(test: &str, wrapper: &[&str]) -> bool {
        const INSIDE: &str = "UDISPATCH_TEST_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(std::env::current_exe().expect("this program"))
            .env(INSIDE, "1");
        let output = command
            .args(["--exact", &format!("net::fd_passing::tests::{test}")])
            .output()
            .expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && printed.contains("1 passed"),
            "{printed}"
        );
        false
    }

    /// Where the kernel allows no more descriptors in flight, sending waits until some were received. The limit does
    /// not apply to root, so root gives up the capabilities.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn sending_waits_for_room() {
        let give_up = [
            "setpriv",
            "--bounding-set=-sys_resource,-sys_admin",
            "prlimit",
            "--nofile=600",
        ];
        let is_root = rustix::process::geteuid().is_root();
        if !is_inside(
            "sending_waits_for_room",
            if is_root { &give_up } else { &give_up[2..] },
        ) {
            return;
        }
        let (here, there) = UnixStream::pair().expect("a pair");
        let sender = thread::spawn(move || send_fds(&here, &[here.as_fd(); 5 * FDS_MAX], soon()));
        thread::sleep(Duration::from_millis(100));
        assert!(
            !sender.is_finished(),
            "the kernel takes 600 and some of 1,265"
        );
        for _ in 0..5 {
            assert_eq!(
                receive_fds(&there, FDS_MAX, soon())
                    .expect("received")
                    .len(),
                FDS_MAX
            );
        }
        sender.join().expect("no panic").expect("all were sent");
    }

    /// A process that may not have so many files open gets none at all, and an error that names the limit to raise.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn too_many_are_refused_whole() {
        if !is_inside("too_many_are_refused_whole", &["prlimit", "--nofile=64"]) {
            return;
        }
        let open = || {
            std::fs::read_dir("/proc/self/fd")
                .expect("our files")
                .count()
        };
        let (here, there) = UnixStream::pair().expect("a pair");
        let before = open();
        send_raw(&here, &[MARK], &[here.as_fd(); 100]);
        let error = receive_fds(&there, 100, soon()).expect_err("only 64 may be open");
        assert!(error.to_string().contains("LimitNOFILE="), "{error}");
        assert_eq!(open(), before, "those that came are closed");
        send_raw(&here, &[MARK], &[here.as_fd()]);
        assert_eq!(
            receive_fds(&there, 1, soon()).expect("one").len(),
            1,
            "and the next message is whole"
        );
    }
}
