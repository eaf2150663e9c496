//! What is to be sent, as data. Handlers fill it during a turn; the worker sends it in one go at the turn's end, before
//! the arena is used again. In `explain` it is printed instead.
//!
//! Payloads are spans of the arena wherever they can be, so that nothing is copied on the way through. Runs of equal
//! size to one destination are found here, as pure values; `net/send.rs` knows how the kernel takes them.

use std::net::SocketAddr;

use super::id::HandlerId;
use super::verdict::DropReason;
use crate::datagram::{Envelope, Region, Span, Train};

/// Most bytes that handlers may make (not pass on) in one turn; what is above is `Dropped(OutboxFull)`.
pub const SCRATCH_MAX_BYTES: usize = 4 << 20;
/// Most datagrams in one segmented send: UDP_MAX_SEGMENTS (include/linux/udp.h), since Linux 6.10.
pub const SEGMENTS_MAX: u32 = 128;
/// The same before Linux 6.10.
pub const SEGMENTS_MAX_OLD: u32 = 64;
/// Most bytes in one segmented send: 65,535 less the IPv4 and UDP headers, as for a single datagram.
pub const RUN_MAX_BYTES: u32 = 65_507;

/// One way out: an upstream's connected socket in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(pub u32);

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

/// Everything that one turn sends.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: Vec<Vec<Parcel>>,
    touched: Vec<Lane>,
    replies: Vec<Reply>,
    scratch: Vec<u8>,
}

impl Outbox {
    /// An empty outbox with so many lanes.
    pub fn new(lanes: usize) -> Outbox {
        Outbox { lanes: vec![Vec::new(); lanes], ..Outbox::default() }
    }

    /// Passes a train, or a single datagram as a train of one, on to an upstream.
    pub fn forward(&mut self, lane: Lane, train: &Train, ttl: Option<u8>) {
        let parcels = &mut self.lanes[lane.0 as usize];
        if parcels.is_empty() {
            self.touched.push(lane);
        }
        split(train, |span, segment| parcels.push(Parcel { span, segment, ttl }));
    }

    /// Sends bytes of the arena back.
    pub fn reply(&mut self, handler: HandlerId, envelope: &Envelope, span: Span, ttl: Option<u8>) {
        let parcel = Parcel { span, segment: 0, ttl };
        let Envelope { src, local, interface, .. } = *envelope;
        self.replies.push(Reply { parcel, to: src, from: local, interface, handler });
    }

    /// Copies bytes that a handler made, so that they outlive it until the flush.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<Span, DropReason> {
        if self.scratch.len() + bytes.len() > SCRATCH_MAX_BYTES {
            return Err(DropReason::OutboxFull);
        }
        let offset = self.scratch.len() as u32;
        self.scratch.extend_from_slice(bytes);
        Ok(Span { region: Region::Scratch, offset, len: bytes.len() as u32 })
    }

    /// The bytes of a span.
    pub fn bytes<'a>(&'a self, arena: &'a [u8], span: Span) -> &'a [u8] {
        let buffer = match span.region {
            Region::Arena => arena,
            Region::Scratch => &self.scratch,
        };
        &buffer[span.offset as usize..(span.offset + span.len) as usize]
    }

    /// The lanes that something goes out on.
    pub fn touched(&self) -> &[Lane] {
        &self.touched
    }

    /// What goes out on a lane, in order.
    pub fn lane(&self, lane: Lane) -> &[Parcel] {
        &self.lanes[lane.0 as usize]
    }

    /// What goes back, in order.
    pub fn replies(&self) -> &[Reply] {
        &self.replies
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        for lane in self.touched.drain(..) {
            self.lanes[lane.0 as usize].clear();
        }
        self.replies.clear();
        self.scratch.clear();
    }
}

/// Cuts a train into pieces that one segmented send can take.
fn split(train: &Train, mut piece: impl FnMut(Span, u16)) {
    let span = train.span;
    let segment = u32::from(train.segment);
    // One at least: IPv6 has room for segments that are longer than a run may be, and those go one by one.
    let most = RUN_MAX_BYTES.checked_div(segment).map_or(1, |segments| SEGMENTS_MAX.min(segments).max(1));
    let step = if segment == 0 { span.len } else { segment * most };
    if span.len <= step {
        return piece(span, if span.len > segment { train.segment } else { 0 });
    }
    let mut offset = 0;
    while offset < span.len {
        let len = step.min(span.len - offset);
        piece(Span { offset: span.offset + offset, len, ..span }, if len > segment { train.segment } else { 0 });
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
        let step = if self.segment == 0 { self.span.len } else { u32::from(self.segment) };
        (0..self.datagrams()).map(move |index| {
            let offset = index * step;
            let span = Span { offset: self.span.offset + offset, len: step.min(self.span.len - offset), ..self.span };
            Parcel { span, segment: 0, ttl: self.ttl }
        })
    }

    /// The size that all its datagrams but the last have.
    fn pace(&self) -> u32 {
        if self.segment == 0 { self.span.len } else { u32::from(self.segment) }
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
    pub const UNKNOWN: SegmentLimits = SegmentLimits { bytes_max: u32::MAX, count_max: SEGMENTS_MAX };
    /// Every datagram by itself.
    pub const NONE: SegmentLimits = SegmentLimits { bytes_max: 0, count_max: 1 };
}

/// The longest run that the parcels begin with: equal sizes but for the last, one TTL, within the limits. A first parcel
/// beyond the limits is a run by itself. `parcels` is not empty.
pub fn first_run(parcels: impl Iterator<Item = Parcel>, limits: SegmentLimits) -> Run {
    let mut parcels = parcels.peekable();
    let first = parcels.next().expect("a run has a first parcel");
    let mut run = Run { parcels: 1, datagrams: first.datagrams(), segment: first.segment };
    let pace = first.pace();
    if pace == 0 || pace > limits.bytes_max {
        return run;
    }
    let mut bytes = first.span.len;
    while bytes.is_multiple_of(pace) {
        let Some(next) = parcels.peek() else { break };
        let fits = next.pace() == pace || (next.segment == 0 && next.span.len < pace && next.span.len > 0);
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
        run.segment = pace as u16;
        parcels.next();
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(len: u32, segment: u16) -> Parcel {
        Parcel { span: Span { region: Region::Arena, offset: 0, len }, segment, ttl: None }
    }

    fn run_of(parcels: &[Parcel]) -> (usize, u32, u16) {
        let run = first_run(parcels.iter().copied(), SegmentLimits::UNKNOWN);
        (run.parcels, run.datagrams, run.segment)
    }

    /// A run takes equal sizes, ends after a shorter one, and never takes a longer or an empty one.
    #[test]
    fn runs_end_where_the_kernel_would_cut_wrongly() {
        assert_eq!(run_of(&[parcel(64, 0), parcel(64, 0), parcel(10, 0), parcel(64, 0)]), (3, 3, 64));
        assert_eq!(run_of(&[parcel(64, 0), parcel(65, 0)]), (1, 1, 0));
        assert_eq!(run_of(&[parcel(0, 0), parcel(0, 0)]), (1, 1, 0));
        assert_eq!(run_of(&[parcel(64, 0), parcel(0, 0)]), (1, 1, 0));
        assert_eq!(run_of(&[parcel(640, 64), parcel(64, 0), parcel(70, 64)]), (3, 13, 64));
        assert_eq!(run_of(&[parcel(650, 64), parcel(64, 0)]), (1, 11, 64));
        assert_eq!(run_of(&vec![parcel(64, 0); 200]), (128, 128, 64));
        let old = SegmentLimits { count_max: SEGMENTS_MAX_OLD, ..SegmentLimits::UNKNOWN };
        assert_eq!(first_run(vec![parcel(64, 0); 200].into_iter(), old).datagrams, 64);
        assert_eq!(run_of(&vec![parcel(1200, 0); 100]), (54, 54, 1200));
        let spent = Parcel { ttl: Some(3), ..parcel(64, 0) };
        assert_eq!(run_of(&[parcel(64, 0), spent]), (1, 1, 0));
    }

    /// A train longer than a send may be is cut at segment borders and loses no byte.
    #[test]
    fn long_trains_are_split() {
        let peer = "127.0.0.1:9".parse().unwrap();
        let envelope = Envelope { src: peer, dst: peer, local: peer, interface: 0, ttl: None, time_ns: None };
        let span = Span { region: Region::Arena, offset: 100, len: 256 * 64 - 5 };
        let mut outbox = Outbox::new(1);
        outbox.forward(Lane(0), &Train { envelope, span, segment: 64 }, None);
        let lane = outbox.lane(Lane(0));
        assert_eq!(lane.iter().map(Parcel::datagrams).collect::<Vec<_>>(), [128, 128]);
        assert_eq!(lane.iter().map(|parcel| parcel.span.len).sum::<u32>(), span.len);
        assert_eq!(lane[0].singles().count(), 128);
    }
}
