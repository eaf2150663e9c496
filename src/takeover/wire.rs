//! A conversation between two processes: frames with a name, data and descriptors, each with a deadline. Whatever goes wrong is
//! an error in words, and the caller goes on as if nobody had asked.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::net::{clock, fd_passing, process};
use crate::number;

/// The longest data of a frame: some million sessions.
const BYTES_MAX: u64 = 1 << 30;
/// The most descriptors of a frame.
const TOTAL_FDS_MAX: u32 = 1 << 20;
/// Kind, length of the data, number of descriptors.
const HEADER_BYTES: usize = 1 + 8 + 4;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who asks, in which version.
    Hello = b'H',
    /// No, and why.
    Refused = b'N',
    /// What there is, with the listeners.
    Manifest = b'M',
    /// The new one could begin now.
    Ready = b'R',
    /// Everything is the new one's, with all other sockets.
    Released = b'L',
    /// The new one has begun.
    Started = b'S',
    /// What the old one has still counted.
    Farewell = b'F',
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Hello,
        Kind::Refused,
        Kind::Manifest,
        Kind::Ready,
        Kind::Released,
        Kind::Started,
        Kind::Farewell,
    ];
}

/// Why a conversation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other process has ended, or closed the connection.
    #[error("the other process ended before it sent `{0:?}`")]
    Gone(Kind),
    /// It did not say anything in time.
    #[error("the other process sent no `{0:?}` for {1:?}")]
    Silent(Kind, Duration),
    /// It ended before all was said to it.
    #[error("the other process ended before it took `{0:?}`")]
    Left(Kind),
    /// It did not take what was said in time.
    #[error("the other process did not take `{0:?}` for {1:?}")]
    Deaf(Kind, Duration),
    /// There is more to say than a frame may hold.
    #[error(
        "{0:?} would have {1} bytes and {2} descriptors, more than {BYTES_MAX} or {TOTAL_FDS_MAX}"
    )]
    TooLarge(Kind, usize, usize),
    /// It refuses.
    #[error("{0}")]
    Refused(String),
    /// It said something that makes no sense here.
    #[error("the other process speaks another language: {0}")]
    Nonsense(String),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// One received frame.
#[derive(Debug)]
pub struct Frame {
    body: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Frame {
    /// Its data.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(&self.body).map_err(|error| WireError::Nonsense(error.to_string()))
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Wire(UnixStream);

impl Wire {
    /// Over a connection.
    pub fn new(stream: UnixStream) -> io::Result<Wire> {
        stream.set_nonblocking(false)?;
        Ok(Wire(stream))
    }

    /// The process and the user at the other end.
    pub fn peer(&self) -> io::Result<(u32, u32)> {
        process::peer(&self.0)
    }

    /// Says something. The other end must take all of it within `patience`.
    pub fn send(
        &mut self,
        kind: Kind,
        body: &impl Serialize,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(), WireError> {
        let deadline = Instant::now() + patience;
        let body =
            serde_json::to_vec(body).map_err(|error| WireError::Nonsense(error.to_string()))?;
        if body.len() as u64 > BYTES_MAX || fds.len() > TOTAL_FDS_MAX as usize {
            return Err(WireError::TooLarge(kind, body.len(), fds.len()));
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.push(kind as u8);
        header.extend((body.len() as u64).to_le_bytes());
        header.extend(number::to_u32(fds.len()).to_le_bytes());
        let sent = self
            .write_all(&header, deadline)
            .and_then(|()| self.write_all(&body, deadline));
        sent.and_then(|()| fd_passing::send_fds(&self.0, fds, deadline))
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => WireError::Left(kind),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    WireError::Deaf(kind, patience)
                }
                _ => WireError::System(error),
            })
    }

    /// Says something that is only a name.
    pub fn say(&mut self, kind: Kind, patience: Duration) -> Result<(), WireError> {
        self.send(kind, &(), &[], patience)
    }

    /// Waits for a frame of this kind.
    pub fn receive(&mut self, kind: Kind, patience: Duration) -> Result<Frame, WireError> {
        let deadline = Instant::now() + patience;
        let wrong = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => WireError::Gone(kind),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                WireError::Silent(kind, patience)
            }
            io::ErrorKind::InvalidData => WireError::Nonsense(error.to_string()),
            _ => WireError::System(error),
        };
        let mut header = [0; HEADER_BYTES];
        self.read_exact(&mut header, deadline).map_err(wrong)?;
        let got = Kind::ALL.into_iter().find(|kind| *kind as u8 == header[0]);
        let (length, count) = (u64_at(&header[1..9]), u64_at(&header[9..13]));
        let got = got.ok_or_else(|| WireError::Nonsense("a frame of no known kind".to_owned()))?;
        if length > BYTES_MAX || count > u64::from(TOTAL_FDS_MAX) {
            return Err(WireError::Nonsense("a frame that is too large".to_owned()));
        }
        let mut body = vec![0; number::to_usize(length)];
        self.read_exact(&mut body, deadline).map_err(wrong)?;
        let fds =
            fd_passing::receive_fds(&self.0, number::to_usize(count), deadline).map_err(wrong)?;
        let frame = Frame { body, fds };
        match got {
            got if got == kind => Ok(frame),
            Kind::Refused => Err(WireError::Refused(
                frame.read::<crate::takeover::messages::Refused>()?.why,
            )),
            got => Err(WireError::Nonsense(format!(
                "`{got:?}` came instead of `{kind:?}`"
            ))),
        }
    }

    fn read_exact(&mut self, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.set_read_timeout(Some(clock::left(deadline)?))?;
            match self.0.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_all(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.set_write_timeout(Some(clock::left(deadline)?))?;
            match self.0.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn u64_at(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Wire, UnixStream) {
        let (here, there) = UnixStream::pair().expect("a pair");
        (Wire::new(here).expect("a wire"), there)
    }

    /// Two megabytes and ten thousand descriptors arrive as they were sent. It takes the files of a process of its own.
    #[test]
    fn large_frames_arrive() {
        const INSIDE: &str = "UDISPATCH_TEST_MANY_FILES";
        if std::env::var_os(INSIDE).is_none() {
            let test = std::env::current_exe().expect("this program");
            let this = "takeover::wire::tests::large_frames_arrive";
            let mut command = std::process::Command::new(test);
            command
                .args(["--exact", this, "--nocapture"])
                .env(INSIDE, "1");
            let output = command.output().expect("the test runs");
            let (told, errors) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert!(output.status.success(), "{told}{errors}");
            assert!(told.contains("1 passed"), "{told}");
            println!("{}", errors.trim());
            return;
        }
        crate::net::limits::raise_open_files();
        // Half of what may be open, where that is little.
        let count = usize::try_from(crate::net::limits::open_files() / 2)
            .unwrap_or(usize::MAX)
            .min(10_000);
        let (mut here, there) = pair();
        let body: Vec<u32> = (0..300_000).collect();
        let expected = body.clone();
        let begun = Instant::now();
        let sender = thread::spawn(move || {
            let file = tempfile::tempfile().expect("a file");
            let fds = vec![file.as_fd(); count];
            Wire::new(there)
                .expect("a wire")
                .send(Kind::Released, &body, &fds, SOON)
                .expect("sent");
        });
        let frame = here.receive(Kind::Released, SOON).expect("received");
        eprintln!("2 MB and {count} descriptors took {:?}", begun.elapsed());
        sender.join().expect("sent");
        assert_eq!(
            (frame.read::<Vec<u32>>().expect("numbers"), frame.fds.len()),
            (expected, count)
        );
    }

    /// Descriptors that nobody asked for are not kept: a frame that says it has none, with one beside it.
    #[test]
    fn stowaways_are_closed() {
        let (mut here, there) = pair();
        let (mut read, write) = std::io::pipe().expect("a pipe");
        fd_passing::send_fds(&there, &[write.as_fd()], Instant::now() + SOON).expect("sent");
        drop(write);
        Wire::new(there)
            .expect("a wire")
            .say(Kind::Ready, SOON)
            .expect("sent");
        assert!(matches!(
            here.receive(Kind::Ready, SOON),
            Err(WireError::Nonsense(_))
        ));
        assert_eq!(
            read.read(&mut [0]).expect("the end of the pipe"),
            0,
            "still open somewhere"
        );
    }

    /// A peer that says its word bit by bit, or never takes ours, does not hold us past our patience, and one that ended
    /// is told from one that is slow.
    #[test]
    fn slowness_has_an_end() {
        let short = Duration::from_millis(200);
        let (mut here, mut there) = pair();
        let dripping = thread::spawn(move || {
            // Ends by the error when the other end is closed.
            let mut frame = [b'M', 0, 0, 0, 1].into_iter().chain(std::iter::repeat(0));
            while there.write_all(&[frame.next().expect("no end")]).is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(matches!(
            here.receive(Kind::Manifest, short),
            Err(WireError::Silent(Kind::Manifest, _))
        ));
        drop(here);
        dripping.join().expect("it ends");

        let (mut here, there) = pair();
        let much = "x".repeat(10 << 20);
        assert!(matches!(
            here.send(Kind::Manifest, &much, &[], short),
            Err(WireError::Deaf(Kind::Manifest, _))
        ));
        drop(there);
        assert!(matches!(
            here.send(Kind::Manifest, &much, &[], SOON),
            Err(WireError::Left(Kind::Manifest))
        ));
    }

    /// More than a frame may hold is not even begun: the other end hears nothing of it.
    #[test]
    fn too_much_is_not_begun() {
        let (mut here, there) = pair();
        let fds = vec![there.as_fd(); TOTAL_FDS_MAX as usize + 1];
        assert!(matches!(
            here.send(Kind::Released, &(), &fds, SOON),
            Err(WireError::TooLarge(Kind::Released, ..))
        ));
        drop(here);
        assert_eq!((&there).read(&mut [0]).expect("the end"), 0);
    }

    /// A peer that ends in the middle of a frame, says nothing, refuses, or talks nonsense: each has its error.
    #[test]
    fn every_failure_has_its_name() {
        let (mut here, mut there) = pair();
        there
            .write_all(&[Kind::Manifest as u8, 9, 0])
            .expect("written");
        drop(there);
        assert!(matches!(
            here.receive(Kind::Manifest, SOON),
            Err(WireError::Gone(Kind::Manifest))
        ));

        let (mut here, _there) = pair();
        let silent = here.receive(Kind::Ready, Duration::from_millis(20));
        assert!(matches!(silent, Err(WireError::Silent(Kind::Ready, _))));

        let (mut here, there) = pair();
        let refused = crate::takeover::messages::Refused {
            why: "no".to_owned(),
        };
        Wire::new(there)
            .expect("a wire")
            .send(Kind::Refused, &refused, &[], SOON)
            .expect("sent");
        assert!(
            matches!(here.receive(Kind::Manifest, SOON), Err(WireError::Refused(why)) if why == "no")
        );

        for nonsense in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[b'M', 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
        ] {
            let (mut here, mut there) = pair();
            there.write_all(nonsense).expect("written");
            assert!(matches!(
                here.receive(Kind::Manifest, SOON),
                Err(WireError::Nonsense(_))
            ));
        }
    }
}
