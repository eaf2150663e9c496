//! A conversation between two processes: frames with a name, data and descriptors, each with a deadline. Whatever goes wrong is
//! an error in words, and the caller goes on as if nobody had asked.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::net::pass;

/// The longest data of a frame: some million sessions.
const BYTES_MAX: u64 = 1 << 30;
/// The most descriptors of a frame.
const FDS_MAX: u32 = 1 << 20;
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
    const ALL: [Kind; 7] =
        [Kind::Hello, Kind::Refused, Kind::Manifest, Kind::Ready, Kind::Released, Kind::Started, Kind::Farewell];
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
        pass::peer(&self.0)
    }

    /// Says something. The other end must take it within `patience`.
    pub fn send(
        &mut self,
        kind: Kind,
        body: &impl Serialize,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(), WireError> {
        let body = serde_json::to_vec(body).map_err(|error| WireError::Nonsense(error.to_string()))?;
        self.0.set_write_timeout(Some(patience))?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.push(kind as u8);
        frame.extend((body.len() as u64).to_le_bytes());
        frame.extend((fds.len() as u32).to_le_bytes());
        frame.extend(body);
        self.0.write_all(&frame)?;
        Ok(pass::send_fds(&self.0, fds)?)
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
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::Silent(kind, patience),
            _ => WireError::System(error),
        };
        let mut header = [0; HEADER_BYTES];
        self.read_exact(&mut header, deadline).map_err(wrong)?;
        let got = Kind::ALL.into_iter().find(|kind| *kind as u8 == header[0]);
        let (length, count) = (u64_at(&header[1..9]), u64_at(&header[9..13]));
        let got = got.ok_or_else(|| WireError::Nonsense("a frame of no known kind".to_owned()))?;
        if length > BYTES_MAX || count > u64::from(FDS_MAX) {
            return Err(WireError::Nonsense("a frame that is too large".to_owned()));
        }
        let mut body = vec![0; length as usize];
        self.read_exact(&mut body, deadline).map_err(wrong)?;
        self.0.set_read_timeout(Some(left(deadline)))?;
        let fds = pass::receive_fds(&self.0, count as usize).map_err(wrong)?;
        let frame = Frame { body, fds };
        match got {
            got if got == kind => Ok(frame),
            Kind::Refused => Err(WireError::Refused(frame.read::<super::words::Refused>()?.why)),
            got => Err(WireError::Nonsense(format!("`{got:?}` came instead of `{kind:?}`"))),
        }
    }

    fn read_exact(&mut self, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.set_read_timeout(Some(left(deadline)))?;
            match self.0.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A timeout of zero would be none at all.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn u64_at(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
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

    /// Megabytes and thousands of descriptors arrive as they were sent.
    #[test]
    fn large_frames_arrive() {
        let (mut here, there) = pair();
        let body: Vec<u32> = (0..500_000).collect();
        let expected = body.clone();
        let sender = thread::spawn(move || {
            let file = tempfile::tempfile().expect("a file");
            let fds = vec![file.as_fd(); 1_000];
            Wire::new(there).expect("a wire").send(Kind::Released, &body, &fds, SOON).expect("sent");
        });
        let frame = here.receive(Kind::Released, SOON).expect("received");
        sender.join().expect("sent");
        assert_eq!((frame.read::<Vec<u32>>().expect("numbers"), frame.fds.len()), (expected, 1_000));
    }

    /// A peer that ends in the middle of a frame, says nothing, refuses, or talks nonsense: each has its error.
    #[test]
    fn every_failure_has_its_name() {
        let (mut here, mut there) = pair();
        there.write_all(&[Kind::Manifest as u8, 9, 0]).expect("written");
        drop(there);
        assert!(matches!(here.receive(Kind::Manifest, SOON), Err(WireError::Gone(Kind::Manifest))));

        let (mut here, _there) = pair();
        let silent = here.receive(Kind::Ready, Duration::from_millis(20));
        assert!(matches!(silent, Err(WireError::Silent(Kind::Ready, _))));

        let (mut here, there) = pair();
        let refused = super::super::words::Refused { why: "no".to_owned() };
        Wire::new(there).expect("a wire").send(Kind::Refused, &refused, &[], SOON).expect("sent");
        assert!(matches!(here.receive(Kind::Manifest, SOON), Err(WireError::Refused(why)) if why == "no"));

        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[b'M', 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]] {
            let (mut here, mut there) = pair();
            there.write_all(nonsense).expect("written");
            assert!(matches!(here.receive(Kind::Manifest, SOON), Err(WireError::Nonsense(_))));
        }
    }
}
