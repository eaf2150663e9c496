//! The ledger: the number of datagrams received, and what became of each. Law 3 (ARCHITECTURE.md) holds in every row
//! at every moment:
//!
//! > received = handled + Σ dropped\[reason\] + in flight
//!
//! Counters are plain integers that one worker owns. A worker hands out a copy between two turns, so a copy is exact.

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::id::{HandlerId, UpstreamId};
use super::time::Time;
use super::verdict::DropReason;

/// The counters of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that were handled.
    pub handled: u64,
    /// Datagrams that a sink holds: taken from the data plane and not yet written.
    pub in_flight: u64,
    /// Datagrams dropped, by reason.
    #[serde(with = "by_reason")]
    pub dropped: [u64; DropReason::COUNT],
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            received: 0,
            handled: 0,
            in_flight: 0,
            dropped: [0; DropReason::COUNT],
        }
    }
}

/// Serializes drops by name, so that they have the same meaning in another version.
mod by_reason {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::DropReason;

    type DropCounts = [u64; DropReason::COUNT];

    /// Writes the reasons whose count is not zero, as a map from label to count.
    ///
    /// # Errors
    ///
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(
        dropped: &DropCounts,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let named = DropReason::ALL
            .iter()
            .map(|reason| (reason.label(), dropped[*reason as usize]));
        serializer.collect_map(named.filter(|(_, datagrams)| *datagrams > 0))
    }

    /// Reads a map from label to count. Reasons that this version does not have are ignored.
    ///
    /// # Errors
    ///
    /// Returns the error of the deserializer if the input is not such a map.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DropCounts, D::Error> {
        let named = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut dropped = [0; DropReason::COUNT];
        for reason in DropReason::ALL {
            dropped[*reason as usize] = named.get(reason.label()).copied().unwrap_or(0);
        }
        Ok(dropped)
    }
}

impl Tally {
    /// Returns the number of datagrams dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Returns the number of datagrams dropped for one reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns whether law 3 holds.
    pub fn balances(&self) -> bool {
        self.received == self.handled + self.dropped_total() + self.in_flight
    }

    /// Counts a batch that came in, of which these datagrams were dropped and the others handled.
    pub(super) fn batch(&mut self, datagrams: u32, drops: &[(u32, DropReason)]) {
        self.received += u64::from(datagrams);
        self.handled += u64::from(datagrams) - drops.len() as u64;
        for (_, reason) in drops {
            self.dropped[*reason as usize] += 1;
        }
    }

    /// Counts datagrams that came in and were dropped before any handler received them.
    pub(super) fn refuse(&mut self, datagrams: u64, reason: DropReason) {
        self.received += datagrams;
        self.dropped[reason as usize] += datagrams;
    }

    /// Moves datagrams from handled to written, lost and in flight, according to the sink's counters.
    fn settle(&mut self, written: u64, lost: u64) {
        self.in_flight = self.handled - written - lost;
        self.dropped[DropReason::SinkClosed as usize] += lost;
        self.handled = written;
    }

    /// Adds the counters of another row.
    pub fn add(&mut self, other: &Tally) {
        self.received += other.received;
        self.handled += other.handled;
        self.in_flight += other.in_flight;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
    }
}

/// The counters of a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerCount {
    /// The datagrams that receive calls of this daemon returned.
    pub tally: Tally,
    /// The datagrams that the kernel dropped before a receive call, from SO_MEMINFO. As a rule they found the receive
    /// buffer full. A train of a segmenting sender counts once there.
    pub kernel_drops: u64,
    /// Receive calls that failed, not counting those that found no datagram.
    pub receive_errors: u64,
}

/// The counters of a handler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerCount {
    /// The datagrams that the handler's routes gave it. A route with several handlers gives each datagram to each of
    /// them.
    pub tally: Tally,
    /// Datagrams that the handler caused to be sent and that the kernel accepted.
    pub sent: u64,
    /// Datagrams that the kernel refused to send, by errno.
    pub failed: Vec<(i32, u64)>,
    /// Errors that came back by ICMP for datagrams that were sent, by errno. The kernel reports only the latest
    /// error, so there may have been more.
    pub reported: Vec<(i32, u64)>,
    /// The replies of the handler's upstreams. Handled are those that were passed on to a client.
    pub replies: Tally,
    /// The counters of the handler's sessions; all zero for a handler without sessions.
    pub sessions: SessionCount,
}

/// The counters of a set of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// Sessions that are open.
    pub open: u64,
    /// Open sessions that have had no reply.
    #[serde(rename = "on_probation")]
    pub unreplied: u64,
    /// Sessions that were ever opened.
    pub opened: u64,
    /// Sessions that ended because they had no traffic.
    pub idle: u64,
    /// Sessions that ended without a reply.
    pub unanswered: u64,
    /// Sessions that ended because all replies had arrived (`replies_max`).
    pub complete: u64,
    /// Unreplied sessions that were ended to make room for another.
    #[serde(rename = "displaced")]
    pub evicted: u64,
    /// Sessions that ended because their socket towards the upstream broke, or because their upstream died.
    pub broken: u64,
    /// Sessions that a handler of another name opened before it was replaced, and that continue here.
    pub inherited: u64,
    /// Sessions that continue in a handler of another name.
    pub left: u64,
    /// Datagrams passed on without a session, because their sender must not be replied to
    /// (`dispatch/reply_policy.rs`).
    pub one_way: u64,
    /// Source ports that are open: leased, in quarantine or idle.
    pub ports: u64,
}

impl SessionCount {
    /// Adds the counters of another worker.
    fn add(&mut self, other: &SessionCount) {
        self.open += other.open;
        self.unreplied += other.unreplied;
        self.opened += other.opened;
        self.idle += other.idle;
        self.unanswered += other.unanswered;
        self.complete += other.complete;
        self.evicted += other.evicted;
        self.broken += other.broken;
        self.inherited += other.inherited;
        self.left += other.left;
        self.one_way += other.one_way;
        self.ports += other.ports;
    }

    /// Returns whether the number of sessions opened equals the number ended or still open.
    pub fn balances(&self) -> bool {
        let ended = self.idle + self.unanswered + self.complete + self.evicted + self.broken;
        self.opened + self.inherited == self.open + ended + self.left
    }
}

/// The counters of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCount {
    /// Datagrams for the upstream that the kernel accepted.
    pub sent: u64,
    /// Datagrams for the upstream that the kernel refused, by errno.
    pub failed: Vec<(i32, u64)>,
    /// Errors that came back from the upstream, by errno.
    pub reported: Vec<(i32, u64)>,
    /// Datagrams that the upstream was picked for but did not get: not in its sample, or above its rate.
    pub skipped: u64,
    /// Replies of the upstream.
    pub replies: u64,
    /// Replies that the kernel dropped before a receive call, because the session's receive buffer was full.
    pub kernel_drops: u64,
    /// Sessions that use the upstream now.
    pub sessions: u64,
    /// For a shadow: its replies that equal the client's, that differ from them, and that never came.
    pub shadow: [u64; 3],
    /// The number of workers that consider the upstream dead by passive health.
    pub dead_in: u32,
    /// The number of workers in which the upstream is draining.
    pub draining_in: u32,
}

impl UpstreamCount {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &UpstreamCount) {
        self.sent += other.sent;
        count_all(&mut self.failed, &other.failed);
        count_all(&mut self.reported, &other.reported);
        self.skipped += other.skipped;
        self.replies += other.replies;
        self.kernel_drops += other.kernel_drops;
        self.sessions += other.sessions;
        self.shadow
            .iter_mut()
            .zip(other.shadow)
            .for_each(|(sum, count)| *sum += count);
        self.dead_in += other.dead_in;
        self.draining_in += other.draining_in;
    }

    /// Counts datagrams that the kernel refused to send with this errno.
    pub fn fail(&mut self, errno: i32, datagrams: u64) {
        count(&mut self.failed, errno, datagrams);
    }

    /// Records what became of datagrams for the upstream.
    pub fn record(&mut self, sent: Sent) {
        sent.record(&mut self.sent, &mut self.failed, &mut self.reported);
    }
}

impl ListenerCount {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &ListenerCount) {
        self.tally.add(&other.tally);
        self.kernel_drops += other.kernel_drops;
        self.receive_errors += other.receive_errors;
    }
}

impl HandlerCount {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &HandlerCount) {
        self.tally.add(&other.tally);
        self.sent += other.sent;
        count_all(&mut self.failed, &other.failed);
        count_all(&mut self.reported, &other.reported);
        self.replies.add(&other.replies);
        self.sessions.add(&other.sessions);
    }

    /// Records what became of datagrams that the handler caused.
    pub fn record(&mut self, sent: Sent) {
        sent.record(&mut self.sent, &mut self.failed, &mut self.reported);
    }
}

/// What became of some datagrams that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel accepted this number of datagrams.
    Taken(u32),
    /// The kernel refused this number of datagrams with this errno.
    Refused(i32, u32),
    /// The kernel reported with this errno that an earlier datagram was lost (ICMP).
    Reported(i32),
}

impl Sent {
    fn record(self, taken: &mut u64, failed: &mut Vec<(i32, u64)>, reported: &mut Vec<(i32, u64)>) {
        match self {
            Sent::Taken(datagrams) => *taken += u64::from(datagrams),
            Sent::Refused(errno, datagrams) => count(failed, errno, u64::from(datagrams)),
            Sent::Reported(errno) => count(reported, errno, 1),
        }
    }
}

fn count_all(sums: &mut Vec<(i32, u64)>, counts: &[(i32, u64)]) {
    counts
        .iter()
        .for_each(|(errno, more)| count(sums, *errno, *more));
}

/// Adds to the count of an errno. There are few, so a list is enough.
fn count(counts: &mut Vec<(i32, u64)>, errno: i32, more: u64) {
    match counts.iter_mut().find(|count| count.0 == errno) {
        Some(count) => count.1 += more,
        None => counts.push((errno, more)),
    }
}

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
    pub fn late(&mut self, handler: HandlerId, upstream: UpstreamId, replies: u64) {
        self.handlers[handler.index()]
            .replies
            .refuse(replies, DropReason::LateReply);
        self.upstreams[upstream.index()].replies += replies;
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
