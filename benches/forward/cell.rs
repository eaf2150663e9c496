//! What is measured: the cells of the matrix and the ways to load a forwarder.

use crate::sys::{PAYLOAD_MAX_BYTES, SEGMENTS_MAX};
use std::fmt;

/// One combination of fan-out, datagram size and kind of sender.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    /// How many upstreams get each datagram.
    pub(crate) fanout: usize,
    /// Payload of each datagram, in bytes.
    pub(crate) size: usize,
    /// Datagrams in one of the sender's sends: 1, or a train that the kernel cuts (UDP_SEGMENT), as QUIC stacks send.
    pub(crate) train: usize,
}

impl Cell {
    /// The whole matrix.
    pub(crate) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for fanout in [1, 3] {
            for size in [64, 1200] {
                for train in [1, (PAYLOAD_MAX_BYTES / size).min(SEGMENTS_MAX)] {
                    cells.push(Self { fanout, size, train });
                }
            }
        }
        cells
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let sender = if self.train == 1 { "plain" } else { "segmenting" };
        write!(f, "1→{} {} B {sender}", self.fanout, self.size)
    }
}

/// A way to load the forwarder.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Load {
    /// The forwarder stands still while its receive buffer is filled, then works it off: always full batches, never a drop.
    Backlog,
    /// The sender sends as fast as it can.
    Flood,
    /// One datagram every 20 µs.
    Paced,
}

impl Load {
    pub(crate) const ALL: [Self; 3] = [Self::Backlog, Self::Flood, Self::Paced];
    /// The rate of `Paced`.
    pub(crate) const PACED_PER_SECOND: u32 = 50_000;

    /// Whether the load means something in that cell: a single paced datagram is no train, and one size says enough.
    pub(crate) fn suits(self, cell: &Cell) -> bool {
        self != Self::Paced || (cell.train == 1 && cell.size == 64)
    }
}
