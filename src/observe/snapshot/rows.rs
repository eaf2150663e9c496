//! The rows of a snapshot: the ledger's counters with their names, in the form that views need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::errnos;
use crate::dispatch::counters::ErrnoCounts;
use crate::dispatch::ledger::{
    HandlerCounters, ListenerCounters, SessionCount, ShadowCounts, Tally, UpstreamCounters,
};
use crate::dispatch::verdict::DropReason;

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
    /// The counters of the listener, as in the ledger.
    #[serde(flatten)]
    pub counters: ListenerCounters,
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
    /// The counters of the handler, as in the ledger.
    #[serde(flatten)]
    pub counters: HandlerCounters,
    /// Datagrams that the kernel refused to send, by errno.
    #[serde(with = "errnos")]
    pub failed: ErrnoCounts,
    /// ICMP errors returned for datagrams that were sent, by errno.
    #[serde(with = "errnos")]
    pub reported: ErrnoCounts,
    /// Replies of the handler's upstreams. A reply counts as handled when it was passed on to a client.
    pub replies: Account,
    /// The counters of the handler's sessions, as in the ledger.
    pub sessions: SessionCount,
}

/// Why passive health considers an upstream dead.
pub(crate) const PASSIVELY_DEAD: &str = "it refuses datagrams, or has stopped replying";

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
    /// The counters of the upstream, as in the ledger.
    #[serde(flatten)]
    pub counters: UpstreamCounters,
    /// Datagrams for the upstream that the kernel refused to send, by errno.
    #[serde(with = "errnos")]
    pub failed: ErrnoCounts,
    /// ICMP errors returned for the upstream, by errno.
    #[serde(with = "errnos")]
    pub reported: ErrnoCounts,
    /// For a shadow, the results of comparing its replies; null while there are none.
    pub shadow: Option<ShadowCounts>,
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
