//! The sender and the receivers: one thread that does both in turns, so that neither waits for the other's time slice.

use crate::cell::{Cell, Load};
use crate::subject::{Running, Subject};
use crate::sys::{self, CpuClock, PlainSend, ReceiveBatch, SegmentedSend};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Largest backlog, in datagrams, however large the receive buffer.
const BACKLOG_MAX: usize = 8192;
/// Datagrams that a flood sends between two looks at the receivers.
const FLOOD_TURN: usize = 128;
/// After this long without a delivery nothing more is expected. Others may hold the forwarder's processor for some time slices.
const QUIET: Duration = Duration::from_millis(100);
/// How long to wait for the answer to a probe before the next one.
const PROBE: Duration = Duration::from_millis(10);
/// How long a subject may take until it forwards its first datagram.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Messages that a receiver takes at once.
const RECEIVER_SLOTS: usize = 64;
/// A receiver copies no more of a datagram than this; MSG_TRUNC makes the kernel tell its length all the same.
const GLANCE_BYTES: usize = 64;
/// Receive buffer of a receiver, in bytes, if the process may have that much.
const RECEIVER_BUFFER_BYTES: usize = 256 << 20;

/// What one subject did in one cell, one round, under one load.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// The processor's time of the whole forwarder for each datagram that a receiver was handed, in nanoseconds.
    pub(crate) cpu_ns: f64,
    /// Datagrams delivered, of those that should have been.
    pub(crate) delivered: f64,
    /// The forwarder's time on the processor, of the time that passed.
    pub(crate) busy: f64,
}

/// The receivers of a cell.
struct Receivers {
    sockets: Vec<UdpSocket>,
    batch: ReceiveBatch,
    size: usize,
    /// Datagrams taken so far, by all receivers.
    taken: u64,
}

impl Receivers {
    fn new(cell: &Cell) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for _ in 0..cell.fanout {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            sys::set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            sys::force_receive_buffer(&socket, RECEIVER_BUFFER_BYTES)?;
            sockets.push(socket);
        }
        Ok(Self { sockets, batch: ReceiveBatch::new(RECEIVER_SLOTS, GLANCE_BYTES), size: cell.size, taken: 0 })
    }

    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Takes all that is there. Every datagram must be as long as it was sent: a forwarder that glues them together is no forwarder.
    fn drain(&mut self) -> io::Result<()> {
        for socket in &self.sockets {
            loop {
                let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
                let filled = match self.batch.receive(socket.as_raw_fd(), RECEIVER_SLOTS, flags) {
                    Ok(filled) => filled,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                for slot in 0..filled {
                    let (len, segment) = (self.batch.len(slot), self.batch.take_segment(slot));
                    if segment != self.size || len % segment != 0 {
                        return Err(io::Error::other(format!(
                            "sent {} B, delivered {len} B cut at {segment} B",
                            self.size
                        )));
                    }
                    self.taken += (len / segment) as u64;
                }
                if filled < RECEIVER_SLOTS {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Drains until `goal` datagrams have come or none has come for so long; says when the last one came.
    fn drain_until(&mut self, goal: u64, quiet: Duration) -> io::Result<Instant> {
        let mut quiet_since = Instant::now();
        while self.taken < goal && quiet_since.elapsed() < quiet {
            let before = self.taken;
            self.drain()?;
            if self.taken > before {
                quiet_since = Instant::now();
            }
        }
        Ok(quiet_since)
    }

    /// How often a receiver's own buffer was full: what is dropped there was paid for but not counted.
    fn drops(&self) -> io::Result<u32> {
        self.sockets.iter().map(sys::socket_drops).sum()
    }
}

/// The sender of a cell, connected to the forwarder.
struct Sender {
    socket: UdpSocket,
    cell: Cell,
    plain: PlainSend,
    segmented: SegmentedSend,
    train: Vec<u8>,
}

impl Sender {
    fn new(cell: &Cell, forwarder: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(forwarder)?;
        let plain = PlainSend::new(vec![b'x'; cell.size], 64);
        Ok(Self {
            socket,
            cell: *cell,
            plain,
            segmented: SegmentedSend::new(),
            train: vec![b'x'; cell.size * cell.train],
        })
    }

    /// Sends about `count` datagrams, whole trains; returns how many.
    fn send(&mut self, count: usize) -> io::Result<u64> {
        let mut sent = 0;
        while sent < count {
            sent += if self.cell.train > 1 {
                let mut iovec = [libc::iovec { iov_base: self.train.as_mut_ptr().cast(), iov_len: self.train.len() }];
                self.segmented.send(self.socket.as_raw_fd(), &mut iovec, self.cell.size as u16)?;
                self.cell.train
            } else {
                self.plain.send(self.socket.as_raw_fd(), count - sent)?
            };
        }
        Ok(sent as u64)
    }
}

/// How many datagrams of a cell surely fit into the receive buffer that anyone may ask for, as trains and cut into single ones.
fn backlog(cell: &Cell) -> io::Result<usize> {
    let mut least = BACKLOG_MAX;
    for gro in [0, 1] {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, libc::c_int::MAX / 2)?;
        sys::set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, gro)?;
        let mut sender = Sender::new(cell, socket.local_addr()?)?;
        let mut sent = 0;
        while sent < least && sys::socket_drops(&socket)? == 0 {
            sent += sender.send(cell.train)? as usize;
        }
        least = least.min(sent);
    }
    // A quarter is left free: the memory that a datagram is charged with varies a little.
    Ok((least * 3 / 4 / cell.train).max(1) * cell.train)
}

/// The processors of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Cpus {
    pub(crate) forwarder: usize,
    pub(crate) load: usize,
}

/// A forwarder that runs and forwards, with all that loads it.
pub(crate) struct Trial {
    cell: Cell,
    cpus: Cpus,
    running: Running,
    receivers: Receivers,
    sender: Sender,
    backlog: usize,
}

impl Trial {
    /// Starts the forwarder and waits until it forwards; the error is the reason why it is absent.
    pub(crate) fn start(subject: &Subject, cell: &Cell, cpus: Cpus) -> io::Result<Self> {
        let backlog = backlog(cell)?;
        let mut receivers = Receivers::new(cell)?;
        let mut running = subject.start(&receivers.addresses()?, cpus.forwarder)?;
        let mut probe = Sender::new(&Cell { train: 1, ..*cell }, running.listen)?;
        let limit = Instant::now() + START_LIMIT;
        while receivers.taken < cell.fanout as u64 {
            running.check_alive()?;
            if Instant::now() > limit {
                let limit = START_LIMIT.as_secs();
                return Err(io::Error::other(format!("forwarded nothing within {limit} s")));
            }
            // Refused while nobody is bound there yet.
            let _ = probe.send(1);
            receivers.drain_until(cell.fanout as u64, PROBE)?;
        }
        // The earlier probes' copies, should they still come.
        receivers.drain_until(u64::MAX, QUIET)?;
        let sender = Sender::new(cell, running.listen)?;
        Ok(Self { cell: *cell, cpus, running, receivers, sender, backlog })
    }

    /// Loads the forwarder for `window` and says what that cost.
    pub(crate) fn measure(&mut self, load: Load, window: Duration) -> io::Result<Sample> {
        let pid = self.running.pid();
        let clock = CpuClock::of(pid)?;
        let drops_before = self.receivers.drops()?;

        // Each load begins with the forwarder stopped and leaves it running and idle.
        sys::stop(pid)?;
        let (cpu_before, taken_before) = (clock.now_ns()?, self.receivers.taken);
        let start = Instant::now();
        let sent = match load {
            Load::Backlog => self.work_off(window)?,
            Load::Flood => self.flood(window)?,
            Load::Paced => self.pace(window)?,
        };
        let goal = taken_before + sent * self.cell.fanout as u64;
        let end = self.receivers.drain_until(goal, QUIET)?;
        self.running.check_alive()?;
        sys::stop(pid)?;
        let cpu_ns = (clock.now_ns()? - cpu_before) as f64;
        sys::signal(pid, libc::SIGCONT)?;

        if self.receivers.drops()? > drops_before {
            let reason = format!("{load:?}: the receivers could not keep up; run it as root or raise rmem_max");
            return Err(io::Error::other(reason));
        }
        let taken = (self.receivers.taken - taken_before) as f64;
        if taken == 0.0 {
            return Err(io::Error::other("it delivered nothing"));
        }
        Ok(Sample {
            cpu_ns: cpu_ns / taken,
            delivered: taken / (sent * self.cell.fanout as u64) as f64,
            busy: cpu_ns / (end - start).as_nanos() as f64,
        })
    }

    /// `Load::Backlog`.
    fn work_off(&mut self, window: Duration) -> io::Result<u64> {
        let limit = Instant::now() + window;
        let mut sent = 0;
        loop {
            // From the forwarder's own processor, which is free while it stands still: see the module's text.
            sys::pin(self.cpus.forwarder)?;
            let burst = self.sender.send(self.backlog)?;
            sys::pin(self.cpus.load)?;
            sent += burst;
            let goal = self.receivers.taken + burst * self.cell.fanout as u64;
            sys::signal(self.running.pid(), libc::SIGCONT)?;
            self.receivers.drain_until(goal, QUIET)?;
            if Instant::now() >= limit {
                return Ok(sent);
            }
            sys::stop(self.running.pid())?;
        }
    }

    /// `Load::Flood`.
    fn flood(&mut self, window: Duration) -> io::Result<u64> {
        sys::signal(self.running.pid(), libc::SIGCONT)?;
        let limit = Instant::now() + window;
        let mut sent = 0;
        while Instant::now() < limit {
            sent += self.sender.send(FLOOD_TURN)?;
            self.receivers.drain()?;
        }
        Ok(sent)
    }

    /// `Load::Paced`.
    fn pace(&mut self, window: Duration) -> io::Result<u64> {
        sys::signal(self.running.pid(), libc::SIGCONT)?;
        let step = Duration::from_secs(1) / Load::PACED_PER_SECOND;
        let limit = Instant::now() + window;
        let mut next = Instant::now();
        let mut sent = 0;
        while next < limit {
            if Instant::now() >= next {
                sent += self.sender.send(1)?;
                next += step;
            }
            self.receivers.drain()?;
        }
        Ok(sent)
    }

    /// The forwarder's resident memory, now and at most, in KiB.
    pub(crate) fn resident_kib(&self) -> (u64, u64) {
        let number = |field| sys::status_kib(self.running.pid(), field).unwrap_or(0);
        (number("VmRSS"), number("VmHWM"))
    }
}
