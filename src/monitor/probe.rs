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
    Tcp {
        stream: TcpStream,
        is_open: bool,
        /// Bytes of the question that are sent.
        sent: usize,
        /// What came so far, at most [`STREAM_BYTES_MAX`].
        heard: Vec<u8>,
    },
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
                ProbeSocket::Tcp {
                    stream,
                    is_open,
                    sent,
                    heard,
                } => converse(stream, is_open, sent, heard, probe, buffer),
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
            ProbeSocket::Tcp { heard, .. } => !heard.is_empty(),
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
    Ok(ProbeSocket::Tcp {
        stream,
        is_open: false,
        sent: 0,
        heard: Vec::new(),
    })
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

fn converse(
    stream: &mut TcpStream,
    is_open: &mut bool,
    sent: &mut usize,
    heard: &mut Vec<u8>,
    probe: &ProbeSettings,
    buffer: &mut [u8],
) -> io::Result<ProbeOutcome> {
    if !*is_open {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        let peer = stream.peer_addr()?;
        refuse_ourselves(stream.local_addr()?, peer)?;
        *is_open = true;
    }
    while let rest @ [_, ..] = &probe.send[*sent..] {
        *sent += stream.write(rest)?;
    }
    if probe.send.is_empty() && probe.expect.is_empty() {
        return Ok(Ok(()));
    }
    loop {
        let room = buffer.len().min(STREAM_BYTES_MAX - heard.len());
        let len = stream.read(&mut buffer[..room])?;
        // What was there before is searched again only as far as the expected bytes may have begun in it.
        let searched = heard.len().saturating_sub(probe.expect.len());
        heard.extend_from_slice(&buffer[..len]);
        match len {
            0 if heard.is_empty() => return Ok(Err(ProbeFailure::Closed)),
            // The end, or no room for more.
            0 => return Ok(Err(ProbeFailure::Unexpected)),
            _ if contains(&heard[searched..], &probe.expect) => return Ok(Ok(())),
            _ => {}
        }
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
