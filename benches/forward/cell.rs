//! The cells of the matrix, and the ways to load a forwarder.

use crate::sys::{PAYLOAD_MAX_BYTES, SEGMENTS_MAX};
use std::fmt;

/// A cell of the matrix: the work that is measured.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    Forward(Way),
    Exchange(Talk),
}

/// Forwarding without replies: one combination of fan-out, datagram size, kind of sender and place of the receivers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Way {
    /// Number of upstreams that get each datagram.
    pub(crate) fanout: usize,
    /// Payload of each datagram, in bytes.
    pub(crate) size: usize,
    /// Number of datagrams in one send of the sender: 1, or a train that the kernel cuts (UDP_SEGMENT), as QUIC stacks
    /// send.
    pub(crate) train: usize,
    /// Whether the receivers are on another host: behind a veth pair. Their half of the network stack then runs on the
    /// processor of the load.
    pub(crate) is_far: bool,
    /// Number of addresses that the sender sends to, in turn. If there are several, the forwarder listens on the
    /// wildcard.
    pub(crate) destinations: usize,
    /// Number of routes that lead to the upstreams.
    pub(crate) routes: usize,
}

/// Request and reply: each client sends one request and waits for its reply before the next one.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Talk {
    /// Number of clients that take turns.
    pub(crate) clients: usize,
    /// Number of requests that are under way at once.
    pub(crate) at_once: usize,
    /// Whether each client, which is an address and a port, makes one request and then never returns.
    pub(crate) is_one_shot: bool,
}

/// Upper bound of requests that are under way at once. This many datagrams of 64 B certainly fit into the kernel's
/// default receive buffer. A forwarder without a setting for the size of its buffer has that one, so no datagram needs
/// to be lost.
pub(crate) const AT_ONCE_MAX: usize = 256;

impl Way {
    /// Ordinary datagrams to one upstream on loopback.
    pub(crate) const PLAIN: Self = Self {
        fanout: 1,
        size: 64,
        train: 1,
        is_far: false,
        destinations: 1,
        routes: 1,
    };

    /// This way of forwarding with the longest trains that the kernel cuts in one send.
    pub(crate) fn segmenting(self) -> Self {
        Self {
            train: (PAYLOAD_MAX_BYTES / self.size).min(SEGMENTS_MAX),
            ..self
        }
    }

    pub(crate) fn far(self) -> Self {
        Self {
            is_far: true,
            ..self
        }
    }
}

impl Talk {
    /// A number of clients that each send one request after another.
    pub(crate) fn of(clients: usize) -> Self {
        Self {
            clients,
            at_once: clients.min(AT_ONCE_MAX),
            is_one_shot: false,
        }
    }

    /// Clients that send one request each, 50 at a time.
    pub(crate) const ONE_SHOT: Self = Self {
        clients: 50,
        at_once: 50,
        is_one_shot: true,
    };
}

impl Cell {
    /// All cells of the matrix.
    pub(crate) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for fanout in [1, 3] {
            for size in [64, 1200] {
                let way = Way {
                    fanout,
                    size,
                    ..Way::PLAIN
                };
                cells.extend([Self::Forward(way), Self::Forward(way.segmenting())]);
            }
        }
        cells.push(Self::Forward(Way::PLAIN.far()));
        cells.push(Self::Forward(
            Way {
                size: 1200,
                ..Way::PLAIN
            }
            .segmenting()
            .far(),
        ));
        cells.extend([50, 1_000, 10_000].map(|clients| Self::Exchange(Talk::of(clients))));
        cells.push(Self::Exchange(Talk::ONE_SHOT));
        cells
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Forward(way) => {
                let sender = if way.train == 1 {
                    "plain"
                } else {
                    "segmenting"
                };
                let place = if way.is_far { ", another host" } else { "" };
                write!(f, "1→{} {} B {sender}{place}", way.fanout, way.size)
            }
            Self::Exchange(talk) if talk.is_one_shot => {
                write!(f, "one-shot, {} at once", talk.at_once)
            }
            Self::Exchange(talk) => write!(f, "request and reply, {} clients", talk.clients),
        }
    }
}

/// A way to load the forwarder.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Load {
    /// The forwarder is stopped while its receive buffer is filled, and then empties it: all batches are full, and
    /// nothing is dropped.
    Backlog,
    /// The sender sends as fast as it can.
    Flood,
    /// The sender sends one datagram every 20 µs.
    Paced,
    /// Every reply is followed by the next request at once.
    Loop,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [Self::Backlog, Self::Flood, Self::Paced, Self::Loop];
    /// The rate of `Paced` in datagrams a second.
    pub(crate) const PACED_PER_SECOND: u32 = 50_000;

    /// Whether the load is meaningful in that cell. A single paced datagram is not a train, and one size is enough for
    /// it.
    pub(crate) fn suits(self, cell: &Cell) -> bool {
        match (self, cell) {
            (Self::Loop, Cell::Exchange(_)) | (Self::Backlog, Cell::Forward(_)) => true,
            (Self::Flood, Cell::Forward(way)) => !way.is_far,
            (Self::Paced, Cell::Forward(way)) => !way.is_far && way.train == 1 && way.size == 64,
            _ => false,
        }
    }
}
