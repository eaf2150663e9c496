//! What a handler leaves to the one that takes its place when a configuration or a process is replaced: plain data, so that it
//! can go to another process. Sockets are numbers here, as everywhere in this room; the control plane moves them, and
//! puts the numbers of the new configuration in place of the old ones.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::id::LocalListener;
use super::outbox::UpstreamSocketId;
use super::passive_health::PassiveHealth;
use super::route_table::RouteId;
use super::time::Time;

/// Everything that one handler of one worker leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// Whose turn it is among the upstreams.
    pub turn: u64,
    /// What is thought of each upstream, in the order of the file.
    pub upstreams: Vec<SavedUpstream>,
    /// The sessions that are open.
    pub sessions: Vec<SavedSession>,
    /// Source ports that no session has.
    pub ports: Vec<SavedPort>,
}

/// What is thought of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedUpstream {
    /// Its place in the handler's list.
    pub place: u16,
    /// Whether it is thought to answer.
    pub is_alive: bool,
    /// By what comes back.
    #[serde(rename = "judge")]
    pub passive_health: PassiveHealth,
    /// How near the next datagram of its sample is.
    pub earned: u32,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// The client.
    pub client: SocketAddr,
    /// The address of ours that it asked.
    pub local: SocketAddr,
    /// The route that brought it; `None` where there is none any more.
    pub route: Option<RouteId>,
    /// The listener that it came in by.
    #[serde(rename = "ear")]
    pub listener: LocalListener,
    /// The interface that it came in by, 0 where unknown.
    pub interface: u32,
    /// When the last datagram passed, either way.
    pub seen: Time,
    /// The TTL that its last request was passed on with.
    pub ttl: Option<u8>,
    /// Datagrams from the client.
    pub requests: u32,
    /// Datagrams to the client.
    pub replies: u32,
    /// The place of the upstream that has answered first since the last request.
    pub winner: Option<u16>,
    /// Whether it ever got an answer.
    #[serde(rename = "is_answered")]
    pub is_assured: bool,
    /// Whether the client's next datagram belongs to it.
    pub is_bound: bool,
    /// Its ways to upstreams.
    pub legs: Vec<SavedLeg>,
}

/// One way of a session to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLeg {
    /// The upstream's place in the handler's list.
    pub place: u16,
    /// The socket, where the session has one of its own.
    #[serde(rename = "lane")]
    pub socket: Option<UpstreamSocketId>,
    /// Datagrams that went out on it.
    #[serde(rename = "asked")]
    pub requests: u32,
    /// Datagrams that came back.
    #[serde(rename = "answered")]
    pub replies: u32,
    /// Not to be leased again when the session ends.
    pub is_spoilt: bool,
}

/// A source port in quarantine, or idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// The place of the upstream that it leads to.
    pub place: u16,
    /// The socket.
    #[serde(rename = "lane")]
    pub socket: UpstreamSocketId,
    /// Until when it is in quarantine.
    pub until: Time,
    /// When its session gave it back.
    pub released: Time,
    /// Whether an answer may still come.
    #[serde(rename = "is_owed")]
    pub has_outstanding: bool,
}

impl SavedState {
    /// Whether there is no socket in it.
    pub fn has_sockets(&self) -> bool {
        !self.ports.is_empty()
            || self
                .sessions
                .iter()
                .any(|session| session.legs.iter().any(|leg| leg.socket.is_some()))
    }
}
