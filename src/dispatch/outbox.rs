//! The outbox: everything that a turn sends, as data. Handlers fill the outbox during a turn. The worker sends its
//! contents at the end of the turn, before the arena is used again. `explain` prints them instead.
//!
//! Payloads are spans of the arena wherever possible, so that nothing is copied on the way through. `parcel.rs`
//! finds the runs that can leave together.

mod parcel;

use std::net::SocketAddr;

#[cfg(any(test, feature = "internals"))]
pub use self::parcel::SEGMENTS_MAX;
use self::parcel::split;
pub use self::parcel::{Parcel, RUN_MAX_BYTES, Run, SEGMENTS_MAX_OLD, SegmentLimits, first_run};
pub use super::id::UpstreamSocketId;
use super::id::{HandlerId, LocalListener};
use super::verdict::DropReason;
use crate::datagram::{Envelope, Region, Span, Train};
use crate::number;

/// The most bytes that handlers may make in one turn. Bytes that they pass on do not count. A datagram that would
/// exceed it is `Dropped(OutboxFull)`.
pub const SCRATCH_MAX_BYTES: usize = 4 << 20;
/// The largest datagram in bytes that is copied behind the previous one of its socket. The copy costs daemon and kernel
/// less than one more buffer to gather (measured: a tenth of the cost of a small datagram).
pub const COPY_MAX_BYTES: u32 = 512;

/// A parcel that goes back to the source of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The bytes to send.
    pub parcel: Parcel,
    /// The address that the reply goes to.
    pub to: SocketAddr,
    /// The address of this host that the reply leaves from. If it is unspecified, the kernel chooses.
    pub from: SocketAddr,
    /// The index of the interface that the request arrived on; 0 if it is unknown.
    pub interface: u32,
    /// The handler that the ledger counts the reply for.
    pub handler: HandlerId,
}

impl Reply {
    /// Addresses a parcel of `handler` to the source of a datagram.
    pub fn to_source(envelope: &Envelope, parcel: Parcel, handler: HandlerId) -> Reply {
        Reply {
            parcel,
            to: envelope.src,
            from: envelope.local,
            interface: envelope.interface,
            handler,
        }
    }
}

/// A parcel of one datagram that leaves with the address and port of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The socket towards the upstream.
    pub socket: UpstreamSocketId,
    /// The bytes to send.
    pub parcel: Parcel,
    /// The sender's address.
    pub from: SocketAddr,
}

/// Everything that one turn sends.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The parcels of all sockets. Each entry holds the index of the next parcel of its socket.
    parcels: Vec<(Parcel, u32)>,
    /// The first and last parcel of each socket. An entry takes 8 bytes, because 100,000 sessions may each have a
    /// socket.
    sockets: Vec<(u32, u32)>,
    touched: Vec<UpstreamSocketId>,
    /// The replies that leave through each listener.
    replies: Vec<Vec<Reply>>,
    replying: Vec<LocalListener>,
    kept: Vec<Kept>,
    scratch: Vec<u8>,
    /// The range of the arena that was copied last, and its copy. A datagram for several sockets is copied once.
    copied: Option<(Span, Span)>,
}

/// Marks the absence of a parcel.
const NONE: u32 = u32::MAX;

impl Outbox {
    /// Passes a train on to an upstream; a single datagram is a train of one. `arena` is the buffer that its span
    /// points into.
    #[inline]
    pub fn forward(
        &mut self,
        socket: UpstreamSocketId,
        train: &Train,
        ttl: Option<u8>,
        arena: &[u8],
    ) {
        if self.sockets.len() <= socket.index() {
            self.sockets.resize(socket.index() + 1, (NONE, NONE));
        }
        let last = self.sockets[socket.index()].1;
        let is_short = train.is_single()
            && train.span.len <= COPY_MAX_BYTES
            && train.span.region == Region::Arena;
        if last != NONE && is_short && self.scratch.len() < SCRATCH_MAX_BYTES {
            let parcel = Parcel {
                span: train.span,
                segment: 0,
                ttl,
            };
            return self.join(socket, last, parcel, arena);
        }
        split(train, |span, segment| {
            self.send(socket, Parcel { span, segment, ttl });
        });
    }

    /// Puts a short datagram next to the socket's last one, so that one segmented send can take both.
    #[inline]
    fn join(&mut self, socket: UpstreamSocketId, last: u32, mut parcel: Parcel, arena: &[u8]) {
        let span = parcel.span;
        parcel.span = match self.copied {
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
        if tail.ttl != parcel.ttl || !tail.extend(parcel.span) {
            self.send(socket, parcel);
        }
    }

    /// Passes a datagram on to an upstream with the source address of its sender. The socket must serve this purpose
    /// alone.
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

    /// Returns the parcels that leave with their sender's address, in order.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Appends a parcel to a socket.
    #[inline]
    fn send(&mut self, socket: UpstreamSocketId, parcel: Parcel) {
        let place = number::to_u32(self.parcels.len());
        self.parcels.push((parcel, NONE));
        let (first, last) = &mut self.sockets[socket.index()];
        match std::mem::replace(last, place) {
            NONE => {
                *first = place;
                self.touched.push(socket);
            }
            last => self.parcels[last as usize].1 = place,
        }
    }

    /// Passes a train of replies on to a client, through the listener that received the client's request.
    pub fn pass_back(&mut self, listener: LocalListener, train: &Train, mut reply: Reply) {
        split(train, |span, segment| {
            reply.parcel = Parcel {
                span,
                segment,
                ..reply.parcel
            };
            self.reply(listener, reply);
        });
    }

    /// Sends a reply through the listener that received the request.
    pub fn reply(&mut self, listener: LocalListener, reply: Reply) {
        if self.replies.len() <= listener.index() {
            self.replies.resize(listener.index() + 1, Vec::new());
        }
        let replies = &mut self.replies[listener.index()];
        if replies.is_empty() {
            self.replying.push(listener);
        }
        replies.push(reply);
    }

    /// Copies bytes that a handler made. The copy is valid until the flush.
    ///
    /// # Errors
    ///
    /// Returns [`DropReason::OutboxFull`] if the scratch space would exceed [`SCRATCH_MAX_BYTES`].
    pub fn keep(&mut self, bytes: &[u8]) -> Result<Span, DropReason> {
        self.keep_parts([bytes])
    }

    /// Copies bytes that a handler made in several parts, one after the other. The copy is valid until the flush.
    ///
    /// # Errors
    ///
    /// Returns [`DropReason::OutboxFull`] if the scratch space would exceed [`SCRATCH_MAX_BYTES`].
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

    /// Returns the bytes of a span.
    ///
    /// # Panics
    ///
    /// Panics if the span does not lie within its buffer.
    pub fn bytes<'a>(&'a self, arena: &'a [u8], span: Span) -> &'a [u8] {
        let buffer = match span.region {
            Region::Arena => arena,
            Region::Scratch => &self.scratch,
        };
        &buffer[span.offset as usize..(span.offset + span.len) as usize]
    }

    /// Returns the sockets that have parcels.
    pub fn touched(&self) -> &[UpstreamSocketId] {
        &self.touched
    }

    /// Returns the parcels of a socket, in order.
    pub fn parcels(&self, socket: UpstreamSocketId) -> impl Iterator<Item = Parcel> {
        let mut next = self
            .sockets
            .get(socket.index())
            .map_or(NONE, |(first, _)| *first);
        std::iter::from_fn(move || {
            let (parcel, after) = *self.parcels.get(next as usize)?;
            next = after;
            Some(parcel)
        })
    }

    /// Returns the listeners that have replies.
    pub fn replying(&self) -> &[LocalListener] {
        &self.replying
    }

    /// Returns the replies that leave through a listener, in order.
    pub fn replies(&self, listener: LocalListener) -> &[Reply] {
        self.replies
            .get(listener.index())
            .map_or(&[], Vec::as_slice)
    }

    /// Removes all parcels and keeps the memory for the next turn.
    pub fn clear(&mut self) {
        for socket in self.touched.drain(..) {
            self.sockets[socket.index()] = (NONE, NONE);
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

#[cfg(test)]
mod tests;
