//! Taps: copies of datagrams with their verdicts, for a reader. A tap never delays the datagrams. It copies them into a
//! fixed number of pages. While a slow reader holds all pages, datagrams are counted as missed. In each turn, a tap
//! copies a bounded number of datagrams and bytes, however fast readers are.
//!
//! `filter.rs` selects datagrams and `page.rs` carries them. This file copies them while the dispatcher works.

mod filter;
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crossbeam_channel::Sender;

pub use self::filter::Filter;
pub(super) use self::page::TapSource;
pub use self::page::{Direction, TapCounts, TapPage, View};
use self::page::{Pages, TapSample, VERDICTS_MAX};
use super::handler::{Batch, Drops, HandlerId, Names};
use super::id::LocalListener;
use super::outbox::{Outbox, Reply};
use super::verdict::DropReason;
use crate::datagram::{Envelope, Region, Train};

/// The most taps at once.
pub const TAPS_MAX: usize = 8;
/// The most datagrams that a turn copies for all taps together. This is about a tenth of a full turn, and costs 10 µs.
pub const RECORDS_PER_TURN: usize = 64;
/// The most bytes of payload that a turn copies for all taps together, except for up to one further datagram of each
/// tap.
pub const BYTES_PER_TURN: usize = 128 << 10;

/// The number of a tap, the same in all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapId(pub u64);

/// The part of a tap that one worker owns.
#[derive(Debug)]
pub struct Tap {
    id: TapId,
    filter: Arc<Filter>,
    /// The most bytes of each payload that are copied.
    snap: usize,
    pages: Pages,
    counts: Arc<TapCounts>,
    /// The datagrams that this turn has added to the counts.
    matched: u64,
    missed: u64,
    /// The datagrams and bytes that may still be copied this turn.
    records_left: usize,
    bytes_left: usize,
}

impl Tap {
    /// Creates a tap that copies up to `snap` bytes of each datagram that matches the filter into pages for the
    /// reader.
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

    /// Copies a datagram. Returns `false` if the turn's allowance is used up or no page is free.
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

    /// Adds this turn's numbers to the counts that the reader sees.
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
    /// The handlers of the current run, each with the end of its drops in `drops`.
    handlers: Vec<(HandlerId, usize)>,
    drops: Vec<(u32, DropReason)>,
}

impl Taps {
    /// Creates an empty list of taps. Pages carry these names, so that a reader needs no others.
    pub(super) fn new(names: Arc<Names>) -> Taps {
        Taps {
            names,
            ..Taps::default()
        }
    }

    /// Returns whether no tap is open.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// Opens a tap.
    pub fn add(&mut self, tap: Tap) {
        self.taps.push(tap);
    }

    /// Closes a tap, and sends what it has copied to the reader.
    pub fn remove(&mut self, id: TapId) {
        if let Some(place) = self.taps.iter().position(|tap| tap.id == id) {
            let mut tap = self.taps.swap_remove(place);
            tap.report();
            tap.pages.send();
        }
    }

    /// Begins a turn with a fresh allowance. `now_ns` is the time of day in nanoseconds since 1970.
    pub fn begin_turn(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        let taps = self.taps.len().max(1);
        for tap in &mut self.taps {
            tap.records_left = RECORDS_PER_TURN / taps;
            tap.bytes_left = BYTES_PER_TURN / taps;
        }
    }

    /// Ends a turn and sends what was copied to the readers. Returns `true` if nothing is kept.
    pub(super) fn end_turn(&mut self) -> bool {
        let mut is_done = true;
        for tap in &mut self.taps {
            tap.report();
            is_done &= tap.pages.send_unless_last();
        }
        is_done
    }

    /// Sends everything that was copied to the readers, because no datagrams arrive for now.
    pub(super) fn end(&mut self) {
        for tap in &mut self.taps {
            tap.report();
            tap.pages.send();
        }
    }

    /// Records which datagrams of the current run a handler has dropped.
    pub(super) fn note(&mut self, handler: HandlerId, drops: &Drops) {
        if self.handlers.len() < VERDICTS_MAX {
            self.drops.extend_from_slice(&drops.0);
            self.handlers.push((handler, self.drops.len()));
        }
    }

    /// Copies the datagrams that a listener received, after all handlers have handled them.
    pub(super) fn take(&mut self, source: TapSource, batch: &Batch<'_>) {
        self.copy(source, batch, |envelope| Some(*envelope));
    }

    /// Copies the replies of an upstream, after the handler has handled them. A reply is shown with the addresses that
    /// its client sees: the kernel does not report the addresses of replies, and a reader follows the exchange of a
    /// client. `passed` is one of the replies as the handler passed it back, or `None` if it passed back none.
    pub(super) fn take_reply(
        &mut self,
        source: TapSource,
        batch: &Batch<'_>,
        passed: Option<Reply>,
    ) {
        self.copy(source, batch, |envelope| {
            let reply = passed?;
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
            .filter(|tap| tap.filter.matches_handlers(handlers))
        {
            let mut first = 0;
            for train in batch.trains() {
                let datagrams = train.datagrams();
                let ends = ends(&train.envelope);
                let is_match = match (&ends, source.direction) {
                    (Some(ends), Direction::Request) => tap.filter.matches(ends.dst, ends.src),
                    (Some(ends), Direction::Reply) => tap.filter.matches(ends.src, ends.dst),
                    (None, _) => tap.filter.matches_unknown(),
                };
                if is_match {
                    tap.matched += u64::from(datagrams);
                    let sample = TapSample {
                        source,
                        ends,
                        now_ns: *now_ns,
                        names,
                        handlers,
                        drops,
                        payload: &[],
                        index: first,
                    };
                    let copied = copy_train(tap, train, batch, sample);
                    tap.missed += u64::from(datagrams - copied);
                }
                first += datagrams;
            }
        }
        handlers.clear();
        drops.clear();
    }
}

/// Copies a train's datagrams one by one, until the tap accepts no more. `sample` describes the first one. Returns the
/// number of copies.
fn copy_train<'a>(
    tap: &mut Tap,
    train: &Train,
    batch: &Batch<'a>,
    mut sample: TapSample<'a>,
) -> u32 {
    let mut copied = 0;
    for piece in train.pieces() {
        sample.payload = batch.bytes(piece.span);
        if !tap.copy(&sample) {
            break;
        }
        sample.index += 1;
        copied += 1;
    }
    copied
}

/// Returns how the handler passed these replies back. The socket belongs to one session, so all of them go to one
/// client.
pub(super) fn passed_back(
    handler: HandlerId,
    trains: &[Train],
    outbox: &Outbox,
) -> Option<(LocalListener, Reply)> {
    let first = trains.first()?.span;
    let last = trains.last()?.span;
    let lies_within = |offset: u32| (first.offset..=last.offset + last.len).contains(&offset);
    outbox.replying().iter().find_map(|&listener| {
        let reply = outbox.replies(listener).last()?;
        let span = reply.parcel.span;
        let is_it =
            reply.handler == handler && span.region == Region::Arena && lies_within(span.offset);
        is_it.then_some((listener, *reply))
    })
}
