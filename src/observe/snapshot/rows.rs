//! The accounts of a snapshot, with their names: the ledger's numbers as views want them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dispatch::ledger::{SessionCount, Tally};
use crate::dispatch::verdict::DropReason;
use crate::net::errno;

/// One account in datagrams: received = handled + dropped + in flight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Came in.
    pub received: u64,
    /// Were handled.
    pub handled: u64,
    /// Were dropped, for whatever reason.
    pub dropped: u64,
    /// Wait in a sink.
    pub in_flight: u64,
    /// The dropped ones by reason; those that did not happen are left out.
    pub drops: BTreeMap<String, u64>,
}

impl Account {
    /// Those dropped for one reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.label()).copied().unwrap_or(0)
    }
}

impl From<&Tally> for Account {
    fn from(tally: &Tally) -> Account {
        let some = |reason: &DropReason| {
            let datagrams = tally.dropped_for(*reason);
            (datagrams > 0).then(|| (reason.label().to_owned(), datagrams))
        };
        Account {
            received: tally.received,
            handled: tally.handled,
            dropped: tally.dropped_total(),
            in_flight: tally.in_flight,
            drops: DropReason::ALL.iter().filter_map(some).collect(),
        }
    }
}

/// Counts by the name of the errno.
pub(crate) fn by_errno(counts: &[(i32, u64)]) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    for (number, datagrams) in counts {
        *named.entry(errno::label(*number)).or_default() += datagrams;
    }
    named
}

/// A thread that receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number, from 0; its thread is called `worker-N`.
    pub worker: usize,
    /// Whether it answered when this was taken. One that did not is shown as it last answered.
    #[serde(alias = "answers")]
    pub responsive: bool,
    /// What its receive calls got.
    #[serde(flatten)]
    pub account: Account,
}

/// A destination that is listened on: one socket, or one in each worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRow {
    /// Its address and port; a group's with its interface.
    pub listener: String,
    /// What its receive calls got.
    #[serde(flatten)]
    pub account: Account,
    /// What the kernel dropped before us: it found the receive buffer full, as a rule.
    pub kernel_drops: u64,
    /// Receive calls that failed and were tried again.
    pub receive_errors: u64,
    /// The receive buffer that the kernel granted, in bytes, the smallest of all workers' sockets.
    #[serde(default)]
    pub receive_buffer_bytes: u64,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// Its name.
    pub route: String,
    /// Handled are the datagrams that at least one of its handlers has handled.
    #[serde(flatten)]
    pub account: Account,
}

/// A handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerRow {
    /// Its name.
    pub handler: String,
    /// The name of its kind.
    pub kind: String,
    /// What its routes gave it.
    #[serde(flatten)]
    pub account: Account,
    /// Datagrams that it caused to be sent and that the kernel took.
    pub sent: u64,
    /// Datagrams that the kernel refused to send, by errno.
    pub failed: BTreeMap<String, u64>,
    /// Errors that came back (ICMP) for what was sent, by errno.
    pub reported: BTreeMap<String, u64>,
    /// What its upstreams answered; handled is what was passed on to a client.
    pub replies: Account,
    /// Its sessions.
    pub sessions: SessionsRow,
}

/// An account of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsRow {
    /// Open now.
    pub open: u64,
    /// Open now, and never answered yet.
    #[serde(alias = "on_probation")]
    pub unreplied: u64,
    /// Ever begun.
    pub opened: u64,
    /// Ended for want of traffic.
    pub idle: u64,
    /// Ended without an answer.
    pub unanswered: u64,
    /// Ended because all was answered.
    pub complete: u64,
    /// Ended while unreplied, to make room for another.
    #[serde(alias = "displaced")]
    pub evicted: u64,
    /// Ended because the way to the upstream was lost, or the upstream died.
    pub broken: u64,
    /// Begun under another handler that a reload has replaced, and gone on with here.
    #[serde(default)]
    pub inherited: u64,
    /// Gone on with under another handler.
    #[serde(default)]
    pub left: u64,
    /// Datagrams passed on without a way back, since their sender must not be answered.
    pub one_way: u64,
    /// Source ports that are open: leased, resting or spare.
    pub ports: u64,
}

impl From<&SessionCount> for SessionsRow {
    fn from(count: &SessionCount) -> SessionsRow {
        SessionsRow {
            open: count.open,
            unreplied: count.unreplied,
            opened: count.opened,
            idle: count.idle,
            unanswered: count.unanswered,
            complete: count.complete,
            evicted: count.evicted,
            broken: count.broken,
            inherited: count.inherited,
            left: count.left,
            one_way: count.one_way,
            ports: count.ports,
        }
    }
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRow {
    /// The name of its handler.
    pub handler: String,
    /// As the file names it, with its port.
    pub upstream: String,
    /// Where it is now; absent while its name has no address.
    pub address: Option<String>,
    /// Whether it is thought to answer: by its probes, or by what comes back to the workers.
    pub alive: bool,
    /// How many workers think it dead by what comes back.
    pub dead_in_workers: u32,
    /// Whether it gets nothing new, by the file or by hand.
    pub draining: bool,
    /// Whether that was asked for by hand.
    pub drained_by_hand: bool,
    /// Why a probe last failed, if one did.
    pub last_failure: Option<ProbeFailureRow>,
    /// Sessions that it holds now.
    pub sessions: u64,
    /// Datagrams that the kernel took for it.
    pub sent: u64,
    /// Datagrams for it that the kernel refused to send, by errno.
    pub failed: BTreeMap<String, u64>,
    /// Errors that came back from it (ICMP), by errno.
    pub reported: BTreeMap<String, u64>,
    /// Datagrams that it did not get although it was picked: not in its sample, above its rate.
    pub skipped: u64,
    /// Datagrams that it answered.
    pub replies: u64,
    /// Answers that the kernel dropped before us.
    pub kernel_drops: u64,
    /// Of one that only shadows, how its answers compare.
    pub shadow: Option<ShadowRow>,
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailureRow {
    /// When, in unix seconds.
    pub at: u64,
    /// What happened, in words.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

/// Answers of a shadow against those that clients got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRow {
    /// The same.
    pub same: u64,
    /// Different.
    pub different: u64,
    /// Never came.
    pub missing: u64,
}

/// The accounts of the control socket and of the TCP listener. What is refused has a limit that refuses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRow {
    /// Connections now.
    pub connections: u64,
    /// Viewers of the live page and `top` now.
    pub viewers: u64,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Times that a connection could not be accepted, as a rule since no more files may be open; each is tried again.
    pub failed_accepts: u64,
    /// Requests ever answered.
    pub requests: u64,
    /// Connections closed at once: there were as many as there may be.
    pub refused_connections: u64,
    /// Requests with a `Host` that is not allowed.
    pub refused_hosts: u64,
    /// Requests over TCP that would change something.
    pub refused_methods: u64,
    /// Requests that were too large, too slow, or no HTTP.
    pub refused_requests: u64,
    /// Viewers beyond as many as there may be.
    pub refused_viewers: u64,
    /// Requests while too many others waited for the supervisor.
    pub refused_busy: u64,
}
