//! Request and reply: clients, and the server that they use through the forwarder. One thread does both in turns.
//!
//! A client is an address and a port. All clients share one socket, each with an address of 127.0.0.0/8 of its own. So
//! the load can send and take many datagrams in one call, and never runs out of new clients. The server sends back what
//! it gets. Every reply must equal its request, and come to the right client from the address that it sent to. Requests
//! without a reply are sent again when nothing has come for some time, and counted as not delivered.

use crate::cell::{AT_ONCE_MAX, Cell, Talk};
use crate::place::Place;
use crate::subject::{Running, Subject};
use crate::sys::{self, Datagrams};
use crate::traffic::Sample;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

/// Payload of requests and replies, in bytes.
const SIZE: usize = 64;
/// When nothing has come for this long, the requests that are under way are sent again.
const QUIET: Duration = Duration::from_millis(100);
/// Number of such repetitions, one after the other, before the forwarder is given up.
const TRIES_MAX: u32 = 30;
/// Time to wait for the reply to a probe before the next one.
const PROBE: Duration = Duration::from_millis(10);
/// Longest time that a subject may take until its first client gets a reply.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Receive buffer of the clients and of the server in bytes, if the process may have that much.
const BUFFER_BYTES: usize = 64 << 20;
/// Time of one-shot exchanges before the measured ones. A forwarder that keeps ports for the next session then has all
/// that it will have.
const ONE_SHOT_WARM_UP: Duration = Duration::from_secs(1);
/// Largest number of one-shot exchanges of a forwarder with lingering sessions. Each needs a port until it ends.
const LINGERING_MAX: u64 = 15_000;
/// Time after them in which the work counts as theirs: the timeout, and a margin.
const LINGERING_REST: Duration = Duration::from_millis(1300);
/// Number of sessions for each address of the server. With more sessions, it has several addresses.
const SESSIONS_PER_UPSTREAM: usize = 50_000;
/// The client that probes, which is not one of those that are measured.
const PROBING: u32 = u32::MAX;

/// Sends back all that it gets.
struct Server {
    sockets: Vec<UdpSocket>,
    datagrams: Datagrams,
}

impl Server {
    fn new(addresses: usize) -> io::Result<Self> {
        let bind = |number| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 1 + number as u8), 0))?;
            sys::force_receive_buffer(&socket, BUFFER_BYTES)?;
            Ok(socket)
        };
        let sockets = (0..addresses).map(bind).collect::<io::Result<_>>()?;
        Ok(Self {
            sockets,
            datagrams: Datagrams::new(AT_ONCE_MAX, SIZE * 2, false),
        })
    }

    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Replies to all that has come.
    fn serve(&mut self) -> io::Result<usize> {
        let mut served = 0;
        for socket in &self.sockets {
            let filled =
                none_if_would_block(self.datagrams.receive(socket.as_raw_fd(), AT_ONCE_MAX))?;
            send_all(&mut self.datagrams, socket, filled)?;
            served += filled;
        }
        Ok(served)
    }
}

/// The clients of one thread.
struct Clients {
    socket: UdpSocket,
    forwarder: SocketAddrV4,
    datagrams: Datagrams,
    talk: Talk,
    /// Clients that wait for their turn. One-shot clients are only counted.
    idle: VecDeque<u32>,
    next: u32,
    /// Requests that are under way, by number and client.
    waiting: HashMap<u64, u32>,
    sent: u64,
    answered: u64,
    /// Number of requests that had to be sent again.
    lost: u64,
}

impl Clients {
    fn new(talk: &Talk, forwarder: SocketAddr) -> io::Result<Self> {
        let SocketAddr::V4(forwarder) = forwarder else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        sys::force_receive_buffer(&socket, BUFFER_BYTES)?;
        Ok(Self {
            socket,
            forwarder,
            datagrams: Datagrams::new(AT_ONCE_MAX, SIZE * 2, true),
            talk: *talk,
            idle: (0..talk.clients as u32).collect(),
            next: 0,
            waiting: HashMap::new(),
            sent: 0,
            answered: 0,
            lost: 0,
        })
    }

    /// The client that is next in turn.
    fn turn(&mut self) -> Option<u32> {
        if self.talk.is_one_shot {
            self.next += 1;
            return Some(self.next);
        }
        self.idle.pop_front()
    }

    /// Sends requests until the intended number is under way.
    fn ask(&mut self) -> io::Result<()> {
        let mut filled = 0;
        while self.waiting.len() < self.talk.at_once {
            let Some(client) = self.turn() else { break };
            self.sent += 1;
            self.waiting.insert(self.sent, client);
            self.fill(filled, self.sent, client);
            filled += 1;
        }
        send_all(&mut self.datagrams, &self.socket, filled)
    }

    /// Sends all requests that are under way again.
    fn ask_again(&mut self) -> io::Result<()> {
        let waiting: Vec<_> = self
            .waiting
            .iter()
            .map(|(&number, &client)| (number, client))
            .collect();
        for (slot, (number, client)) in waiting.iter().enumerate() {
            self.fill(slot, *number, *client);
        }
        self.lost += waiting.len() as u64;
        send_all(&mut self.datagrams, &self.socket, waiting.len())
    }

    /// Makes a request: its number, its client, and zeroes.
    fn fill(&mut self, slot: usize, number: u64, client: u32) {
        let mut request = [b'x'; SIZE];
        request[..8].copy_from_slice(&number.to_ne_bytes());
        request[8..12].copy_from_slice(&client.to_ne_bytes());
        self.datagrams.set_bytes(slot, &request);
        self.datagrams.set_peer(slot, self.forwarder);
        self.datagrams.set_own(slot, address(client));
    }

    /// Takes the replies that have come. Returns their number.
    fn take(&mut self) -> io::Result<usize> {
        let filled =
            none_if_would_block(self.datagrams.receive(self.socket.as_raw_fd(), AT_ONCE_MAX))?;
        for slot in 0..filled {
            let reply = self.datagrams.bytes(slot);
            let (Some(number), Some(client)) = (reply.first_chunk(), reply[8..].first_chunk())
            else {
                return Err(io::Error::other(format!(
                    "sent {SIZE} B, got {} B back",
                    reply.len()
                )));
            };
            let number = u64::from_ne_bytes(*number);
            let client = u32::from_ne_bytes(*client);
            let from = self.datagrams.peer(slot);
            let to = self.datagrams.own(slot);
            if from != self.forwarder || to != Some(address(client)) || reply.len() != SIZE {
                let asked = address(client);
                let to = to.map_or("nobody".into(), |to| to.to_string());
                return Err(io::Error::other(format!(
                    "it sent {to} what {asked} shall get, {} B, from {from}",
                    reply.len()
                )));
            }
            // If a request was sent again, there may be two replies.
            if self.waiting.remove(&number).is_some() {
                self.answered += 1;
                if !self.talk.is_one_shot && client != PROBING {
                    self.idle.push_back(client);
                }
            }
        }
        Ok(filled)
    }
}

/// The address of a client: from 127.16.0.0 to 127.79.255.255, never with a last byte that looks like a network or a
/// broadcast address.
fn address(client: u32) -> Ipv4Addr {
    let net = client / 254 % (64 << 16 >> 8);
    let host = client % 254;
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 16, 0, 1).to_bits() + (net << 8) + host)
}

fn none_if_would_block(filled: io::Result<usize>) -> io::Result<usize> {
    match filled {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        // ICMP reports to a socket that the forwarder, or its session, is not there.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
        other => other,
    }
}

fn send_all(datagrams: &mut Datagrams, socket: &UdpSocket, filled: usize) -> io::Result<()> {
    let mut sent = 0;
    while sent < filled {
        sent += datagrams.send(socket.as_raw_fd(), sent, filled)?;
    }
    Ok(())
}

/// The clients and the server of one thread.
pub(crate) struct Ends {
    server: Server,
    clients: Clients,
}

impl Ends {
    /// Clients that send to the server directly.
    pub(crate) fn without_forwarder() -> io::Result<Self> {
        let server = Server::new(1)?;
        let clients = Clients::new(&Talk::of(1), server.addresses()?[0])?;
        Ok(Self { server, clients })
    }

    /// Serves the server and the clients once. Returns whether there was anything to do.
    fn step(&mut self) -> io::Result<bool> {
        Ok(self.server.serve()? + self.clients.take()? > 0)
    }

    /// Serves for this long, and sends no requests.
    pub(crate) fn listen(&mut self, time: Duration) -> io::Result<()> {
        let limit = Instant::now() + time;
        while Instant::now() < limit {
            self.step()?;
        }
        Ok(())
    }

    /// Makes one exchange with nothing else under way. Returns the time from the request to the reply.
    pub(crate) fn round_trip(&mut self) -> io::Result<Duration> {
        let goal = self.clients.answered + 1;
        let start = Instant::now();
        self.clients.ask()?;
        while self.clients.answered < goal {
            if start.elapsed() > QUIET {
                return Err(io::Error::other("it lost a request"));
            }
            self.step()?;
        }
        Ok(start.elapsed())
    }

    /// Makes exchanges for this long, or until there were `count`. Returns when all replies have come, with the time
    /// that it took.
    fn exchange(&mut self, window: Option<Duration>, count: u64) -> io::Result<Duration> {
        let start = Instant::now();
        let goal = self.clients.sent.saturating_add(count);
        let mut quiet_since = start;
        let mut tries = 0;
        loop {
            let now = Instant::now();
            if self.clients.sent < goal && window.is_none_or(|window| now - start < window) {
                self.clients.ask()?;
            } else if self.clients.waiting.is_empty() {
                return Ok(now - start);
            }
            if self.step()? {
                (quiet_since, tries) = (now, 0);
            } else if now - quiet_since > QUIET {
                if tries == TRIES_MAX {
                    let left = self.clients.waiting.len();
                    return Err(io::Error::other(format!("left {left} requests unanswered")));
                }
                self.clients.ask_again()?;
                (quiet_since, tries) = (now, tries + 1);
            }
        }
    }
}

/// Number of clients that a forwarder can have that needs a file for each of them and a few more.
pub(crate) fn clients_max(files_max: u64) -> usize {
    files_max.saturating_sub(1_000) as usize
}

/// A forwarder that runs and replies, with all that loads it.
pub(crate) struct Trial {
    lingers: bool,
    running: Running,
    pub(crate) ends: Ends,
}

impl Trial {
    /// Starts the forwarder and waits until it replies. The error is the reason why it is absent.
    pub(crate) fn start(subject: &Subject, talk: &Talk, place: &Place) -> io::Result<Self> {
        if talk.clients > clients_max(place.files_max) {
            return Err(io::Error::other(format!(
                "only {} files may be open",
                place.files_max
            )));
        }
        let server = Server::new(talk.clients.div_ceil(SESSIONS_PER_UPSTREAM))?;
        let running = subject.start(&Cell::Exchange(*talk), &server.addresses()?, place)?;
        let clients = Clients::new(talk, running.listen)?;
        let mut trial = Self {
            lingers: talk.is_one_shot && subject.lingers,
            running,
            ends: Ends { server, clients },
        };
        trial.probe()?;
        trial.ends.listen(QUIET)?;
        Ok(trial)
    }

    /// Sends requests until a reply comes.
    fn probe(&mut self) -> io::Result<()> {
        let limit = Instant::now() + START_LIMIT;
        while self.ends.clients.answered == 0 {
            self.running.check_alive()?;
            if Instant::now() > limit {
                let limit = START_LIMIT.as_secs();
                return Err(io::Error::other(format!(
                    "answered nothing within {limit} s"
                )));
            }
            let clients = &mut self.ends.clients;
            clients.waiting.insert(0, PROBING);
            clients.fill(0, 0, PROBING);
            // The send is refused while no socket is bound there yet.
            let _ = send_all(&mut clients.datagrams, &clients.socket, 1);
            self.ends.listen(PROBE)?;
        }
        Ok(())
    }

    /// Makes one exchange for every client, or as many as bring the forwarder into its steady state.
    pub(crate) fn warm_up(&mut self) -> io::Result<()> {
        let talk = &self.ends.clients.talk;
        let count = if talk.is_one_shot && !self.lingers {
            u64::MAX
        } else {
            talk.clients as u64
        };
        self.ends
            .exchange(talk.is_one_shot.then_some(ONE_SHOT_WARM_UP), count)
            .map(drop)
    }

    /// Loads the forwarder for `window` and returns what that cost.
    pub(crate) fn measure(&mut self, window: Duration) -> io::Result<Sample> {
        let Self {
            lingers,
            running,
            ends,
        } = self;
        let answered = ends.clients.answered;
        let lost = ends.clients.lost;
        let count = if *lingers { LINGERING_MAX } else { u64::MAX };
        let (spent, cpu_ns) = running.cost(|running| {
            running.go_on()?;
            let spent = ends.exchange(Some(window), count)?;
            if *lingers {
                thread::sleep(LINGERING_REST);
            }
            Ok(spent)
        })?;
        let answered = (ends.clients.answered - answered) as f64;
        let lost = (ends.clients.lost - lost) as f64;
        if answered == 0.0 {
            return Err(io::Error::other("it answered nothing"));
        }
        Ok(Sample {
            cpu_ns: cpu_ns / answered,
            delivered: answered / (answered + lost),
            busy: cpu_ns / spent.as_nanos() as f64,
        })
    }

    /// The resident memory of the forwarder, now and at most, in KiB.
    pub(crate) fn resident_kib(&self) -> (u64, u64) {
        (
            self.running.status_kib("VmRSS"),
            self.running.status_kib("VmHWM"),
        )
    }
}
