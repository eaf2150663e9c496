//! Parcels, and the runs of them that the kernel takes in one segmented send. This file only computes values;
//! `net/send.rs` passes the runs to the kernel.

use crate::datagram::{Span, Train};
use crate::number;

/// The most datagrams in one segmented send: UDP_MAX_SEGMENTS (include/linux/udp.h), since Linux 6.10.
pub const SEGMENTS_MAX: u32 = 128;
/// The most datagrams in one segmented send before Linux 6.10.
pub const SEGMENTS_MAX_OLD: u32 = 64;
/// The most bytes in one segmented send: 65,535 less the IPv4 and UDP headers, as for a single datagram.
pub const RUN_MAX_BYTES: u32 = 65_507;
const _: () = assert!(RUN_MAX_BYTES <= u16::MAX as u32, "a segment has 16 bits");

/// One datagram or a train to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel {
    /// The range of the bytes.
    pub span: Span,
    /// The bytes in each datagram except the last; 0 for a single datagram.
    pub segment: u16,
    /// The TTL or hop limit to send with; `None` for the socket's default.
    pub ttl: Option<u8>,
}

/// Splits a train into parts that one segmented send can take.
pub(super) fn split(train: &Train, mut piece: impl FnMut(Span, u16)) {
    let span = train.span;
    let segment = u32::from(train.segment);
    // At least one: over IPv6, a segment may be longer than a run. Such segments are sent one by one.
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
    /// Returns the number of datagrams.
    pub fn datagrams(&self) -> u32 {
        match self.segment {
            0 => 1,
            segment => self.span.len.div_ceil(u32::from(segment)),
        }
    }

    /// Returns the datagrams as parcels of one, for sockets without segmented sends.
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

    /// Appends a datagram that lies directly behind the parcel, if one segmented send can take both. Returns whether
    /// it did.
    #[inline]
    pub(super) fn extend(&mut self, next: Span) -> bool {
        let segment_len = self.segment_len();
        let fits = self.span.region == next.region
            && self.span.offset + self.span.len == next.offset
            && (1..=segment_len).contains(&next.len)
            && self.span.len.is_multiple_of(segment_len)
            && self.span.len + next.len <= RUN_MAX_BYTES.min(segment_len * SEGMENTS_MAX);
        if fits {
            self.segment = number::to_u16(segment_len as usize);
            self.span.len += next.len;
        }
        fits
    }

    /// Splits the parcel into parcels of at most `count_max` datagrams.
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

    /// Returns the size of all datagrams except the last.
    pub(super) fn segment_len(&self) -> u32 {
        if self.segment == 0 {
            self.span.len
        } else {
            u32::from(self.segment)
        }
    }
}

/// Consecutive parcels that one segmented send can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The number of parcels.
    pub parcels: usize,
    /// The number of datagrams.
    pub datagrams: u32,
    /// The bytes in each datagram except the last; 0 for a single datagram.
    pub segment: u16,
}

/// The limits within which a socket is known to accept a segmented send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// The largest segment in bytes; 0 if segmented sends are not possible.
    pub bytes_max: u32,
    /// The largest number of segments.
    pub count_max: u32,
}

impl SegmentLimits {
    /// The limits as long as the kernel has refused nothing.
    pub const UNKNOWN: SegmentLimits = SegmentLimits {
        bytes_max: u32::MAX,
        count_max: SEGMENTS_MAX,
    };
    /// The limits of a socket on which each datagram is sent by itself.
    pub const NONE: SegmentLimits = SegmentLimits {
        bytes_max: 0,
        count_max: 1,
    };
}

/// Returns the longest run at the start of the parcels: equal sizes except for the last, one TTL, within the limits.
/// A first parcel beyond the limits is a run by itself.
///
/// # Panics
///
/// Panics if `parcels` is empty.
pub fn first_run(parcels: impl Iterator<Item = Parcel>, limits: SegmentLimits) -> Run {
    let mut parcels = parcels.peekable();
    let first = parcels.next().expect("a run has a first parcel");
    let mut run = Run {
        parcels: 1,
        datagrams: first.datagrams(),
        segment: first.segment,
    };
    let segment_len = first.segment_len();
    if segment_len == 0 || segment_len > limits.bytes_max {
        return run;
    }
    let mut bytes = first.span.len;
    while bytes.is_multiple_of(segment_len) {
        let Some(next) = parcels.peek() else { break };
        let fits = next.segment_len() == segment_len
            || (next.segment == 0 && next.span.len < segment_len && next.span.len > 0);
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
        run.segment = number::to_u16(segment_len as usize);
        parcels.next();
    }
    run
}
