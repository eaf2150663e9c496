//! One probe of one upstream: its socket, the request, and the reply. It never blocks; the thread that polls the socket
//! calls it when there is an event.
//!
//! Each probe has a new socket, so that a late reply to an earlier probe is not taken for a reply to this one.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use crate::config::upstream::{ProbeOver, ProbeSettings};
use crate::monitor::health::ProbeFailure;
use crate::net::errno::{self, ProbeError};
use crate::net::probe::{self, Leaving};

/// Size of the read buffer in bytes, enough for the largest datagram.
pub const BUFFER_BYTES: usize = 65_535;
/// Bytes of a TCP reply that are searched for the expected bytes.
const STREAM_BYTES_MAX: usize = 4_096;
/// Datagrams that one probe reads. An upstream that floods the probe with other datagrams counts as failed.
const DATAGRAMS_MAX: u32 = 16;

/// The result of a probe.
pub type ProbeOutcome = Result<(), ProbeFailure>;

/// The path of a probe from this host to the upstream.
#[derive(Debug, Clone, Copy)]
pub struct ProbePath {
    /// The address of the upstream.
    pub to: SocketAddr,
    /// The source address and the interface.
    pub leaving: Leaving,
}

/// A probe in progress.
#[derive(Debug)]
pub struct Probe {
    socket: ProbeSocket,
}

#[derive(Debug)]
enum ProbeSocket {
    Udp {
        socket: UdpSocket,
        /// Datagrams received that were not the expected reply.
        others: u32,
    },
    Tcp(TcpExchange),
}

/// The progress of a request and its reply over TCP.
#[derive(Debug)]
struct TcpExchange {
    stream: TcpStream,
    /// Whether the connection is established.
    is_open: bool,
    /// Bytes of the request sent so far.
    sent: usize,
    /// The bytes received so far, at most [`STREAM_BYTES_MAX`].
    received: Vec<u8>,
}

impl Probe {
    /// Sends the request. Events of the socket are reported with `token`.
    ///
    /// # Errors
    ///
    /// Returns the [`ProbeFailure`] if the socket cannot be opened, connected or registered, or if the request cannot
    /// be sent.
    pub fn begin(
        registry: &Registry,
        token: Token,
        path: ProbePath,
        probe: &ProbeSettings,
    ) -> Result<Probe, ProbeFailure> {
        let begun = match probe.over {
            ProbeOver::Udp => begin_udp(registry, token, path, &probe.send),
            ProbeOver::Tcp => begin_tcp(registry, token, path),
        };
        begun
            .map(|socket| Probe { socket })
            .map_err(|error| failure(&error))
    }

    /// Proceeds as far as is possible without blocking. Returns the outcome when the probe is over. The caller calls it
    /// after each event.
    pub fn proceed(&mut self, probe: &ProbeSettings, buffer: &mut [u8]) -> Option<ProbeOutcome> {
        loop {
            let result = match &mut self.socket {
                ProbeSocket::Udp { socket, others } => {
                    receive_datagram(socket, others, probe, buffer)
                }
                ProbeSocket::Tcp(exchange) => exchange.step(probe, buffer),
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

    /// Returns the reason why the probe failed, when its timeout has expired.
    pub fn overdue(&self, probe: &ProbeSettings) -> ProbeFailure {
        let has_other_reply = match &self.socket {
            ProbeSocket::Udp { others, .. } => *others > 0,
            ProbeSocket::Tcp(exchange) => !exchange.received.is_empty(),
        };
        if has_other_reply {
            ProbeFailure::Unexpected
        } else {
            ProbeFailure::NoReply(probe.timeout)
        }
    }
}

fn begin_udp(
    registry: &Registry,
    token: Token,
    path: ProbePath,
    request: &[u8],
) -> io::Result<ProbeSocket> {
    let ProbePath { to, leaving } = path;
    let mut socket = UdpSocket::from_std(probe::udp(to, leaving)?);
    reject_self_connection(socket.local_addr()?, to)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    match socket.send(request) {
        // If the device queue is full, no reply comes, and the timeout reports it.
        Err(error) if errno::of_probe(&error) != ProbeError::Wait => Err(error),
        _ => Ok(ProbeSocket::Udp { socket, others: 0 }),
    }
}

fn begin_tcp(registry: &Registry, token: Token, path: ProbePath) -> io::Result<ProbeSocket> {
    let mut stream = TcpStream::from_std(probe::tcp(path.to, path.leaving)?);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(ProbeSocket::Tcp(TcpExchange {
        stream,
        is_open: false,
        sent: 0,
        received: Vec::new(),
    }))
}

/// Rejects a socket that is connected to itself. The kernel may choose the probed port as source port if it is unused,
/// and the probe would then receive its own request.
fn reject_self_connection(local: SocketAddr, to: SocketAddr) -> io::Result<()> {
    if local == to {
        Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
    } else {
        Ok(())
    }
}

fn receive_datagram(
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

impl TcpExchange {
    /// Proceeds as far as is possible without blocking. Returns the outcome, or an error. The error may be that the
    /// socket would block.
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
            if let Some(outcome) = self.check_reply(&buffer[..len], &probe.expect) {
                return Ok(outcome);
            }
        }
    }

    /// Returns an error if the connection is not established yet, or cannot be.
    fn check_open(&self) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let peer = self.stream.peer_addr()?;
        reject_self_connection(self.stream.local_addr()?, peer)
    }

    /// Appends the bytes read and decides whether the reply matches. `read` is empty at the end of the stream, or if
    /// the buffer has no space left.
    fn check_reply(&mut self, read: &[u8], expected: &[u8]) -> Option<ProbeOutcome> {
        if read.is_empty() {
            let failure = if self.received.is_empty() {
                ProbeFailure::Closed
            } else {
                ProbeFailure::Unexpected
            };
            return Some(Err(failure));
        }
        // Earlier bytes are searched again only where the expected bytes may have begun in them.
        let searched = self.received.len().saturating_sub(expected.len());
        self.received.extend_from_slice(read);
        contains(&self.received[searched..], expected).then_some(Ok(()))
    }
}

fn contains(reply: &[u8], expected: &[u8]) -> bool {
    // windows() panics on a size of 0.
    expected.is_empty() || reply.windows(expected.len()).any(|part| part == expected)
}

fn failure(error: &io::Error) -> ProbeFailure {
    match errno::of_probe(error) {
        ProbeError::Refused => ProbeFailure::Refused,
        ProbeError::Unreachable => ProbeFailure::Unreachable(error.to_string()),
        // In a call that never blocks, EAGAIN means that all source ports are in use (connect(2)).
        ProbeError::Ours | ProbeError::Wait | ProbeError::Again => {
            ProbeFailure::Ours(error.to_string())
        }
    }
}
