//! The sender and the receivers: one thread that does both in turns, so that neither waits for the other's time slice.

use crate::cell::{Cell, Load};
use crate::subject::Running;
use crate::sys::{self, CpuClock, PlainSend, ReceiveBatch, SegmentedSend};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Largest backlog, in datagrams, however large the receive buffer.
const BACKLOG_MAX: usize = 8192;
/// Datagrams that a flood sends between two looks at the receivers.
const FLOOD_TURN: usize = 128;
/// After this long without a delivery nothing more is expected.
const QUIET: Duration = Duration::from_millis(20);
/// How long a subject may take until it forwards its first datagram.
const START_LIMIT: Duration = Duration::from_secs(5);
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
pub(crate) struct Receivers {
    sockets: Vec<UdpSocket>,
    batch: ReceiveBatch,
    size: usize,
    /// Datagrams taken so far, by all receivers.
    taken: u64,
}

impl Receivers {
    pub(crate) fn new(cell: &Cell) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for _ in 0..cell.fanout {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            sys::set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            sys::force_receive_buffer(&socket, RECEIVER_BUFFER_BYTES)?;
            sockets.push(socket);
        }
        Ok(Self {
            sockets,
            batch: ReceiveBatch::new(64, GLANCE_BYTES),
            size: cell.size,
            taken: 0,
        })
    }

    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Takes all that is there. Every datagram must be as long as it was sent: a forwarder that glues them together is no forwarder.
    fn drain(&mut self) -> io::Result<()> {
        for socket in &self.sockets {
            loop {
                let filled = match self
                    .batch
                    .receive(socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_TRUNC)
                {
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
                if filled < 64 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Drains until `goal` datagrams have come or nothing comes any more.
    fn drain_until(&mut self, goal: u64) -> io::Result<()> {
        let mut quiet_since = Instant::now();
        while self.taken < goal && quiet_since.elapsed() < QUIET {
            let before = self.taken;
            self.drain()?;
            if self.taken > before {
                quiet_since = Instant::now();
            }
        }
        Ok(())
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
                let mut iovec = [libc::iovec {
                    iov_base: self.train.as_mut_ptr().cast(),
                    iov_len: self.train.len(),
                }];
                self.segmented
                    .send(self.socket.as_raw_fd(), &mut iovec, self.cell.size as u16)?;
                self.cell.train
            } else {
                self.plain.send(self.socket.as_raw_fd(), count - sent)?
            };
        }
        Ok(sent as u64)
    }
}

/// How many datagrams of a cell surely fit into the receive buffer that anyone may ask for, as trains and cut into single ones.
pub(crate) fn backlog(cell: &Cell) -> io::Result<usize> {
    let mut least = BACKLOG_MAX;
    for gro in [0, 1] {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sys::set_int(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            libc::c_int::MAX / 2,
        )?;
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

/// Waits until the forwarder forwards; the error is the reason why it never did.
pub(crate) fn wait_ready(
    cell: &Cell,
    running: &mut Running,
    receivers: &mut Receivers,
) -> io::Result<()> {
    let mut sender = Sender::new(&Cell { train: 1, ..*cell }, running.listen)?;
    let limit = Instant::now() + START_LIMIT;
    while Instant::now() < limit {
        running.check_alive()?;
        // Refused while nobody is bound there yet.
        let _ = sender.send(1);
        let goal = receivers.taken + cell.fanout as u64;
        receivers.drain_until(goal)?;
        if receivers.taken >= goal {
            // Answers to the earlier attempts, should they still come.
            return receivers.drain_until(u64::MAX);
        }
    }
    Err(io::Error::other(format!(
        "forwarded nothing within {} s",
        START_LIMIT.as_secs()
    )))
}

/// Loads the forwarder for `window` and says what that cost.
pub(crate) fn measure(
    load: Load,
    cell: &Cell,
    running: &mut Running,
    receivers: &mut Receivers,
    backlog: usize,
    window: Duration,
) -> io::Result<Sample> {
    let mut sender = Sender::new(cell, running.listen)?;
    let clock = CpuClock::of(running.pid())?;
    let drops_before = receivers.drops()?;

    sys::stop(running.pid())?;
    let (cpu_before, taken_before, start) = (clock.now_ns()?, receivers.taken, Instant::now());
    let sent = match load {
        Load::Backlog => work_off(cell, running, receivers, &mut sender, backlog, window)?,
        Load::Flood => flood(running, receivers, &mut sender, window)?,
        Load::Paced => pace(running, receivers, &mut sender, window)?,
    };
    let elapsed = start.elapsed();
    running.check_alive()?;
    sys::stop(running.pid())?;
    let cpu_ns = (clock.now_ns()? - cpu_before) as f64;
    sys::signal(running.pid(), libc::SIGCONT)?;

    let drops = receivers.drops()? - drops_before;
    if drops > 0 {
        return Err(io::Error::other(format!(
            "the receivers dropped {drops} times; give them more memory or a shorter --seconds"
        )));
    }
    let taken = (receivers.taken - taken_before) as f64;
    Ok(Sample {
        cpu_ns: cpu_ns / taken,
        delivered: taken / (sent as f64 * cell.fanout as f64),
        busy: cpu_ns / elapsed.as_nanos() as f64,
    })
}

/// `Load::Backlog`. Like the others it begins with the forwarder stopped and leaves it running and idle.
fn work_off(
    cell: &Cell,
    running: &Running,
    receivers: &mut Receivers,
    sender: &mut Sender,
    backlog: usize,
    window: Duration,
) -> io::Result<u64> {
    let limit = Instant::now() + window;
    let mut sent = 0;
    loop {
        let burst = sender.send(backlog)?;
        sent += burst;
        let goal = receivers.taken + burst * cell.fanout as u64;
        sys::signal(running.pid(), libc::SIGCONT)?;
        receivers.drain_until(goal)?;
        if Instant::now() >= limit {
            return Ok(sent);
        }
        sys::stop(running.pid())?;
    }
}

/// `Load::Flood`.
fn flood(
    running: &Running,
    receivers: &mut Receivers,
    sender: &mut Sender,
    window: Duration,
) -> io::Result<u64> {
    sys::signal(running.pid(), libc::SIGCONT)?;
    let limit = Instant::now() + window;
    let mut sent = 0;
    while Instant::now() < limit {
        sent += sender.send(FLOOD_TURN)?;
        receivers.drain()?;
    }
    receivers.drain_until(u64::MAX)?;
    Ok(sent)
}

/// `Load::Paced`.
fn pace(
    running: &Running,
    receivers: &mut Receivers,
    sender: &mut Sender,
    window: Duration,
) -> io::Result<u64> {
    sys::signal(running.pid(), libc::SIGCONT)?;
    let step = Duration::from_secs(1) / Load::PACED_PER_SECOND;
    let start = Instant::now();
    let mut next = start;
    let mut sent = 0;
    while next < start + window {
        if Instant::now() >= next {
            sent += sender.send(1)?;
            next += step;
        }
        receivers.drain()?;
    }
    receivers.drain_until(u64::MAX)?;
    Ok(sent)
}
