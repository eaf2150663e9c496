//! The noun: one received datagram, and the train in which the kernel may have delivered it.
//!
//! A train is what generic receive offload hands over: several datagrams of one flow, back to back in one buffer, all of
//! the same size but the last, which may be shorter. A lone datagram is a train of one. Handlers that need not look at
//! each datagram (a forwarder) work on trains; everybody else sees [`Datagram`]s.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Where some bytes lie: in the arena the kernel received into, or in the outbox's own scratch space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which of the two buffers.
    pub region: Region,
    /// First byte, counted from the region's start.
    pub offset: u32,
    /// Number of bytes; 0 is a datagram too.
    pub len: u32,
}

/// The buffers that a [`Span`] can point into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// What this turn received; valid until the next receive call.
    Arena,
    /// Bytes that a handler made this turn; valid until the outbox is flushed.
    Scratch,
}

/// What the kernel said about a train, the same for each datagram in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it.
    pub src: SocketAddr,
    /// Where the sender sent it: the address in its header, never the address that our socket is bound to.
    pub dst: SocketAddr,
    /// The address of this host that an answer leaves from: `dst` itself, or the interface's address when `dst` is a
    /// group or a broadcast address.
    pub local: SocketAddr,
    /// Index of the interface that it arrived on; 0 where no route of the listener asked for it.
    pub interface: u32,
    /// Time to live or hop limit left on arrival, where the listener's handlers asked for it.
    pub ttl: Option<u8>,
    /// The kernel's receive time in nanoseconds since 1970, where asked for.
    pub time_ns: Option<u64>,
}

impl Envelope {
    /// Whether `dst` is a multicast group or a broadcast address: anything that more than one host may answer.
    pub fn is_to_many(&self) -> bool {
        self.dst.ip().is_multicast() || self.local.ip() != self.dst.ip()
    }
}

/// Consecutive datagrams of one flow, back to back in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train {
    /// What the kernel said about all of them.
    pub envelope: Envelope,
    /// All their bytes.
    pub span: Span,
    /// Bytes in each datagram but the last, which may be shorter; 0, or at least the whole length, when there is only one.
    pub segment: u16,
}

impl Train {
    /// How many datagrams it holds; at least one, since an empty datagram is a datagram.
    pub fn datagrams(&self) -> u32 {
        match self.segment {
            0 => 1,
            segment => self.span.len.div_ceil(u32::from(segment)).max(1),
        }
    }

    /// Whether it is one datagram.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.segment == 0 || u32::from(self.segment) >= self.span.len
    }

    /// The datagrams as trains of one.
    pub fn pieces(&self) -> impl Iterator<Item = Train> + use<> {
        let Train {
            envelope,
            span,
            segment,
        } = *self;
        let step = if segment == 0 {
            span.len
        } else {
            u32::from(segment)
        };
        (0..self.datagrams()).map(move |index| {
            let offset = index * step;
            let span = Span {
                offset: span.offset + offset,
                len: step.min(span.len - offset),
                ..span
            };
            Train {
                envelope,
                span,
                segment: 0,
            }
        })
    }
}

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Its bytes; may be empty.
    pub payload: &'a [u8],
    /// Where it comes from, where it was sent to, and what else the kernel said.
    pub envelope: Envelope,
    /// Where the payload lies in the arena, so that it can be sent on without a copy.
    pub span: Span,
}

impl Datagram<'_> {
    /// Who sent it.
    pub fn src(&self) -> SocketAddr {
        self.envelope.src
    }

    /// Where the sender sent it.
    pub fn dst(&self) -> SocketAddr {
        self.envelope.dst
    }

    /// When the kernel received it, if the handler asked for the time in its needs.
    pub fn time(&self) -> Option<SystemTime> {
        self.envelope
            .time_ns
            .map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
    }
}
