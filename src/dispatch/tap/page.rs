//! Pages: they carry copies of datagrams from a worker to a reader. Pages are allocated once. A page that was read
//! returns to the worker that filled it, and nothing is allocated for a datagram.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::datagram::Envelope;
use crate::dispatch::handler::{HandlerId, Names, UpstreamId};
use crate::dispatch::id::{ListenerId, RouteId};
use crate::dispatch::verdict::{DropReason, Verdict};
use crate::number;

/// The most handlers that a record holds verdicts of. On a route with more handlers, the first ones are recorded.
pub(super) const VERDICTS_MAX: usize = 32;
/// The number of pages of one tap in each worker.
const PAGES: usize = 4;
/// The bytes of payload in a page: a few datagrams of the largest size.
const PAGE_BYTES: usize = 256 << 10;
/// The most datagrams in a page.
const PAGE_RECORDS: usize = 512;
/// The most verdicts in a page: as a rule, one or two for each datagram.
const PAGE_VERDICTS: usize = 1024;

const _: () = assert!(PAGE_VERDICTS >= VERDICTS_MAX && PAGE_BYTES > u16::MAX as usize);

/// The direction of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client to a listener of this daemon.
    Request,
    /// From an upstream back to a client.
    Reply,
}

/// The origin of the datagrams of a run.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct TapSource {
    /// The direction of the datagrams.
    pub(in super::super) direction: Direction,
    /// The number of the listener that received requests, or that replies leave through.
    pub(in super::super) listener: Option<ListenerId>,
    /// The route of the datagrams, or the reason why they have none.
    pub(in super::super) route: Result<Option<RouteId>, DropReason>,
    /// The upstream that replies come from.
    pub(in super::super) upstream: Option<UpstreamId>,
}

/// A datagram as it is passed to a page.
#[derive(Clone, Copy)]
pub(super) struct TapSample<'a> {
    pub(super) source: TapSource,
    pub(super) ends: Option<Envelope>,
    pub(super) now_ns: u64,
    pub(super) names: &'a Arc<Names>,
    pub(super) handlers: &'a [(HandlerId, usize)],
    pub(super) drops: &'a [(u32, DropReason)],
    pub(super) payload: &'a [u8],
    /// The index of the datagram in the batch, which the drops refer to.
    pub(super) index: u32,
}

impl TapSample<'_> {
    /// Returns the verdict of each handler on the datagram.
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

/// The data about one datagram on a page, besides its payload and verdicts.
#[derive(Debug, Clone)]
pub struct Record {
    /// The time at which the kernel received the datagram, or at which the turn began if the kernel does not report it.
    /// The unit is nanoseconds since 1970.
    pub time_ns: u64,
    /// The direction of the datagram.
    pub direction: Direction,
    /// The number of the listener that received the request, or that the reply leaves through.
    pub listener: Option<ListenerId>,
    /// The upstream that replied.
    pub upstream: Option<UpstreamId>,
    /// The addresses and what else the kernel reported. A reply has the addresses that its client sees, or `None` if
    /// it is sent to no client.
    pub ends: Option<Envelope>,
    /// The route of the datagram.
    pub route: Option<RouteId>,
    /// The reason why the datagram has no route.
    pub refusal: Option<DropReason>,
    /// The length of the payload in bytes, which may exceed the bytes that were copied.
    pub len: u32,
    payload: Range<usize>,
    verdicts: Range<usize>,
}

/// A page of datagrams on its way to a reader.
#[derive(Debug)]
pub struct TapPage {
    records: Vec<Record>,
    bytes: Vec<u8>,
    verdicts: Vec<(HandlerId, Verdict)>,
    names: Arc<Names>,
    /// The channel that returns the page to its worker; `None` while the page is there. A bounded channel keeps its
    /// contents until its last sender is gone. A page that waited in it with a sender would therefore never be freed.
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
        let bytes = self.bytes.len();
        let verdicts = self.verdicts.len();
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

    /// Returns the datagrams in the order in which this worker handled them.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.records.iter().map(|record| View {
            record,
            names: &self.names,
            payload: &self.bytes[record.payload.clone()],
            verdicts: &self.verdicts[record.verdicts.clone()],
        })
    }

    /// Returns the page to its worker after it was read.
    pub fn done(mut self) {
        self.records.clear();
        self.bytes.clear();
        self.verdicts.clear();
        if let Some(home) = self.home.take() {
            // The tap may be gone. The page is then freed.
            let _ = home.try_send(self);
        }
    }
}

/// A view of one datagram on a page.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The data about the datagram.
    pub record: &'a Record,
    /// The names for the numbers in the record.
    pub names: &'a Names,
    /// The first bytes of the datagram.
    pub payload: &'a [u8],
    /// The verdict of each handler.
    pub verdicts: &'a [(HandlerId, Verdict)],
}

impl View<'_> {
    /// Returns the common verdict: the datagram is handled if at least one handler handled it.
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

/// Counts of the datagrams that matched the filter, over all workers, as of the ends of their last turns.
#[derive(Debug, Default)]
pub struct TapCounts {
    matched: AtomicU64,
    missed: AtomicU64,
}

impl TapCounts {
    pub(super) fn add(&self, matched: u64, missed: u64) {
        // The reader loads these in the reverse order, so that missed datagrams never seem more than matched ones.
        self.matched.fetch_add(matched, Ordering::Release);
        self.missed.fetch_add(missed, Ordering::Release);
    }

    /// Returns the number of datagrams that matched the filter, and the number of those that were not copied. A
    /// datagram is missed if no page was free or the turn's allowance was used up.
    pub fn get(&self) -> (u64, u64) {
        let missed = self.missed.load(Ordering::Acquire);
        (self.matched.load(Ordering::Acquire), missed)
    }
}

/// The pages of one tap in one worker: free, sent to the reader, or being filled.
#[derive(Debug)]
pub(super) struct Pages {
    reader: Sender<TapPage>,
    home: Sender<TapPage>,
    free: Receiver<TapPage>,
    current: Option<TapPage>,
}

impl Pages {
    /// Creates all pages as free. The reader's channel is unbounded; the number of pages is bounded.
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

    /// Writes a datagram to the current page, or to a new one. Returns `false` if all pages are full or with the
    /// reader.
    pub(super) fn write(&mut self, sample: &TapSample<'_>, payload: &[u8]) -> bool {
        if self
            .current
            .as_ref()
            .is_some_and(|page| !page.has_room(payload.len(), sample.handlers.len()))
        {
            // The reader frees pages in order, so a full page is sent to it at once.
            self.send();
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

    /// Sends the current page, unless the reader holds all others. In that case the worker keeps filling it, since
    /// short turns would use up the pages long before the reader is behind. Returns whether nothing was kept.
    pub(super) fn send_unless_last(&mut self) -> bool {
        if self.current.is_some() && self.free.is_empty() {
            return false;
        }
        self.send();
        true
    }

    /// Sends the current page to the reader.
    pub(super) fn send(&mut self) {
        // A reader that is gone frees what is sent to it; the control plane then removes the tap.
        if let Some(mut page) = self.current.take() {
            page.home = Some(self.home.clone());
            if let Err(refused) = self.reader.send(page) {
                refused.into_inner().done();
            }
        }
    }
}
