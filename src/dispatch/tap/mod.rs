//! Taps: copies of datagrams with what became of them, for somebody who looks on. A tap never holds up what it looks at. It
//! copies into pages, of which there is a fixed number; a reader that is behind has all of them, and then datagrams are
//! counted as missed. And it copies a bounded number of datagrams and bytes in each turn, whoever reads how fast.
//!
//! `filter.rs` says which datagrams, `page.rs` carries them, and this file takes them while the dispatcher works.

mod filter;
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crossbeam_channel::Sender;

pub use self::filter::{AddressFilter, Filter};
pub(super) use self::page::TapSource;
pub use self::page::{Direction, Record, TapCounts, TapPage, View};
use self::page::{Pages, TapSample, VERDICTS_MAX};
use super::handler::{Batch, Drops, HandlerId, Names, UpstreamId};
use super::id::LocalListener;
use super::outbox::{Outbox, Reply};
use super::verdict::DropReason;
use crate::datagram::{Envelope, Region, Train};

/// Taps that there may be at once.
pub const TAPS_MAX: usize = 8;
/// Datagrams that a turn copies for all taps together: about a tenth of what a full turn may hold, 10 µs of its time.
pub const RECORDS_PER_TURN: usize = 64;
/// Bytes of payload that a turn copies for all taps together, give or take one datagram for each.
pub const BYTES_PER_TURN: usize = 128 << 10;
/// Which tap; the same in all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapId(pub u64);

/// One worker's end of a tap.
#[derive(Debug)]
pub struct Tap {
    id: TapId,
    filter: Arc<Filter>,
    /// Bytes of each payload that are copied.
    snap: usize,
    pages: Pages,
    counts: Arc<TapCounts>,
    /// What this turn added to the counts.
    matched: u64,
    missed: u64,
    /// What may still be copied this turn.
    records_left: usize,
    bytes_left: usize,
}

impl Tap {
    /// Copies up to `snap` bytes of each datagram that the filter wants into pages for the reader.
    pub fn new(
        id: TapId,
        filter: Arc<Filter>,
        snap: usize,
        reader: Sender<TapPage>,
        counts: Arc<TapCounts>,
    ) -> Tap {
        let pages = Pages::new(reader);
        Tap {
            id,
            filter,
            snap,
            pages,
            counts,
            matched: 0,
            missed: 0,
            records_left: 0,
            bytes_left: 0,
        }
    }

    /// Copies a datagram, or says that it cannot now.
    fn copy(&mut self, sample: &TapSample<'_>) -> bool {
        if self.records_left == 0 || self.bytes_left == 0 {
            return false;
        }
        let payload = &sample.payload[..sample.payload.len().min(self.snap)];
        let copied = self.pages.write(sample, payload);
        if copied {
            self.records_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(payload.len());
        }
        copied
    }

    /// Tells the reader how many there were.
    fn report(&mut self) {
        if self.matched > 0 {
            self.counts.add(
                std::mem::take(&mut self.matched),
                std::mem::take(&mut self.missed),
            );
        }
    }
}

/// All taps of a worker.
#[derive(Debug, Default)]
pub struct Taps {
    taps: Vec<Tap>,
    /// The time of day of this turn, in nanoseconds since 1970.
    now_ns: u64,
    names: Arc<Names>,
    /// The handlers of the run so far, each with the end of its drops in `drops`.
    handlers: Vec<(HandlerId, usize)>,
    drops: Vec<(u32, DropReason)>,
}

impl Taps {
    /// No taps yet. The names go with the records, so that a reader needs no others.
    pub(super) fn new(names: Arc<Names>) -> Taps {
        Taps {
            names,
            ..Taps::default()
        }
    }

    /// Whether nobody looks on.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// One more.
    pub fn add(&mut self, tap: Tap) {
        self.taps.push(tap);
    }

    /// One less; what it has copied is handed on.
    pub fn remove(&mut self, id: TapId) {
        if let Some(place) = self.taps.iter().position(|tap| tap.id == id) {
            let mut tap = self.taps.swap_remove(place);
            tap.report();
            tap.pages.hand_on();
        }
    }

    /// A turn begins, at this time of day in nanoseconds since 1970.
    pub fn begin_turn(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        let taps = self.taps.len().max(1);
        for tap in &mut self.taps {
            tap.records_left = RECORDS_PER_TURN / taps;
            tap.bytes_left = BYTES_PER_TURN / taps;
        }
    }

    /// A turn is over: what was copied goes to the readers. Whether nothing is kept back.
    pub(super) fn end_turn(&mut self) -> bool {
        let mut is_done = true;
        for tap in &mut self.taps {
            tap.report();
            is_done &= tap.pages.hand_on_unless_last();
        }
        is_done
    }

    /// Nothing comes any more, for now: what was copied goes to the readers.
    pub(super) fn end(&mut self) {
        for tap in &mut self.taps {
            tap.report();
            tap.pages.hand_on();
        }
    }

    /// A handler has had the run, and dropped these.
    pub(super) fn note(&mut self, handler: HandlerId, drops: &Drops) {
        if self.handlers.len() < VERDICTS_MAX {
            self.drops.extend_from_slice(&drops.0);
            self.handlers.push((handler, self.drops.len()));
        }
    }

    /// Copies what a listener received, now that all handlers have had it.
    pub(super) fn take(&mut self, source: TapSource, batch: &Batch<'_>) {
        self.copy(source, batch, |envelope| Some(*envelope));
    }

    /// Copies what an upstream answered, now that its handler has had it: as its client gets it, since the kernel was not
    /// asked for anything about an answer, and the client's conversation is what people look for.
    pub(super) fn take_reply(
        &mut self,
        handler: HandlerId,
        upstream: Option<UpstreamId>,
        batch: &Batch<'_>,
        outbox: &Outbox,
        listener_of: impl Fn(LocalListener) -> u32,
    ) {
        let passed = passed_back(handler, batch.trains(), outbox);
        let listener = passed.map(|(local, _)| listener_of(local));
        let source = TapSource {
            direction: Direction::Reply,
            listener,
            route: Ok(None),
            upstream,
        };
        self.copy(source, batch, |envelope| {
            let (_, reply) = passed?;
            Some(Envelope {
                src: reply.from,
                dst: reply.to,
                local: reply.from,
                ..*envelope
            })
        });
    }

    fn copy(
        &mut self,
        source: TapSource,
        batch: &Batch<'_>,
        ends: impl Fn(&Envelope) -> Option<Envelope>,
    ) {
        let Taps {
            taps,
            now_ns,
            names,
            handlers,
            drops,
        } = self;
        for tap in taps
            .iter_mut()
            .filter(|tap| tap.filter.wants_one_of(handlers))
        {
            let mut first = 0;
            for train in batch.trains() {
                let datagrams = train.datagrams();
                let ends = ends(&train.envelope);
                let is_wanted = match (&ends, source.direction) {
                    (Some(ends), Direction::Request) => tap.filter.wants(ends.dst, ends.src),
                    (Some(ends), Direction::Reply) => tap.filter.wants(ends.src, ends.dst),
                    (None, _) => tap.filter.wants_anybody(),
                };
                if is_wanted {
                    tap.matched += u64::from(datagrams);
                    let sample = TapSample {
                        source,
                        ends,
                        now_ns: *now_ns,
                        names,
                        handlers,
                        drops,
                        payload: &[],
                        index: 0,
                    };
                    let copied = copy_train(tap, train, batch, first, sample);
                    tap.missed += u64::from(datagrams - copied);
                }
                first += datagrams;
            }
        }
        handlers.clear();
        drops.clear();
    }
}

/// Copies a train's datagrams one by one, as many as the tap takes.
fn copy_train<'a>(
    tap: &mut Tap,
    train: &Train,
    batch: &Batch<'a>,
    first: u32,
    mut sample: TapSample<'a>,
) -> u32 {
    let mut copied = 0;
    for piece in train.pieces() {
        sample.payload = batch.bytes(piece.span);
        sample.index = first + copied;
        if !tap.copy(&sample) {
            break;
        }
        copied += 1;
    }
    copied
}

/// What the handler passed these answers on as: a socket is one session's, and so all of them go to one client.
fn passed_back(
    handler: HandlerId,
    trains: &[Train],
    outbox: &Outbox,
) -> Option<(LocalListener, Reply)> {
    let (first, last) = (trains.first()?.span, trains.last()?.span);
    let lies_within = |offset: u32| (first.offset..=last.offset + last.len).contains(&offset);
    outbox.replying().iter().find_map(|&listener| {
        let reply = outbox.replies(listener).last()?;
        let span = reply.parcel.span;
        let is_it =
            reply.handler == handler && span.region == Region::Arena && lies_within(span.offset);
        is_it.then_some((listener, *reply))
    })
}
