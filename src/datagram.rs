//! One received datagram, and the train in which the kernel may have delivered it.
//!
//! Generic receive offload delivers trains: several datagrams of one flow, stored back to back in one buffer. All of
//! them have the same size, except the last, which may be shorter. A lone datagram is a train of one. Handlers that
//! need not inspect each datagram (a forwarder) work on trains. All others work on [`Datagram`]s.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// A range of bytes, either in the arena that the kernel received into or in the outbox's scratch space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The buffer that holds the bytes.
    pub region: Region,
    /// The offset of the first byte from the start of the buffer.
    pub offset: u32,
    /// The number of bytes. A datagram may have 0.
    pub len: u32,
}

/// The buffers that a [`Span`] can point into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// The buffer that this turn received into. Its contents are valid until the next receive call.
    Arena,
    /// The buffer for bytes that handlers made this turn. Its contents are valid until the outbox is flushed.
    Scratch,
}

/// The data that the kernel reported about a train. It applies to each datagram of the train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The sender's address.
    pub src: SocketAddr,
    /// The destination address in the datagram's header. It is never the address that the receiving socket is bound
    /// to.
    pub dst: SocketAddr,
    /// The address of this host that a reply leaves from. It is `dst` itself, or the interface's address when `dst`
    /// is a group or a broadcast address.
    pub local: SocketAddr,
    /// The index of the interface that the train arrived on, or 0 if no route of the listener needs it.
    pub interface: u32,
    /// The TTL or hop limit on arrival, if a handler of the listener needs it.
    pub ttl: Option<u8>,
    /// The time at which the kernel received the train, in nanoseconds since 1970, if the listener needs it.
    pub time_ns: Option<u64>,
}

impl Envelope {
    /// Returns whether `dst` is a multicast group or a broadcast address, so that several hosts may reply.
    pub fn is_to_many(&self) -> bool {
        self.dst.ip().is_multicast() || self.local.ip() != self.dst.ip()
    }
}

/// Consecutive datagrams of one flow, back to back in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train {
    /// The data that the kernel reported about all datagrams of the train.
    pub envelope: Envelope,
    /// The bytes of all datagrams.
    pub span: Span,
    /// The bytes in each datagram except the last, which may be shorter. For a single datagram, it is 0 or at least
    /// the whole length.
    pub segment: u16,
}

impl Train {
    /// Returns the number of datagrams. It is at least one, because an empty datagram counts.
    pub fn datagrams(&self) -> u32 {
        match self.segment {
            0 => 1,
            segment => self.span.len.div_ceil(u32::from(segment)).max(1),
        }
    }

    /// Returns whether the train holds a single datagram.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.segment == 0 || u32::from(self.segment) >= self.span.len
    }

    /// Returns each datagram as a train of one.
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
    /// The bytes of the datagram, which may be none.
    pub payload: &'a [u8],
    /// The source, the destination and what else the kernel reported.
    pub envelope: Envelope,
    /// The range of the payload in the arena, by which the datagram can be sent on without a copy.
    pub span: Span,
}

impl Datagram<'_> {
    /// Returns the sender's address.
    pub fn src(&self) -> SocketAddr {
        self.envelope.src
    }

    /// Returns the destination address in the datagram's header.
    pub fn dst(&self) -> SocketAddr {
        self.envelope.dst
    }

    /// Returns when the kernel received the datagram, if the handler's needs include the time.
    pub fn time(&self) -> Option<SystemTime> {
        self.envelope
            .time_ns
            .map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
    }
}
