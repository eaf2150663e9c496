//! One probe of one upstream: a socket of its own, the question, and what comes back. Never waits; whoever polls the socket
//! says when to go on.
//!
//! Each probe has a new socket, so that a late answer to the last one is not taken for an answer to this one.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use crate::config::upstream::{ProbeOver, ProbeSettings};
use crate::monitor::health::ProbeFailure;
use crate::net::errno::{self, ProbeError};
use crate::net::probe::{self, Leaving};

/// Bytes of the largest datagram, and of memory for reading.
pub const BUFFER_BYTES: usize = 65_535;
/// Bytes of a TCP answer that are searched for what is expected.
const STREAM_BYTES_MAX: usize = 4_096;
/// Datagrams that one probe looks at: an upstream that floods its asker does not answer.
const DATAGRAMS_MAX: u32 = 16;

/// What became of a probe.
pub type ProbeOutcome = Result<(), ProbeFailure>;

/// A probe that is under way.
#[derive(Debug)]
pub struct Probe {
    socket: ProbeSocket,
}

#[derive(Debug)]
enum ProbeSocket {
    Udp {
        socket: UdpSocket,
        /// Datagrams that were not the answer.
        others: u32,
    },
    Tcp(Conversation),
}

/// A question and its answer over TCP, as far as they have come.
#[derive(Debug)]
struct Conversation {
    stream: TcpStream,
    /// Whether the connection is established.
    is_open: bool,
    /// Bytes of the question that are sent.
    sent: usize,
    /// What came so far, at most [`STREAM_BYTES_MAX`].
    received: Vec<u8>,
}

impl Probe {
    /// Asks. Events of the socket come with the token.
    pub fn begin(
        registry: &Registry,
        token: Token,
        to: SocketAddr,
        leaving: Leaving,
        probe: &ProbeSettings,
    ) -> Result<Probe, ProbeFailure> {
        let begun = match probe.over {
            ProbeOver::Udp => begin_udp(registry, token, to, leaving, &probe.send),
            ProbeOver::Tcp => begin_tcp(registry, token, to, leaving),
        };
        begun
            .map(|socket| Probe { socket })
            .map_err(|error| failure(&error))
    }

    /// Does what can be done without waiting. `Some` when the probe is over. To be called after any event.
    pub fn go_on(&mut self, probe: &ProbeSettings, buffer: &mut [u8]) -> Option<ProbeOutcome> {
        loop {
            let result = match &mut self.socket {
                ProbeSocket::Udp { socket, others } => hear_datagram(socket, others, probe, buffer),
                ProbeSocket::Tcp(conversation) => conversation.step(probe, buffer),
            };
            match result {
                Ok(outcome) => return Some(outcome),
                Err(error) => match errno::of_probe(&error) {
                    ProbeError::Wait => return None,
                    ProbeError::Again => {}
                    _ => return Some(Err(failure(&error))),
                },
            }
        }
    }

    /// Why it failed, now that the time is over.
    pub fn overdue(&self, probe: &ProbeSettings) -> ProbeFailure {
        let has_other_answer = match &self.socket {
            ProbeSocket::Udp { others, .. } => *others > 0,
            ProbeSocket::Tcp(conversation) => !conversation.received.is_empty(),
        };
        match has_other_answer {
            true => ProbeFailure::Unexpected,
            false => ProbeFailure::NoAnswer(probe.timeout),
        }
    }
}

fn begin_udp(
    registry: &Registry,
    token: Token,
    to: SocketAddr,
    leaving: Leaving,
    question: &[u8],
) -> io::Result<ProbeSocket> {
    let mut socket = UdpSocket::from_std(probe::udp(to, leaving)?);
    refuse_ourselves(socket.local_addr()?, to)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    match socket.send(question) {
        // A full device queue is no answer; the timeout will say so.
        Err(error) if errno::of_probe(&error) != ProbeError::Wait => Err(error),
        _ => Ok(ProbeSocket::Udp { socket, others: 0 }),
    }
}

fn begin_tcp(
    registry: &Registry,
    token: Token,
    to: SocketAddr,
    leaving: Leaving,
) -> io::Result<ProbeSocket> {
    let mut stream = TcpStream::from_std(probe::tcp(to, leaving)?);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(ProbeSocket::Tcp(Conversation {
        stream,
        is_open: false,
        sent: 0,
        received: Vec::new(),
    }))
}

/// The kernel may choose the very port that is asked, where nobody listens on it: the probe would hear itself.
fn refuse_ourselves(local: SocketAddr, to: SocketAddr) -> io::Result<()> {
    match local == to {
        true => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        false => Ok(()),
    }
}

fn hear_datagram(
    socket: &UdpSocket,
    others: &mut u32,
    probe: &ProbeSettings,
    buffer: &mut [u8],
) -> io::Result<ProbeOutcome> {
    loop {
        let len = socket.recv(buffer)?;
        if contains(&buffer[..len], &probe.expect) {
            return Ok(Ok(()));
        }
        *others += 1;
        if *others >= DATAGRAMS_MAX {
            return Ok(Err(ProbeFailure::Unexpected));
        }
    }
}

impl Conversation {
    /// Goes as far as is possible without waiting. The end of it, or an error, which may say that it has to wait.
    fn step(&mut self, probe: &ProbeSettings, buffer: &mut [u8]) -> io::Result<ProbeOutcome> {
        if !self.is_open {
            self.check_open()?;
            self.is_open = true;
        }
        while let rest @ [_, ..] = &probe.send[self.sent..] {
            self.sent += self.stream.write(rest)?;
        }
        if probe.send.is_empty() && probe.expect.is_empty() {
            return Ok(Ok(()));
        }
        loop {
            let room = buffer.len().min(STREAM_BYTES_MAX - self.received.len());
            let len = self.stream.read(&mut buffer[..room])?;
            if let Some(outcome) = self.judge(&buffer[..len], &probe.expect) {
                return Ok(outcome);
            }
        }
    }

    /// Fails while the connection is not established, or if it cannot be.
    fn check_open(&self) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let peer = self.stream.peer_addr()?;
        refuse_ourselves(self.stream.local_addr()?, peer)
    }

    /// Adds what was read, and decides whether that was the answer. Nothing was read at the end of the stream, or where
    /// there is no room for more.
    fn judge(&mut self, read: &[u8], expected: &[u8]) -> Option<ProbeOutcome> {
        if read.is_empty() {
            let failure = if self.received.is_empty() {
                ProbeFailure::Closed
            } else {
                ProbeFailure::Unexpected
            };
            return Some(Err(failure));
        }
        // What was there before is searched again only as far as the expected bytes may have begun in it.
        let searched = self.received.len().saturating_sub(expected.len());
        self.received.extend_from_slice(read);
        contains(&self.received[searched..], expected).then_some(Ok(()))
    }
}

fn contains(answer: &[u8], expected: &[u8]) -> bool {
    // windows() does not take 0.
    expected.is_empty() || answer.windows(expected.len()).any(|part| part == expected)
}

fn failure(error: &io::Error) -> ProbeFailure {
    match errno::of_probe(error) {
        ProbeError::Refused => ProbeFailure::Refused,
        ProbeError::Unreachable => ProbeFailure::Unreachable(error.to_string()),
        // Where there is nothing to wait for, EAGAIN means that all ports are taken (connect(2)).
        ProbeError::Ours | ProbeError::Wait | ProbeError::Again => {
            ProbeFailure::Ours(error.to_string())
        }
    }
}
