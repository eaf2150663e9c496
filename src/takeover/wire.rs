//! The connection between the two processes of a takeover: messages of JSON and descriptors over a unix stream socket.
//!
//! A message is one byte for its kind, eight for the length of its JSON, four for the number of its descriptors (both little
//! endian), then the JSON, then the descriptors as `net/fd_passing.rs` sends them.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::net::{clock, fd_passing, process};
use crate::number;
use crate::takeover::error::WireError;
use crate::takeover::messages::{BYTES_MAX, FDS_MAX, Hello, MessageKind, Refused};
use crate::takeover::protocol::Message;
use crate::takeover::protocol::server::Peer;

/// Size of the header: the kind, the length of the JSON, and the number of descriptors.
const HEADER_BYTES: usize = 1 + 8 + 4;

/// A received message.
#[derive(Debug)]
pub struct Frame {
    /// The kind of the message.
    pub kind: MessageKind,
    body: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Frame {
    /// Parses the JSON.
    ///
    /// # Errors
    ///
    /// `Malformed`, with the text of the parser's error, if the JSON is not a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(&self.body).map_err(|error| WireError::Malformed(error.to_string()))
    }

    /// Returns the message in the form that the protocol uses.
    ///
    /// # Errors
    ///
    /// `Malformed`, if it is a `Hello` or a `Refused` with other data.
    pub fn message(&self) -> Result<Message, WireError> {
        Ok(match self.kind {
            MessageKind::Hello => Message::Hello {
                version: self.read::<Hello>()?.version,
            },
            MessageKind::Refused => Message::Refused {
                reason: self.read::<Refused>()?.reason,
            },
            MessageKind::Manifest => Message::Manifest,
            MessageKind::Ready => Message::Ready,
            MessageKind::Released => Message::Released,
            MessageKind::Started => Message::Started,
            MessageKind::FinalCounts => Message::FinalCounts,
        })
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire(UnixStream);

impl Wire {
    /// Returns one end of a connection from a connected socket.
    ///
    /// # Errors
    ///
    /// The system's, if the socket cannot be made blocking.
    pub fn new(stream: UnixStream) -> io::Result<Wire> {
        stream.set_nonblocking(false)?;
        Ok(Wire(stream))
    }

    /// Returns the process at the other end, as it was when it connected.
    ///
    /// # Errors
    ///
    /// The system's (getsockopt(2)).
    pub fn peer(&self) -> io::Result<Peer> {
        let (pid, user) = process::peer(&self.0)?;
        Ok(Peer { pid, user })
    }

    /// Sends a message. The other end must read so much of it within `timeout` that the rest fits into the socket's buffer.
    ///
    /// # Errors
    ///
    /// `Closed`, `TimedOut`, `System`: part of the message may have been sent, never all of it. `TooLarge`, `Malformed`:
    /// nothing was sent.
    pub fn send(
        &mut self,
        kind: MessageKind,
        body: &impl Serialize,
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<(), WireError> {
        let deadline = Instant::now() + timeout;
        let body =
            serde_json::to_vec(body).map_err(|error| WireError::Malformed(error.to_string()))?;
        if body.len() as u64 > BYTES_MAX || fds.len() > FDS_MAX as usize {
            return Err(WireError::TooLarge(body.len(), fds.len()));
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.push(kind as u8);
        header.extend((body.len() as u64).to_le_bytes());
        header.extend(number::to_u32(fds.len()).to_le_bytes());
        self.write_all(&header, deadline)
            .and_then(|()| self.write_all(&body, deadline))
            .and_then(|()| fd_passing::send_fds(&self.0, fds, deadline))
            .map_err(classify)
    }

    /// Waits for a whole message.
    ///
    /// # Errors
    ///
    /// Any of [`WireError`] but `TooLarge`. The rest of a message that has begun is lost, so nothing more can be received.
    pub fn receive(&mut self, timeout: Duration) -> Result<Frame, WireError> {
        let deadline = Instant::now() + timeout;
        let mut header = [0; HEADER_BYTES];
        self.read_exact(&mut header, deadline).map_err(classify)?;
        let kind = MessageKind::of(header[0]);
        let kind =
            kind.ok_or_else(|| WireError::Malformed("a frame of no known kind".to_owned()))?;
        let length = u64_at(&header[1..9]);
        let count = u64_at(&header[9..13]);
        if length > BYTES_MAX || count > u64::from(FDS_MAX) {
            return Err(WireError::Malformed("a frame that is too large".to_owned()));
        }
        let mut body = vec![0; number::to_usize(length)];
        self.read_exact(&mut body, deadline).map_err(classify)?;
        let fds = fd_passing::receive_fds(&self.0, number::to_usize(count), deadline)
            .map_err(classify)?;
        Ok(Frame { kind, body, fds })
    }

    /// Discards what arrives until the other end is closed.
    ///
    /// # Errors
    ///
    /// `TimedOut`, if it is still open at the deadline; `System`.
    pub fn wait_until_closed(&mut self, deadline: Instant) -> Result<(), WireError> {
        let mut discarded = [0; 4096];
        loop {
            match self.read_exact(&mut discarded, deadline).map_err(classify) {
                Ok(()) => {}
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
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

/// For tests that play one side of a takeover.
#[cfg(any(test, feature = "internals"))]
impl Wire {
    /// Waits for a message of this kind. Any other message is an error.
    ///
    /// # Errors
    ///
    /// The error of a takeover that ends here: another message, a refusal, or none in time.
    pub fn expect(
        &mut self,
        kind: MessageKind,
        timeout: Duration,
    ) -> Result<Frame, crate::takeover::error::TakeoverError> {
        let failed = |error| crate::takeover::error::TakeoverError::receiving(kind, timeout, error);
        let frame = self.receive(timeout).map_err(failed)?;
        let message = frame.message().map_err(failed)?;
        crate::takeover::protocol::expect(kind, timeout, Ok(message))?;
        Ok(frame)
    }
}

/// Returns the meaning of an error of a stream socket (unix(7), socket(7)).
fn classify(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => WireError::Closed,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::TimedOut,
        io::ErrorKind::InvalidData => WireError::Malformed(error.to_string()),
        _ => WireError::System(error),
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

    /// Two megabytes and ten thousand descriptors arrive as they were sent. The test runs in a process of its own, because it
    /// needs that many open files.
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
            let (printed, errors) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert!(output.status.success(), "{printed}{errors}");
            assert!(printed.contains("1 passed"), "{printed}");
            println!("{}", errors.trim());
            return;
        }
        crate::net::limits::raise_open_files();
        // Use half of the permitted open files if that is fewer than 10,000.
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
                .send(MessageKind::Released, &body, &fds, SOON)
                .expect("sent");
        });
        let frame = here.receive(SOON).expect("received");
        eprintln!("2 MB and {count} descriptors took {:?}", begun.elapsed());
        sender.join().expect("sent");
        assert_eq!(
            (frame.read::<Vec<u32>>().expect("numbers"), frame.fds.len()),
            (expected, count)
        );
    }

    /// A frame that announces no descriptor, but carries one, is refused, and the descriptor is closed.
    #[test]
    fn unannounced_descriptors_are_closed() {
        let (mut here, there) = pair();
        let (mut read, write) = io::pipe().expect("a pipe");
        fd_passing::send_fds(&there, &[write.as_fd()], Instant::now() + SOON).expect("sent");
        drop(write);
        Wire::new(there)
            .expect("a wire")
            .send(MessageKind::Ready, &(), &[], SOON)
            .expect("sent");
        assert!(matches!(here.receive(SOON), Err(WireError::Malformed(_))));
        assert_eq!(
            read.read(&mut [0]).expect("the end of the pipe"),
            0,
            "still open somewhere"
        );
    }

    /// A peer that sends its message byte by byte, or never reads ours, does not delay us past our timeout. A closed connection
    /// has another error than a slow one.
    #[test]
    fn a_slow_peer_times_out() {
        let short = Duration::from_millis(200);
        let (mut here, mut there) = pair();
        let dripping = thread::spawn(move || {
            // The write fails when the other end is closed.
            let mut frame = [b'M', 0, 0, 0, 1].into_iter().chain(std::iter::repeat(0));
            while there.write_all(&[frame.next().expect("no end")]).is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(matches!(here.receive(short), Err(WireError::TimedOut)));
        drop(here);
        dripping.join().expect("it ends");

        let (mut here, there) = pair();
        let much = "x".repeat(10 << 20);
        assert!(matches!(
            here.send(MessageKind::Manifest, &much, &[], short),
            Err(WireError::TimedOut)
        ));
        drop(there);
        assert!(matches!(
            here.send(MessageKind::Manifest, &much, &[], SOON),
            Err(WireError::Closed)
        ));
    }

    /// The end of the connection is found after all data that the other process has sent, and not before.
    #[test]
    fn wait_until_closed_discards_data() {
        let (mut here, mut there) = pair();
        there.write_all(&[b'x'; 10_000]).expect("written");
        let early = Instant::now() + Duration::from_millis(20);
        assert!(matches!(
            here.wait_until_closed(early),
            Err(WireError::TimedOut)
        ));
        there.write_all(b"more").expect("written");
        drop(there);
        here.wait_until_closed(Instant::now() + SOON)
            .expect("it is closed");
    }

    /// Nothing is sent of a message that exceeds a limit.
    #[test]
    fn nothing_is_sent_of_a_message_that_is_too_large() {
        let (mut here, there) = pair();
        let fds = vec![there.as_fd(); FDS_MAX as usize + 1];
        assert!(matches!(
            here.send(MessageKind::Released, &(), &fds, SOON),
            Err(WireError::TooLarge(..))
        ));
        drop(here);
        assert_eq!((&there).read(&mut [0]).expect("the end"), 0);
    }

    /// Each failure of the peer has its own error: it ends in the middle of a frame, sends nothing, refuses, or sends other data.
    #[test]
    fn every_failure_has_its_own_error() {
        let (mut here, mut there) = pair();
        there
            .write_all(&[MessageKind::Manifest as u8, 9, 0])
            .expect("written");
        drop(there);
        assert!(matches!(here.receive(SOON), Err(WireError::Closed)));

        let (mut here, _there) = pair();
        let silent = here.receive(Duration::from_millis(20));
        assert!(matches!(silent, Err(WireError::TimedOut)));

        let (mut here, there) = pair();
        let refused = Refused {
            reason: "no".to_owned(),
        };
        Wire::new(there)
            .expect("a wire")
            .send(MessageKind::Refused, &refused, &[], SOON)
            .expect("sent");
        assert!(
            matches!(here.expect(MessageKind::Manifest, SOON), Err(crate::takeover::error::TakeoverError::Refused(reason)) if reason == "no")
        );

        for nonsense in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[b'M', 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
        ] {
            let (mut here, mut there) = pair();
            there.write_all(nonsense).expect("written");
            assert!(matches!(here.receive(SOON), Err(WireError::Malformed(_))));
        }
    }
}
