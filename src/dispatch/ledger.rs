//! The ledger: what was received, and what became of each datagram. Law 3, in every row and at every moment:
//!
//! > received = handled + Σ dropped\[reason\] + in flight
//!
//! Counters are plain integers that one worker owns; a worker hands out a copy between two turns, so a copy is exact.

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::id::{HandlerId, UpstreamId};
use super::time::Time;
use super::verdict::DropReason;

/// One account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that were handled.
    pub handled: u64,
    /// Datagrams that a sink holds: taken from the data plane, not yet written.
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

/// Drops are written by name, so that they mean the same in another version.
mod by_reason {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::DropReason;

    type DropCounts = [u64; DropReason::COUNT];

    pub fn serialize<S: Serializer>(
        dropped: &DropCounts,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let named = DropReason::ALL
            .iter()
            .map(|reason| (reason.label(), dropped[*reason as usize]));
        serializer.collect_map(named.filter(|(_, datagrams)| *datagrams > 0))
    }

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
    /// Datagrams dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Datagrams dropped for one reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Whether law 3 holds.
    pub fn balances(&self) -> bool {
        self.received == self.handled + self.dropped_total() + self.in_flight
    }

    /// A batch came in, of which these were dropped and the rest handled.
    pub(super) fn batch(&mut self, datagrams: u32, drops: &[(u32, DropReason)]) {
        self.received += u64::from(datagrams);
        self.handled += u64::from(datagrams) - drops.len() as u64;
        for (_, reason) in drops {
            self.dropped[*reason as usize] += 1;
        }
    }

    /// Some datagrams came in and were dropped before any handler.
    pub(super) fn refuse(&mut self, datagrams: u64, reason: DropReason) {
        self.received += datagrams;
        self.dropped[reason as usize] += datagrams;
    }

    /// Of the handled ones, a sink has written and lost so many.
    fn settle(&mut self, written: u64, lost: u64) {
        self.in_flight = self.handled - written - lost;
        self.dropped[DropReason::SinkClosed as usize] += lost;
        self.handled = written;
    }

    /// Adds another account.
    pub fn add(&mut self, other: &Tally) {
        self.received += other.received;
        self.handled += other.handled;
        self.in_flight += other.in_flight;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
    }
}

/// A listener's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerCount {
    /// What our receive calls got.
    pub tally: Tally,
    /// What the kernel dropped before us, from SO_MEMINFO: datagrams that found the receive buffer full, as a rule. A train
    /// of a segmenting sender counts once there.
    pub kernel_drops: u64,
    /// Receive calls that failed, other than for want of datagrams.
    pub receive_errors: u64,
}

/// A handler's account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerCount {
    /// What its routes gave it. A route with several handlers gives each datagram to each of them.
    pub tally: Tally,
    /// Datagrams that it caused to be sent and that the kernel took.
    pub sent: u64,
    /// Datagrams that the kernel refused to send, by errno.
    pub failed: Vec<(i32, u64)>,
    /// Errors that came back by ICMP for datagrams that were sent, by errno. The kernel tells of the latest only, so there
    /// may have been more.
    pub reported: Vec<(i32, u64)>,
    /// What its upstreams answered: handled is what was passed on to a client.
    pub replies: Tally,
    /// Its sessions; none where it answers nobody.
    pub sessions: SessionCount,
}

/// An account of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// Those that are open.
    pub open: u64,
    /// Those of them that were never answered.
    #[serde(rename = "on_probation")]
    pub unreplied: u64,
    /// Those that ever began.
    pub opened: u64,
    /// Those that ended for want of traffic.
    pub idle: u64,
    /// Those that ended without an answer.
    pub unanswered: u64,
    /// Those that ended because all was answered (`replies_max`).
    pub complete: u64,
    /// Unreplied ones that made room for another.
    #[serde(rename = "displaced")]
    pub evicted: u64,
    /// Those that ended because their way to the upstream was lost, or their upstream died.
    pub broken: u64,
    /// Those that began under another name and go on here: a handler was replaced, and this one is what is left of it.
    pub inherited: u64,
    /// Those that go on under another name.
    pub left: u64,
    /// Datagrams passed on without a way back, since their sender must not be answered (`dispatch/reply_policy.rs`).
    pub one_way: u64,
    /// Source ports that are open: leased, in quarantine or idle.
    pub ports: u64,
}

impl SessionCount {
    /// Adds another worker's account.
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

    /// Whether as many began as have ended or are open.
    pub fn balances(&self) -> bool {
        let ended = self.idle + self.unanswered + self.complete + self.evicted + self.broken;
        self.opened + self.inherited == self.open + ended + self.left
    }
}

/// An upstream's account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCount {
    /// Datagrams that the kernel took for it.
    pub sent: u64,
    /// Datagrams for it that the kernel refused, by errno.
    pub failed: Vec<(i32, u64)>,
    /// Errors that came back from it, by errno.
    pub reported: Vec<(i32, u64)>,
    /// Datagrams that it did not get although it was picked: not in its sample, above its rate.
    pub skipped: u64,
    /// Datagrams that it answered.
    pub replies: u64,
    /// Answers that the kernel dropped before us: they found the session's receive buffer full.
    pub kernel_drops: u64,
    /// Sessions that it holds now.
    pub sessions: u64,
    /// Of a shadow: its answers that were the same as the client's, that differed, and that never came.
    pub shadow: [u64; 3],
    /// How many workers think it dead by what comes back.
    pub dead_in: u32,
    /// In how many workers it gets nothing new.
    pub draining_in: u32,
}

impl UpstreamCount {
    /// Adds another account.
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

    /// The kernel refused to send so many datagrams.
    pub fn fail(&mut self, errno: i32, datagrams: u64) {
        count(&mut self.failed, errno, datagrams);
    }

    /// Writes down what became of datagrams for it.
    pub fn record(&mut self, sent: Sent) {
        sent.record(&mut self.sent, &mut self.failed, &mut self.reported);
    }
}

impl ListenerCount {
    /// Adds another account.
    pub fn add(&mut self, other: &ListenerCount) {
        self.tally.add(&other.tally);
        self.kernel_drops += other.kernel_drops;
        self.receive_errors += other.receive_errors;
    }
}

impl HandlerCount {
    /// Adds another account.
    pub fn add(&mut self, other: &HandlerCount) {
        self.tally.add(&other.tally);
        self.sent += other.sent;
        count_all(&mut self.failed, &other.failed);
        count_all(&mut self.reported, &other.reported);
        self.replies.add(&other.replies);
        self.sessions.add(&other.sessions);
    }

    /// Writes down what became of datagrams that it caused.
    pub fn record(&mut self, sent: Sent) {
        sent.record(&mut self.sent, &mut self.failed, &mut self.reported);
    }
}

/// What became of some datagrams that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took so many.
    Taken(u32),
    /// It refused, with this errno, so many.
    Refused(i32, u32),
    /// It told, with this errno, that an earlier one came to nothing (ICMP).
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

/// Adds to the count of an errno. There are a handful, so a list is enough.
fn count(counts: &mut Vec<(i32, u64)>, errno: i32, more: u64) {
    match counts.iter_mut().find(|count| count.0 == errno) {
        Some(count) => count.1 += more,
        None => counts.push((errno, more)),
    }
}

/// All accounts of a worker, or of all workers, by the numbers of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// By listener number.
    pub listeners: Vec<ListenerCount>,
    /// By route number.
    pub routes: Vec<Tally>,
    /// By handler number.
    pub handlers: Vec<HandlerCount>,
    /// By upstream number.
    pub upstreams: Vec<UpstreamCount>,
    /// When the prefixes that a route expects were last heard, in its order, zero for never; by route number, as far as
    /// any route expects one.
    #[serde(default, rename = "heard")]
    pub last_seen: Vec<Vec<Time>>,
    /// How long handled datagrams stayed, from the kernel's receiving them to the end of the send call, where that is
    /// measured (`daemon.latency`).
    #[serde(rename = "stay")]
    pub latency: Option<Box<Histogram>>,
}

impl Ledger {
    /// Empty accounts for so many listeners, routes, handlers and upstreams.
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

    /// Takes note of when the prefixes of a route were heard.
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

    /// Adds another worker's accounts.
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

    /// Says which of a handler's datagrams its sink still holds.
    pub(super) fn settle(&mut self, handler: usize, written: u64, lost: u64) {
        self.handlers[handler].tally.settle(written, lost);
    }

    /// An upstream's answers came when nobody waited for them any more, and no handler saw them.
    pub fn late(&mut self, handler: HandlerId, upstream: UpstreamId, replies: u64) {
        self.handlers[handler.index()]
            .replies
            .refuse(replies, DropReason::LateReply);
        self.upstreams[upstream.index()].replies += replies;
    }

    /// Whether law 3 holds in every row, and what the listeners gave to routes is what the routes got.
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

/// Reasons that end a datagram before it has a route.
pub const UNROUTED: [DropReason; 4] = [
    DropReason::NoRoute,
    DropReason::DuplicateCopy,
    DropReason::Truncated,
    DropReason::ControlLost,
];
