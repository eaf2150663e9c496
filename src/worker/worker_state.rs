//! The state that a parked worker exports to the workers of the next configuration or process. It holds the ledger, the
//! saved states of the handlers, and the states of the sockets. All of it is plain data; the sockets themselves are
//! passed beside it, in the same order.

use std::net::UdpSocket;

use serde::{Deserialize, Serialize};

use super::send_socket::Sticky;
use crate::dispatch::id::{ListenerId, UpstreamId, UpstreamSocketId};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::saved_state::SavedState;
use crate::dispatch::sink::SinkCounts;

/// Identifies one socket among those of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketSlot {
    /// The number of the listener in the plan.
    pub listener: ListenerId,
    /// The index among the sockets that share the listener's address.
    pub index: usize,
}

/// The exported state of a listener's socket, in the order of the worker's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerState {
    /// The slot of the socket in the configuration.
    #[serde(rename = "seat")]
    pub slot: SocketSlot,
    /// The kernel's drop counter when it was last read.
    pub drops_seen: u32,
    /// The options that were set on the socket during use.
    pub sticky: Sticky,
}

/// The exported state of a socket to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamSocketState {
    /// The id of the socket in the worker that exports it.
    #[serde(rename = "lane")]
    pub socket: UpstreamSocketId,
    /// The number of the upstream in the exporting configuration.
    pub upstream: UpstreamId,
    /// Whether the socket belongs to a session and receives; otherwise it is a one-way socket.
    pub is_leased: bool,
    /// The kernel's drop counter when it was last read.
    pub drops_seen: u32,
    /// The options that were set on the socket during use.
    pub sticky: Sticky,
}

/// The exported state of one worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerState {
    /// The exported states of the listeners' sockets.
    #[serde(rename = "ears")]
    pub listeners: Vec<ListenerState>,
    /// The exported states of the sockets to upstreams.
    #[serde(rename = "lanes")]
    pub upstream_sockets: Vec<UpstreamSocketState>,
    /// The saved states of the handlers, by number.
    #[serde(rename = "legacies")]
    pub saved_states: Vec<SavedState>,
    /// The ledger of the worker, in which everything that sinks received counts as handled.
    pub ledger: Ledger,
    /// For each handler with a sink, its number and the counters of the sink.
    #[serde(skip)]
    pub sink_counts: Vec<(usize, SinkCounts)>,
    /// The sockets of `upstream_sockets`, in their order.
    #[serde(skip)]
    pub sockets: Vec<UdpSocket>,
}
