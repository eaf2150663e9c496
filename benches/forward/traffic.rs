//! Forwarding without replies: the sender and the receivers, one thread that does both in turns, so that neither waits
//! for the other's time slice.

use crate::cell::{Cell, Load, Way};
use crate::commands;
use crate::place::Place;
use crate::subject::{Running, Subject};
use crate::sys::{self, Datagrams, Namespaces, PlainSend, ReceiveBatch, SegmentedSend};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Largest backlog in datagrams, however large the receive buffer.
const BACKLOG_MAX: usize = 8192;
/// Number of datagrams that a flood sends between two reads of the receivers.
const FLOOD_TURN: usize = 128;
/// Time without a delivery after which nothing more is expected. Other processes may have the forwarder's processor for
/// some time slices.
const QUIET: Duration = Duration::from_millis(100);
/// Time to wait for the delivery of a probe before the next one.
const PROBE: Duration = Duration::from_millis(10);
/// Longest time that a subject may take until it forwards its first datagram.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Number of messages that a receiver takes at once.
const RECEIVER_SLOTS: usize = 64;
/// Number of bytes of a datagram that a receiver copies. MSG_TRUNC makes the kernel report its whole length.
const GLANCE_BYTES: usize = 64;
/// Receive buffer of a receiver in bytes, if the process may have that much.
const RECEIVER_BUFFER_BYTES: usize = 256 << 20;

/// The results of one subject in one cell, one round, under one load.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Processor time of the whole forwarder for each datagram that a receiver got, in nanoseconds.
    pub(crate) cpu_ns: f64,
    /// The share of datagrams that were delivered, of those that should have been.
    pub(crate) delivered: f64,
    /// The share of time for which the forwarder was on the processor.
    pub(crate) busy: f64,
}

/// The receivers of a cell.
struct Receivers {
    sockets: Vec<UdpSocket>,
    batch: ReceiveBatch,
    size: usize,
    /// Number of datagrams taken so far, by all receivers.
    taken: u64,
}

impl Receivers {
    fn new(way: &Way, place: &Place) -> io::Result<Self> {
        let bind = |address| {
            let socket = UdpSocket::bind((address, 0))?;
            sys::set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            sys::force_receive_buffer(&socket, RECEIVER_BUFFER_BYTES)?;
            Ok(socket)
        };
        let mut sockets = Vec::new();
        for _ in 0..way.fanout {
            sockets.push(if way.is_far {
                place
                    .namespaces()?
                    .far(|| bind(Namespaces::far_address()))?
            } else {
                bind(Ipv4Addr::LOCALHOST)?
            });
        }
        Ok(Self {
            sockets,
            batch: ReceiveBatch::new(RECEIVER_SLOTS, GLANCE_BYTES),
            size: way.size,
            taken: 0,
        })
    }

    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Takes all that has come. Every datagram must be as long as it was sent: a forwarder that joins them does not
    /// count.
    fn drain(&mut self) -> io::Result<()> {
        for socket in &self.sockets {
            loop {
                let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
                let filled = match self
                    .batch
                    .receive(socket.as_raw_fd(), RECEIVER_SLOTS, flags)
                {
                    Ok(filled) => filled,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                for slot in 0..filled {
                    let len = self.batch.len(slot);
                    let segment = self.batch.take_segment(slot);
                    if segment != self.size || !len.is_multiple_of(segment) {
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

    /// Drains until `goal` datagrams have come, or none has come for this long. Returns when the last one came.
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

    /// Number of times that a receiver's own buffer was full. What is dropped there has cost time, but is not counted.
    fn drops(&self) -> io::Result<u32> {
        self.sockets.iter().map(sys::socket_drops).sum()
    }
}

/// The sender of a cell.
struct Sender {
    socket: UdpSocket,
    way: Way,
    means: Means,
}

/// The means by which the sender sends.
enum Means {
    /// Ordinary datagrams on a connected socket.
    Plain(PlainSend),
    /// Trains on a connected socket.
    Segmented(SegmentedSend, Vec<u8>),
    /// Ordinary datagrams to many addresses in turn, and the number of the next one.
    Spread(Box<Datagrams>, usize),
}

impl Sender {
    fn new(way: &Way, forwarder: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let means = if way.destinations > 1 {
            Means::Spread(Box::new(spread(way, forwarder.port())), 0)
        } else if way.train > 1 {
            Means::Segmented(SegmentedSend::new(), vec![b'x'; way.size * way.train])
        } else {
            Means::Plain(PlainSend::new(vec![b'x'; way.size], 64))
        };
        if way.destinations == 1 {
            socket.connect(forwarder)?;
        }
        Ok(Self {
            socket,
            way: *way,
            means,
        })
    }

    /// Sends about `count` datagrams, in whole trains. Returns their number.
    fn send(&mut self, count: usize) -> io::Result<u64> {
        let mut sent = 0;
        let socket = self.socket.as_raw_fd();
        while sent < count {
            sent += match &mut self.means {
                Means::Plain(plain) => plain.send(socket, count - sent)?,
                Means::Segmented(segmented, train) => {
                    let mut iovec = [libc::iovec {
                        iov_base: train.as_mut_ptr().cast(),
                        iov_len: train.len(),
                    }];
                    segmented.send(socket, &mut iovec, self.way.size as u16)?;
                    self.way.train
                }
                Means::Spread(datagrams, next) => {
                    let end = (*next + (count - sent).min(64)).min(datagrams.slots());
                    let taken = datagrams.send(socket, *next, end)?;
                    *next = (*next + taken) % datagrams.slots();
                    taken
                }
            };
        }
        Ok(sent as u64)
    }
}

/// A datagram to each destination, distributed over the prefixes of the routes.
fn spread(way: &Way, port: u16) -> Datagrams {
    /// A prime, so that neighbours are far from each other and every route has its turn.
    const STRIDE: usize = 7919;
    let mut datagrams = Datagrams::new(way.destinations, way.size, false);
    for slot in 0..way.destinations {
        let prefix = commands::prefix(1 + slot * STRIDE % (way.routes - 1).max(1));
        let address = Ipv4Addr::from_bits(prefix.to_bits() + 1 + slot as u32 % 254);
        datagrams.set_peer(slot, SocketAddrV4::new(address, port));
        datagrams.set_bytes(slot, &vec![b'x'; way.size]);
    }
    datagrams
}

/// Number of datagrams of such a sender that certainly fit into the receive buffer that any process may ask for, as
/// trains and cut into single ones.
fn backlog(way: &Way) -> io::Result<usize> {
    let way = &Way {
        destinations: 1,
        ..*way
    };
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
        let mut sender = Sender::new(way, socket.local_addr()?)?;
        let mut sent = 0;
        while sent < least && sys::socket_drops(&socket)? == 0 {
            sent += sender.send(way.train)? as usize;
        }
        least = least.min(sent);
    }
    // A quarter is left free, because the memory that is charged for a datagram varies a little.
    Ok((least * 3 / 4 / way.train).max(1) * way.train)
}

/// A forwarder that runs and forwards, with all that loads it.
pub(crate) struct Trial<'a> {
    way: Way,
    place: &'a Place,
    running: Running,
    receivers: Receivers,
    sender: Sender,
    backlog: usize,
}

impl<'a> Trial<'a> {
    /// Starts the forwarder and waits until it forwards. The error is the reason why it is absent.
    pub(crate) fn start(subject: &Subject, way: &Way, place: &'a Place) -> io::Result<Self> {
        let backlog = backlog(way)?;
        let mut receivers = Receivers::new(way, place)?;
        let mut running = subject.start(&Cell::Forward(*way), &receivers.addresses()?, place)?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, running.listen.port()));
        let mut probe = Sender::new(
            &Way {
                train: 1,
                destinations: 1,
                ..*way
            },
            to,
        )?;
        let limit = Instant::now() + START_LIMIT;
        while receivers.taken < way.fanout as u64 {
            running.check_alive()?;
            if Instant::now() > limit {
                let limit = START_LIMIT.as_secs();
                return Err(io::Error::other(format!(
                    "forwarded nothing within {limit} s"
                )));
            }
            // The send is refused while no socket is bound there yet.
            let _ = probe.send(1);
            receivers.drain_until(way.fanout as u64, PROBE)?;
        }
        // These are copies of earlier probes that may still come.
        receivers.drain_until(u64::MAX, QUIET)?;
        let sender = Sender::new(way, running.listen)?;
        Ok(Self {
            way: *way,
            place,
            running,
            receivers,
            sender,
            backlog,
        })
    }

    /// Loads the forwarder for `window` and returns what that cost.
    pub(crate) fn measure(&mut self, load: Load, window: Duration) -> io::Result<Sample> {
        let drops_before = self.receivers.drops()?;
        let taken_before = self.receivers.taken;
        let Self {
            way,
            place,
            running,
            receivers,
            sender,
            backlog,
        } = self;
        let fanout = way.fanout as u64;
        let ((sent, spent), cpu_ns) = running.cost(|running| {
            let start = Instant::now();
            let mut turns = Turns {
                place,
                running,
                receivers,
                sender,
                fanout,
            };
            let sent = match load {
                Load::Flood => turns.flood(window)?,
                Load::Paced => turns.pace(window)?,
                Load::Backlog | Load::Loop => turns.work_off(*backlog, window)?,
            };
            let end = receivers.drain_until(taken_before + sent * fanout, QUIET)?;
            Ok((sent, end - start))
        })?;

        if self.receivers.drops()? > drops_before {
            let reason = format!(
                "{load:?}: the receivers could not keep up; run it as root or raise rmem_max"
            );
            return Err(io::Error::other(reason));
        }
        let taken = (self.receivers.taken - taken_before) as f64;
        if taken == 0.0 {
            return Err(io::Error::other("it delivered nothing"));
        }
        Ok(Sample {
            cpu_ns: cpu_ns / taken,
            delivered: taken / (sent * fanout) as f64,
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

/// The loads. Each begins with the forwarder stopped and leaves it running. It returns the number of datagrams sent.
struct Turns<'a> {
    place: &'a Place,
    running: &'a Running,
    receivers: &'a mut Receivers,
    sender: &'a mut Sender,
    fanout: u64,
}

impl Turns<'_> {
    /// Runs [`Load::Backlog`] and returns the number of datagrams sent.
    fn work_off(&mut self, backlog: usize, window: Duration) -> io::Result<u64> {
        let limit = Instant::now() + window;
        let mut sent = 0;
        loop {
            // The sender runs on the forwarder's own processor, which is free while it is stopped: see the
            // documentation of the main module.
            sys::pin(self.place.forwarder_cpu)?;
            let burst = self.sender.send(backlog)?;
            sys::pin(self.place.load_cpu)?;
            sent += burst;
            let goal = self.receivers.taken + burst * self.fanout;
            self.running.go_on()?;
            self.receivers.drain_until(goal, QUIET)?;
            if Instant::now() >= limit {
                return Ok(sent);
            }
            self.running.stop()?;
        }
    }

    /// Runs [`Load::Flood`] and returns the number of datagrams sent.
    fn flood(&mut self, window: Duration) -> io::Result<u64> {
        self.running.go_on()?;
        let limit = Instant::now() + window;
        let mut sent = 0;
        while Instant::now() < limit {
            sent += self.sender.send(FLOOD_TURN)?;
            self.receivers.drain()?;
        }
        Ok(sent)
    }

    /// Runs [`Load::Paced`] and returns the number of datagrams sent.
    fn pace(&mut self, window: Duration) -> io::Result<u64> {
        self.running.go_on()?;
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
}
