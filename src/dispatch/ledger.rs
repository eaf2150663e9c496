//! The ledger: how many datagrams were received, handled and dropped. Law 3 (ARCHITECTURE.md) holds in every row at
//! every moment:
//!
//! > received = handled + Σ dropped\[reason\] + in flight
//!
//! Counters are plain integers that one worker owns. A worker hands out a copy between two turns, so a copy is exact.

use serde::{Deserialize, Serialize};

pub use self::rows::{
    HandlerCount, HandlerCounters, ListenerCount, ListenerCounters, Sent, SessionCount,
    ShadowCounts, UpstreamCount, UpstreamCounters,
};
pub use self::tally::Tally;
use super::histogram::Histogram;
use super::id::{HandlerId, UpstreamId};
use super::time::Time;
use super::verdict::DropReason;

mod rows;
mod tally;

/// All rows of a worker, or of all workers, by the numbers of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The counters of the listeners, by listener number.
    pub listeners: Vec<ListenerCount>,
    /// The counters of the routes, by route number.
    pub routes: Vec<Tally>,
    /// The counters of the handlers, by handler number.
    pub handlers: Vec<HandlerCount>,
    /// The counters of the upstreams, by upstream number.
    pub upstreams: Vec<UpstreamCount>,
    /// When the prefixes that each route expects were last seen, in their order; zero if never. The list is indexed
    /// by route number and ends with the last route that expects a prefix.
    #[serde(default, rename = "heard")]
    pub last_seen: Vec<Vec<Time>>,
    /// The latency of handled datagrams, from the kernel's receive to the end of the send call. `None` if it is not
    /// measured (`daemon.latency`).
    #[serde(rename = "stay")]
    pub latency: Option<Box<Histogram>>,
}

impl Ledger {
    /// Creates empty rows for this number of listeners, routes, handlers and upstreams.
    pub fn new(listeners: usize, routes: usize, handlers: usize, upstreams: usize) -> Ledger {
        Ledger {
            listeners: vec![ListenerCount::default(); listeners],
            routes: vec![Tally::default(); routes],
            handlers: vec![HandlerCount::default(); handlers],
            upstreams: vec![UpstreamCount::default(); upstreams],
            last_seen: Vec::new(),
            latency: None,
        }
    }

    /// Records when the prefixes of a route were last seen. The later time wins.
    pub fn note_seen(&mut self, route: usize, last_seen: &[Time]) {
        if self.last_seen.len() <= route {
            self.last_seen.resize(route + 1, Vec::new());
        }
        let known = &mut self.last_seen[route];
        known.resize(known.len().max(last_seen.len()), Time::default());
        known
            .iter_mut()
            .zip(last_seen)
            .for_each(|(known, last_seen)| *known = (*known).max(*last_seen));
    }

    /// Adds the counters of another worker.
    pub fn add(&mut self, other: &Ledger) {
        for (sum, count) in self.listeners.iter_mut().zip(&other.listeners) {
            sum.add(count);
        }
        for (sum, count) in self.routes.iter_mut().zip(&other.routes) {
            sum.add(count);
        }
        for (sum, count) in self.handlers.iter_mut().zip(&other.handlers) {
            sum.add(count);
        }
        for (sum, count) in self.upstreams.iter_mut().zip(&other.upstreams) {
            sum.add(count);
        }
        for (route, last_seen) in other.last_seen.iter().enumerate() {
            self.note_seen(route, last_seen);
        }
        if let Some(latency) = &other.latency {
            self.latency.get_or_insert_default().add(latency);
        }
    }

    /// Records how many of a handler's datagrams its sink has written and lost.
    pub(super) fn settle(&mut self, handler: usize, written: u64, lost: u64) {
        self.handlers[handler].tally.settle(written, lost);
    }

    /// Counts replies of an upstream that arrived when no handler expected them any more.
    pub fn count_late_replies(&mut self, handler: HandlerId, upstream: UpstreamId, replies: u64) {
        self.handlers[handler.index()]
            .replies
            .refuse(replies, DropReason::LateReply);
        self.upstreams[upstream.index()].counters.replies += replies;
    }

    /// Returns whether law 3 holds in every row, and the routes received what the listeners gave to routes.
    pub fn balances(&self) -> bool {
        let tallies = self
            .listeners
            .iter()
            .map(|count| &count.tally)
            .chain(&self.routes);
        let tallies = tallies.chain(
            self.handlers
                .iter()
                .flat_map(|count| [&count.tally, &count.replies]),
        );
        let rows = tallies.into_iter().all(Tally::balances)
            && self.handlers.iter().all(|count| count.sessions.balances());
        let received: u64 = self
            .listeners
            .iter()
            .map(|count| count.tally.received)
            .sum();
        let routed: u64 = self.routes.iter().map(|tally| tally.received).sum();
        let unrouted = |reason| {
            self.listeners
                .iter()
                .map(|count| count.tally.dropped_for(reason))
                .sum::<u64>()
        };
        rows && received == routed + UNROUTED.iter().map(|reason| unrouted(*reason)).sum::<u64>()
    }
}

/// The reasons for which a datagram is dropped before it has a route.
pub const UNROUTED: [DropReason; 4] = [
    DropReason::NoRoute,
    DropReason::DuplicateCopy,
    DropReason::Truncated,
    DropReason::ControlLost,
];
