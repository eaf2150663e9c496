//! What a worker that has been parked leaves to the workers of the next configuration, or of the next process: accounts, what
//! its handlers leave, and what is known of its sockets. Plain data; the sockets themselves go beside it, in the same order.

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::send_socket::Sticky;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::SavedState;
use crate::dispatch::sink::SinkCounts;

/// Which of the sockets of a configuration one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketSlot {
    /// The listener's number.
    pub listener: usize,
    /// Which of the sockets that share its address.
    pub index: usize,
}

/// What is known of a listener's socket, in the order of the worker's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerState {
    /// Which one it is.
    #[serde(rename = "seat")]
    pub slot: SocketSlot,
    /// The kernel's drop counter when it was last read.
    pub drops_seen: u32,
    /// What was set on it while it was used.
    pub sticky: Sticky,
}

/// What is known of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamSocketState {
    /// Its number in the worker that leaves it.
    #[serde(rename = "lane")]
    pub socket: UpstreamSocketId,
    /// Where it leads.
    pub upstream: UpstreamId,
    /// Whether it receives; otherwise it was there from the start, one way.
    pub is_leased: bool,
    /// The kernel's drop counter when it was last read.
    pub drops_seen: u32,
    /// What was set on it while it was used.
    pub sticky: Sticky,
}

/// Everything that one worker leaves.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerState {
    /// Its listeners.
    #[serde(rename = "ears")]
    pub listeners: Vec<ListenerState>,
    /// Its ways to upstreams.
    #[serde(rename = "lanes")]
    pub upstream_sockets: Vec<UpstreamSocketState>,
    /// What each handler leaves, by number.
    #[serde(rename = "legacies")]
    pub saved_states: Vec<SavedState>,
    /// Its accounts, in which what sinks have got counts as handled.
    pub ledger: Ledger,
    /// Of each handler with a sink: its number, and how to ask what became of what the sink holds.
    #[serde(skip)]
    pub sink_counts: Vec<(usize, SinkCounts)>,
    /// The sockets of `upstream_sockets`, in their order.
    #[serde(skip)]
    pub sockets: Vec<UdpSocket>,
}

impl WorkerState {
    /// The sockets to its upstreams.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }
}
