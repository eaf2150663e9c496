//! Pages: what carries copies of datagrams from a worker to a reader. They are made once; a page that was read goes back to
//! the worker that filled it, and nothing is allocated for a datagram.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::datagram::Envelope;
use crate::dispatch::handler::{HandlerId, Names, UpstreamId};
use crate::dispatch::id::RouteId;
use crate::dispatch::verdict::{DropReason, Verdict};
use crate::number;

/// Handlers whose verdicts a record tells; of a route with more of them, the first.
pub(super) const VERDICTS_MAX: usize = 32;
/// Pages that one tap has in each worker.
const PAGES: usize = 4;
/// Bytes of payload in a page: a few datagrams of the largest size.
const PAGE_BYTES: usize = 256 << 10;
/// Datagrams in a page.
const PAGE_RECORDS: usize = 512;
/// Verdicts in a page: one or two for each datagram, as a rule.
const PAGE_VERDICTS: usize = 1024;

const _: () = assert!(PAGE_VERDICTS >= VERDICTS_MAX && PAGE_BYTES > u16::MAX as usize);

/// Which way a datagram went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To one of our listeners.
    Request,
    /// From an upstream back to a client.
    Reply,
}

/// Where datagrams come from, as the dispatcher knows it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct TapSource {
    /// Which way they go.
    pub(in super::super) direction: Direction,
    /// The number of the listener that received them; of the one that answers leave through.
    pub(in super::super) listener: Option<u32>,
    /// Their route, or why they have none.
    pub(in super::super) route: Result<Option<RouteId>, DropReason>,
    /// The upstream, of an answer.
    pub(in super::super) upstream: Option<UpstreamId>,
}

/// A datagram as it is handed to a page.
#[derive(Clone, Copy)]
pub(super) struct TapSample<'a> {
    pub(super) source: TapSource,
    pub(super) ends: Option<Envelope>,
    pub(super) now_ns: u64,
    pub(super) names: &'a Arc<Names>,
    pub(super) handlers: &'a [(HandlerId, usize)],
    pub(super) drops: &'a [(u32, DropReason)],
    pub(super) payload: &'a [u8],
    /// Its place in the batch, which the drops count by.
    pub(super) index: u32,
}

impl TapSample<'_> {
    /// What each handler said.
    fn verdicts(&self) -> impl Iterator<Item = (HandlerId, Verdict)> {
        let mut first = 0;
        self.handlers.iter().map(move |&(handler, end)| {
            let drops = &self.drops[std::mem::replace(&mut first, end)..end];
            let verdict = match drops.binary_search_by_key(&self.index, |drop| drop.0) {
                Ok(place) => Verdict::Dropped(drops[place].1),
                Err(_) => Verdict::Handled,
            };
            (handler, verdict)
        })
    }
}

/// What is told about one datagram.
#[derive(Debug, Clone)]
pub struct Record {
    /// When the kernel received it, where it was asked; otherwise when its turn began. Nanoseconds since 1970.
    pub time_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// The number of the listener that received it, or that the answer leaves through.
    pub listener: Option<u32>,
    /// The upstream that answered.
    pub upstream: Option<UpstreamId>,
    /// Its addresses and what else the kernel told. An answer's are those that its client sees; `None` where the answer
    /// goes to nobody.
    pub ends: Option<Envelope>,
    /// Its route.
    pub route: Option<RouteId>,
    /// Why it got none.
    pub refusal: Option<DropReason>,
    /// Bytes of payload that it had.
    pub len: u32,
    payload: Range<usize>,
    verdicts: Range<usize>,
}

/// Some datagrams on their way to a reader.
#[derive(Debug)]
pub struct TapPage {
    records: Vec<Record>,
    bytes: Vec<u8>,
    verdicts: Vec<(HandlerId, Verdict)>,
    names: Arc<Names>,
    /// Where it goes back to; `None` while it is there. A bounded channel keeps what is in it until its last sender is gone,
    /// so that a page that waited in it with a sender would never be freed.
    home: Option<Sender<TapPage>>,
}

impl TapPage {
    fn new() -> TapPage {
        TapPage {
            records: Vec::with_capacity(PAGE_RECORDS),
            bytes: Vec::with_capacity(PAGE_BYTES),
            verdicts: Vec::with_capacity(PAGE_VERDICTS),
            names: Arc::default(),
            home: None,
        }
    }

    fn has_room(&self, payload: usize, verdicts: usize) -> bool {
        self.records.len() < PAGE_RECORDS
            && self.bytes.len() + payload <= PAGE_BYTES
            && self.verdicts.len() + verdicts <= PAGE_VERDICTS
    }

    fn write(&mut self, sample: &TapSample<'_>, payload: &[u8]) {
        let (bytes, verdicts) = (self.bytes.len(), self.verdicts.len());
        self.bytes.extend_from_slice(payload);
        self.verdicts.extend(sample.verdicts());
        let TapSource {
            direction,
            listener,
            route,
            upstream,
        } = sample.source;
        self.records.push(Record {
            time_ns: sample
                .ends
                .and_then(|ends| ends.time_ns)
                .unwrap_or(sample.now_ns),
            direction,
            listener,
            upstream,
            ends: sample.ends,
            route: route.ok().flatten(),
            refusal: route.err(),
            len: number::to_u32(sample.payload.len()),
            payload: bytes..self.bytes.len(),
            verdicts: verdicts..self.verdicts.len(),
        });
    }

    /// The datagrams, in the order in which this worker handled them.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.records.iter().map(|record| View {
            record,
            names: &self.names,
            payload: &self.bytes[record.payload.clone()],
            verdicts: &self.verdicts[record.verdicts.clone()],
        })
    }

    /// It has been read: gives it back to its worker.
    pub fn done(mut self) {
        self.records.clear();
        self.bytes.clear();
        self.verdicts.clear();
        if let Some(home) = self.home.take() {
            // The tap may be gone; then the page is simply freed.
            let _ = home.try_send(self);
        }
    }
}

/// One datagram on a page.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is told about it.
    pub record: &'a Record,
    /// What its numbers mean.
    pub names: &'a Names,
    /// Its first bytes.
    pub payload: &'a [u8],
    /// What each of its handlers said.
    pub verdicts: &'a [(HandlerId, Verdict)],
}

impl View<'_> {
    /// What became of it: handled when one of its handlers did.
    pub fn verdict(&self) -> Verdict {
        let is_handled = self
            .verdicts
            .iter()
            .any(|(_, verdict)| *verdict == Verdict::Handled);
        match (self.record.refusal, self.verdicts.first()) {
            (Some(reason), _) => Verdict::Dropped(reason),
            (None, Some((_, verdict))) if !is_handled => *verdict,
            (None, _) => Verdict::Handled,
        }
    }
}

/// What the filter wanted, over all workers, as of their last turns' ends.
#[derive(Debug, Default)]
pub struct TapCounts {
    matched: AtomicU64,
    missed: AtomicU64,
}

impl TapCounts {
    pub(super) fn add(&self, matched: u64, missed: u64) {
        // In this order, and read in the other one, so that never more seem missed than there were.
        self.matched.fetch_add(matched, Ordering::Release);
        self.missed.fetch_add(missed, Ordering::Release);
    }

    /// Datagrams that the filter wanted, and those of them that were not copied because the reader or the turn's allowance
    /// was behind.
    pub fn get(&self) -> (u64, u64) {
        let missed = self.missed.load(Ordering::Acquire);
        (self.matched.load(Ordering::Acquire), missed)
    }
}

/// One worker's pages: at home, under way, or being filled.
#[derive(Debug)]
pub(super) struct Pages {
    reader: Sender<TapPage>,
    home: Sender<TapPage>,
    free: Receiver<TapPage>,
    current: Option<TapPage>,
}

impl Pages {
    /// All pages, at home. The reader's channel is unbounded; the pages are what is bounded.
    pub(super) fn new(reader: Sender<TapPage>) -> Pages {
        let (home, free) = bounded(PAGES);
        for _ in 0..PAGES {
            home.send(TapPage::new())
                .expect("the channel holds all pages");
        }
        Pages {
            reader,
            home,
            free,
            current: None,
        }
    }

    /// Writes a datagram on the page that is being filled, or on a new one. `false`: all pages are full or under way.
    pub(super) fn write(&mut self, sample: &TapSample<'_>, payload: &[u8]) -> bool {
        if self
            .current
            .as_ref()
            .is_some_and(|page| !page.has_room(payload.len(), sample.handlers.len()))
        {
            // The reader would free the pages in order, so the full one waits with it, not here.
            self.hand_on();
        }
        let Some(mut page) = self.current.take().or_else(|| self.free.try_recv().ok()) else {
            return false;
        };
        if page.records.is_empty() {
            page.names = Arc::clone(sample.names);
        }
        page.write(sample, payload);
        self.current = Some(page);
        true
    }

    /// Hands the page on, unless the reader has all the others: then it goes on filling, for short turns would use the pages
    /// up long before the reader is behind. Whether nothing was kept.
    pub(super) fn hand_on_unless_last(&mut self) -> bool {
        if self.current.is_some() && self.free.is_empty() {
            return false;
        }
        self.hand_on();
        true
    }

    /// Hands the page on.
    pub(super) fn hand_on(&mut self) {
        // A reader that is gone frees what is sent to it; somebody will take the tap away.
        if let Some(mut page) = self.current.take() {
            page.home = Some(self.home.clone());
            if let Err(refused) = self.reader.send(page) {
                refused.into_inner().done();
            }
        }
    }
}
