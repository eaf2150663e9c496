//! What is to be sent, as data. Handlers fill it during a turn; the worker sends it in one go at the turn's end, before
//! the arena is used again. In `explain` it is printed instead.
//!
//! Payloads are spans of the arena wherever they can be, so that nothing is copied on the way through. Runs of equal
//! size to one destination are found here, as pure values; `net/send.rs` knows how the kernel takes them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::id::{HandlerId, LocalListener};
use super::verdict::DropReason;
use crate::datagram::{Envelope, Region, Span, Train};
use crate::number;

/// Most bytes that handlers may make (not pass on) in one turn; what is above is `Dropped(OutboxFull)`.
pub const SCRATCH_MAX_BYTES: usize = 4 << 20;
/// Most datagrams in one segmented send: UDP_MAX_SEGMENTS (include/linux/udp.h), since Linux 6.10.
pub const SEGMENTS_MAX: u32 = 128;
/// The same before Linux 6.10.
pub const SEGMENTS_MAX_OLD: u32 = 64;
/// Most bytes in one segmented send: 65,535 less the IPv4 and UDP headers, as for a single datagram.
pub const RUN_MAX_BYTES: u32 = 65_507;
const _: () = assert!(RUN_MAX_BYTES <= u16::MAX as u32, "a segment has 16 bits");

/// Datagrams up to this length are copied next to their predecessor: a copy is cheaper than one more piece to gather, for us
/// and for the kernel (measured: a tenth of a small datagram's price).
pub const COPY_MAX_BYTES: u32 = 512;

/// One way out: a connected socket to an upstream in a worker, of a handler alone or leased by a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamSocketId(pub u32);

impl UpstreamSocketId {
    /// Returns the socket with this number in its worker, of which source ports and files allow fewer than 2³².
    pub fn new(index: usize) -> UpstreamSocketId {
        UpstreamSocketId(number::to_u32(index))
    }
}

/// One datagram, or a train of them, to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel {
    /// Its bytes.
    pub span: Span,
    /// Bytes in each datagram but the last; 0 when there is only one.
    pub segment: u16,
    /// TTL or hop limit to send it with; `None` for the socket's own.
    pub ttl: Option<u8>,
}

/// A parcel that goes back to where a datagram came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// What is sent.
    pub parcel: Parcel,
    /// To whom.
    pub to: SocketAddr,
    /// From which of this host's addresses; an unspecified one leaves the choice to the kernel.
    pub from: SocketAddr,
    /// On which interface it was asked, 0 where unknown.
    pub interface: u32,
    /// Whose account it is on.
    pub handler: HandlerId,
}

/// A parcel of one datagram that leaves with its sender's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The way to the upstream.
    pub socket: UpstreamSocketId,
    /// What is sent.
    pub parcel: Parcel,
    /// The sender.
    pub from: SocketAddr,
}

/// Everything that one turn sends.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The parcels of all sockets; each knows the next one of its socket.
    parcels: Vec<(Parcel, u32)>,
    /// First and last parcel of each socket. A socket costs 8 bytes, for there may be one for each of 100,000 sessions.
    sockets: Vec<(u32, u32)>,
    touched: Vec<UpstreamSocketId>,
    /// What goes back through each listener.
    replies: Vec<Vec<Reply>>,
    replying: Vec<LocalListener>,
    kept: Vec<Kept>,
    scratch: Vec<u8>,
    /// The bytes of the arena that were copied last, and where they are now: a datagram for several sockets is copied once.
    copied: Option<(Span, Span)>,
}

/// No parcel.
const NONE: u32 = u32::MAX;

impl Outbox {
    /// An empty outbox with so many sockets. Further ones, and listeners, are made room for as they come.
    pub fn new(sockets: usize) -> Outbox {
        Outbox {
            sockets: vec![(NONE, NONE); sockets],
            ..Outbox::default()
        }
    }

    /// Passes a train, or a single datagram as a train of one, on to an upstream. `arena` is what its span points into.
    #[inline]
    pub fn forward(
        &mut self,
        socket: UpstreamSocketId,
        train: &Train,
        ttl: Option<u8>,
        arena: &[u8],
    ) {
        if self.sockets.len() <= socket.0 as usize {
            self.sockets.resize(socket.0 as usize + 1, (NONE, NONE));
        }
        let last = self.sockets[socket.0 as usize].1;
        let is_short = train.is_single()
            && train.span.len <= COPY_MAX_BYTES
            && train.span.region == Region::Arena;
        if last != NONE && is_short && self.scratch.len() < SCRATCH_MAX_BYTES {
            return self.join(socket, last, train.span, ttl, arena);
        }
        split(train, |span, segment| {
            self.send(socket, Parcel { span, segment, ttl })
        });
    }

    /// Puts a short datagram next to the one before it, so that both leave in one piece if they may.
    #[inline]
    fn join(
        &mut self,
        socket: UpstreamSocketId,
        last: u32,
        span: Span,
        ttl: Option<u8>,
        arena: &[u8],
    ) {
        let copy = match self.copied {
            Some((source, copy)) if source == span => copy,
            _ => {
                let offset = number::to_u32(self.scratch.len());
                self.scratch.extend_from_slice(
                    &arena[span.offset as usize..(span.offset + span.len) as usize],
                );
                let copy = Span {
                    region: Region::Scratch,
                    offset,
                    len: span.len,
                };
                self.copied = Some((span, copy));
                copy
            }
        };
        let tail = &mut self.parcels[last as usize].0;
        if tail.ttl != ttl || !tail.extend(copy) {
            self.send(
                socket,
                Parcel {
                    span: copy,
                    segment: 0,
                    ttl,
                },
            );
        }
    }

    /// Passes a datagram on to an upstream as if it came from its sender. The socket is for that alone.
    pub fn keep_source(&mut self, socket: UpstreamSocketId, datagram: &Train, ttl: Option<u8>) {
        let parcel = Parcel {
            span: datagram.span,
            segment: 0,
            ttl,
        };
        self.kept.push(Kept {
            socket,
            parcel,
            from: datagram.envelope.src,
        });
    }

    /// What leaves with its sender's address, in order.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Adds a parcel to a socket.
    #[inline]
    fn send(&mut self, socket: UpstreamSocketId, parcel: Parcel) {
        let place = number::to_u32(self.parcels.len());
        self.parcels.push((parcel, NONE));
        let (first, last) = &mut self.sockets[socket.0 as usize];
        match std::mem::replace(last, place) {
            NONE => {
                *first = place;
                self.touched.push(socket);
            }
            last => self.parcels[last as usize].1 = place,
        }
    }

    /// Sends bytes of the arena, or kept ones, back through the listener that was asked.
    pub fn reply(
        &mut self,
        listener: LocalListener,
        handler: HandlerId,
        envelope: &Envelope,
        span: Span,
        ttl: Option<u8>,
    ) {
        let parcel = Parcel {
            span,
            segment: 0,
            ttl,
        };
        let Envelope {
            src,
            local,
            interface,
            ..
        } = *envelope;
        self.push_reply(
            listener,
            Reply {
                parcel,
                to: src,
                from: local,
                interface,
                handler,
            },
        );
    }

    /// Passes a train on to a client, through the listener that it asked.
    pub fn pass_back(&mut self, listener: LocalListener, train: &Train, mut reply: Reply) {
        split(train, |span, segment| {
            reply.parcel = Parcel {
                span,
                segment,
                ..reply.parcel
            };
            self.push_reply(listener, reply);
        });
    }

    fn push_reply(&mut self, listener: LocalListener, reply: Reply) {
        if self.replies.len() <= listener.index() {
            self.replies.resize(listener.index() + 1, Vec::new());
        }
        let replies = &mut self.replies[listener.index()];
        if replies.is_empty() {
            self.replying.push(listener);
        }
        replies.push(reply);
    }

    /// Copies bytes that a handler made, so that they outlive it until the flush.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<Span, DropReason> {
        self.keep_parts([bytes])
    }

    /// The same for bytes in several parts.
    pub fn keep_parts<const N: usize>(&mut self, parts: [&[u8]; N]) -> Result<Span, DropReason> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.scratch.len() + len > SCRATCH_MAX_BYTES {
            return Err(DropReason::OutboxFull);
        }
        let offset = number::to_u32(self.scratch.len());
        parts
            .iter()
            .for_each(|part| self.scratch.extend_from_slice(part));
        Ok(Span {
            region: Region::Scratch,
            offset,
            len: number::to_u32(len),
        })
    }

    /// The bytes of a span.
    pub fn bytes<'a>(&'a self, arena: &'a [u8], span: Span) -> &'a [u8] {
        let buffer = match span.region {
            Region::Arena => arena,
            Region::Scratch => &self.scratch,
        };
        &buffer[span.offset as usize..(span.offset + span.len) as usize]
    }

    /// The sockets that something goes out on.
    pub fn touched(&self) -> &[UpstreamSocketId] {
        &self.touched
    }

    /// What goes out on a socket, in order.
    pub fn parcels(&self, socket: UpstreamSocketId) -> impl Iterator<Item = Parcel> {
        let mut next = self
            .sockets
            .get(socket.0 as usize)
            .map_or(NONE, |(first, _)| *first);
        std::iter::from_fn(move || {
            let (parcel, after) = *self.parcels.get(next as usize)?;
            next = after;
            Some(parcel)
        })
    }

    /// The listeners that something goes back through.
    pub fn replying(&self) -> &[LocalListener] {
        &self.replying
    }

    /// What goes back through a listener, in order.
    pub fn replies(&self, listener: LocalListener) -> &[Reply] {
        self.replies
            .get(listener.index())
            .map_or(&[], Vec::as_slice)
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        for socket in self.touched.drain(..) {
            self.sockets[socket.0 as usize] = (NONE, NONE);
        }
        for listener in self.replying.drain(..) {
            self.replies[listener.index()].clear();
        }
        self.parcels.clear();
        self.kept.clear();
        self.copied = None;
        self.scratch.clear();
    }
}

/// Cuts a train into pieces that one segmented send can take.
fn split(train: &Train, mut piece: impl FnMut(Span, u16)) {
    let span = train.span;
    let segment = u32::from(train.segment);
    // One at least: IPv6 has room for segments that are longer than a run may be, and those go one by one.
    let most = RUN_MAX_BYTES
        .checked_div(segment)
        .map_or(1, |segments| SEGMENTS_MAX.min(segments).max(1));
    let step = if segment == 0 {
        span.len
    } else {
        segment * most
    };
    if span.len <= step {
        return piece(span, if span.len > segment { train.segment } else { 0 });
    }
    let mut offset = 0;
    while offset < span.len {
        let len = step.min(span.len - offset);
        piece(
            Span {
                offset: span.offset + offset,
                len,
                ..span
            },
            if len > segment { train.segment } else { 0 },
        );
        offset += len;
    }
}

impl Parcel {
    /// How many datagrams it holds.
    pub fn datagrams(&self) -> u32 {
        match self.segment {
            0 => 1,
            segment => self.span.len.div_ceil(u32::from(segment)),
        }
    }

    /// Its datagrams one by one, for when they have to go one by one.
    pub fn singles(self) -> impl Iterator<Item = Parcel> {
        let step = if self.segment == 0 {
            self.span.len
        } else {
            u32::from(self.segment)
        };
        (0..self.datagrams()).map(move |index| {
            let offset = index * step;
            let span = Span {
                offset: self.span.offset + offset,
                len: step.min(self.span.len - offset),
                ..self.span
            };
            Parcel {
                span,
                segment: 0,
                ttl: self.ttl,
            }
        })
    }

    /// Takes one more datagram that lies right behind it, if one segmented send can take both.
    #[inline]
    fn extend(&mut self, next: Span) -> bool {
        let pace = self.pace();
        let fits = self.span.region == next.region
            && self.span.offset + self.span.len == next.offset
            && (1..=pace).contains(&next.len)
            && self.span.len.is_multiple_of(pace)
            && self.span.len + next.len <= RUN_MAX_BYTES.min(pace * SEGMENTS_MAX);
        if fits {
            self.segment = number::to_u16(pace as usize);
            self.span.len += next.len;
        }
        fits
    }

    /// Parcels of at most so many datagrams.
    pub fn parts(self, count_max: u32) -> impl Iterator<Item = Parcel> {
        let step = if self.segment == 0 {
            self.span.len
        } else {
            u32::from(self.segment) * count_max
        };
        (0..self.span.len.div_ceil(step.max(1)).max(1)).map(move |index| {
            let offset = index * step;
            let len = step.min(self.span.len - offset);
            let segment = if len > u32::from(self.segment) {
                self.segment
            } else {
                0
            };
            Parcel {
                span: Span {
                    offset: self.span.offset + offset,
                    len,
                    ..self.span
                },
                segment,
                ttl: self.ttl,
            }
        })
    }

    /// The size that all its datagrams but the last have.
    fn pace(&self) -> u32 {
        if self.segment == 0 {
            self.span.len
        } else {
            u32::from(self.segment)
        }
    }
}

/// Some parcels that can leave in one segmented send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many parcels.
    pub parcels: usize,
    /// How many datagrams.
    pub datagrams: u32,
    /// Bytes of each datagram but the last; 0 when there is only one datagram.
    pub segment: u16,
}

/// What a way out is known to take in one segmented send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// The largest segment in bytes; 0: no segmented sends at all.
    pub bytes_max: u32,
    /// How many segments.
    pub count_max: u32,
}

impl SegmentLimits {
    /// As long as nothing has been refused.
    pub const UNKNOWN: SegmentLimits = SegmentLimits {
        bytes_max: u32::MAX,
        count_max: SEGMENTS_MAX,
    };
    /// Every datagram by itself.
    pub const NONE: SegmentLimits = SegmentLimits {
        bytes_max: 0,
        count_max: 1,
    };
}

/// The longest run that the parcels begin with: equal sizes but for the last, one TTL, within the limits. A first parcel
/// beyond the limits is a run by itself. `parcels` is not empty.
pub fn first_run(parcels: impl Iterator<Item = Parcel>, limits: SegmentLimits) -> Run {
    let mut parcels = parcels.peekable();
    let first = parcels.next().expect("a run has a first parcel");
    let mut run = Run {
        parcels: 1,
        datagrams: first.datagrams(),
        segment: first.segment,
    };
    let pace = first.pace();
    if pace == 0 || pace > limits.bytes_max {
        return run;
    }
    let mut bytes = first.span.len;
    while bytes.is_multiple_of(pace) {
        let Some(next) = parcels.peek() else { break };
        let fits =
            next.pace() == pace || (next.segment == 0 && next.span.len < pace && next.span.len > 0);
        if !fits
            || next.ttl != first.ttl
            || bytes + next.span.len > RUN_MAX_BYTES
            || run.datagrams + next.datagrams() > limits.count_max
        {
            break;
        }
        bytes += next.span.len;
        run.datagrams += next.datagrams();
        run.parcels += 1;
        run.segment = number::to_u16(pace as usize);
        parcels.next();
    }
    run
}

#[cfg(test)]
mod tests;
