//! The rows of a snapshot: the ledger's counters with their names, in the form that views need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dispatch::ledger::{SessionCount, Tally};
use crate::dispatch::verdict::DropReason;
use crate::net::errno;

/// One account in datagrams: received = handled + dropped + in flight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams handled.
    pub handled: u64,
    /// Datagrams dropped, for any reason.
    pub dropped: u64,
    /// Datagrams that wait in a sink.
    pub in_flight: u64,
    /// Dropped datagrams by reason. Reasons with a count of 0 are left out.
    pub drops: BTreeMap<String, u64>,
}

impl Account {
    /// Returns the number of datagrams dropped for one reason.
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

/// Returns the counts by the name of the errno.
pub(crate) fn by_errno(counts: &[(i32, u64)]) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    for (number, datagrams) in counts {
        *named.entry(errno::label(*number)).or_default() += datagrams;
    }
    named
}

/// A worker thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Index of the worker, from 0. The thread is named `worker-N`.
    pub worker: usize,
    /// Whether the worker responded when the snapshot was taken. Otherwise the row shows its last response.
    #[serde(alias = "answers")]
    pub responsive: bool,
    /// Datagrams that its receive calls returned.
    #[serde(flatten)]
    pub account: Account,
}

/// An address and port that the daemon receives on, with one socket, or one in each worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRow {
    /// The address and port; for a group also the interface.
    pub listener: String,
    /// Datagrams that its receive calls returned.
    #[serde(flatten)]
    pub account: Account,
    /// Datagrams that the kernel dropped before the daemon read them, usually because the receive buffer was full.
    pub kernel_drops: u64,
    /// Receive calls that failed and were retried.
    pub receive_errors: u64,
    /// The receive buffer that the kernel granted, in bytes; the smallest of all workers' sockets.
    #[serde(default)]
    pub receive_buffer_bytes: u64,
}

/// The account of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// The name of the route.
    pub route: String,
    /// The datagrams of the route. A datagram counts as handled if at least one handler of the route handled it.
    #[serde(flatten)]
    pub account: Account,
}

/// The account of a handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerRow {
    /// The name of the handler.
    pub handler: String,
    /// The name of the handler's kind.
    pub kind: String,
    /// The datagrams that its routes gave to the handler.
    #[serde(flatten)]
    pub account: Account,
    /// Datagrams that the handler caused to be sent and that the kernel accepted.
    pub sent: u64,
    /// Datagrams that the kernel refused to send, by errno.
    pub failed: BTreeMap<String, u64>,
    /// ICMP errors returned for datagrams that were sent, by errno.
    pub reported: BTreeMap<String, u64>,
    /// Replies of the handler's upstreams. A reply counts as handled when it was passed on to a client.
    pub replies: Account,
    /// The sessions of the handler.
    pub sessions: SessionsRow,
}

/// Counters of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsRow {
    /// Sessions that are open now.
    pub open: u64,
    /// Sessions that are open now and have had no reply yet.
    #[serde(alias = "on_probation")]
    pub unreplied: u64,
    /// Sessions ever opened.
    pub opened: u64,
    /// Sessions ended because they were idle.
    pub idle: u64,
    /// Sessions ended without any reply.
    pub unanswered: u64,
    /// Sessions ended because all requests had been replied to.
    pub complete: u64,
    /// Sessions ended while unreplied, to make room for another.
    #[serde(alias = "displaced")]
    pub evicted: u64,
    /// Sessions ended because the route to the upstream was lost or the upstream died.
    pub broken: u64,
    /// Sessions opened under a previous handler that a reload replaced, and continued here.
    #[serde(default)]
    pub inherited: u64,
    /// Sessions that continued under another handler.
    #[serde(default)]
    pub left: u64,
    /// Datagrams forwarded without a session, since the reply policy forbids replies to their sender.
    pub one_way: u64,
    /// Source ports that are open: leased, in quarantine, or spare.
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

/// The account and state of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRow {
    /// The name of the handler.
    pub handler: String,
    /// The upstream as the file names it, with its port.
    pub upstream: String,
    /// The current address; absent while the name does not resolve.
    pub address: Option<String>,
    /// Whether the upstream is considered alive, by its probes or by passive health.
    pub alive: bool,
    /// Number of workers that consider the upstream dead by passive health.
    pub dead_in_workers: u32,
    /// Whether the upstream is drained, by the file or by command, and receives no new sessions.
    pub draining: bool,
    /// Whether the drain was requested by command.
    pub drained_by_hand: bool,
    /// The last failure of a probe, if any failed.
    pub last_failure: Option<ProbeFailureRow>,
    /// Sessions that use the upstream now.
    pub sessions: u64,
    /// Datagrams for the upstream that the kernel accepted.
    pub sent: u64,
    /// Datagrams for the upstream that the kernel refused to send, by errno.
    pub failed: BTreeMap<String, u64>,
    /// ICMP errors returned for the upstream, by errno.
    pub reported: BTreeMap<String, u64>,
    /// Datagrams not sent to the upstream although it was picked: outside its sample, or above its rate.
    pub skipped: u64,
    /// Replies received from the upstream.
    pub replies: u64,
    /// Replies that the kernel dropped before the daemon read them.
    pub kernel_drops: u64,
    /// For a shadow, the result of comparing its replies; absent for other upstreams.
    pub shadow: Option<ShadowRow>,
}

/// The failure of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailureRow {
    /// The time of the failure, in unix seconds.
    pub at: u64,
    /// A description of the failure.
    pub text: String,
    /// What to do about the failure.
    pub cure: String,
}

/// Replies of a shadow compared with those that clients received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRow {
    /// Replies that were the same.
    pub same: u64,
    /// Replies that were different.
    pub different: u64,
    /// Replies that never came.
    pub missing: u64,
}

/// The accounts of the control socket and of the TCP listener. Each `refused` counter belongs to one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRow {
    /// Connections that are open now.
    pub connections: u64,
    /// Viewers of the live page and of `top` now.
    pub viewers: u64,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Failures to accept a connection, usually because the process has no descriptor left. Each is retried.
    pub failed_accepts: u64,
    /// Requests ever responded to.
    pub requests: u64,
    /// Connections closed at once because the maximum number was open.
    pub refused_connections: u64,
    /// Requests refused because their `Host` is not allowed.
    pub refused_hosts: u64,
    /// Requests over TCP refused because they would change something.
    pub refused_methods: u64,
    /// Requests refused because they were too large, too slow, or not HTTP.
    pub refused_requests: u64,
    /// Viewers refused because the maximum number was connected.
    pub refused_viewers: u64,
    /// Requests refused because too many others waited for the supervisor.
    pub refused_busy: u64,
}
