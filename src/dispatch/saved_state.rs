//! The state that a handler saves for its replacement when a configuration or a process is replaced. It is plain
//! data, so that it can be sent to another process. Sockets are numbers here, as everywhere in this room. The control
//! plane transfers the sockets, and replaces the old numbers by those of the new configuration.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::id::LocalListener;
use super::outbox::UpstreamSocketId;
use super::passive_health::PassiveHealth;
use super::route_table::RouteId;
use super::time::Time;

/// The saved state of one handler of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The position of the round robin among the upstreams.
    pub turn: u64,
    /// The state of each upstream, in the order of the file.
    pub upstreams: Vec<SavedUpstream>,
    /// The open sessions.
    pub sessions: Vec<SavedSession>,
    /// The source ports that no session leases.
    pub ports: Vec<SavedPort>,
}

/// The saved state of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedUpstream {
    /// The place of the upstream in the handler's list.
    pub place: u16,
    /// Whether the upstream is considered alive.
    pub is_alive: bool,
    /// The passive health of the upstream.
    #[serde(rename = "judge")]
    pub passive_health: PassiveHealth,
    /// The progress of the upstream's sample towards its next datagram.
    pub earned: u32,
}

/// The saved state of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// The client's address.
    pub client: SocketAddr,
    /// The address of this host that the client sent to.
    pub local: SocketAddr,
    /// The route of the session; `None` if the new configuration does not have it.
    pub route: Option<RouteId>,
    /// The listener that received the session's datagrams.
    #[serde(rename = "ear")]
    pub listener: LocalListener,
    /// The index of the interface that received them; 0 if it is unknown.
    pub interface: u32,
    /// The time of the last datagram in either direction.
    pub seen: Time,
    /// The TTL with which the last request was passed on.
    pub ttl: Option<u8>,
    /// The number of datagrams from the client.
    pub requests: u32,
    /// The number of datagrams to the client.
    pub replies: u32,
    /// The place of the upstream that replied first since the last request.
    pub winner: Option<u16>,
    /// Whether the session has had a reply.
    #[serde(rename = "is_answered")]
    pub is_assured: bool,
    /// Whether the client's next datagram belongs to the session.
    pub is_bound: bool,
    /// The session's legs: one for each upstream that it uses.
    pub legs: Vec<SavedLeg>,
}

/// The part of a session that concerns one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLeg {
    /// The place of the upstream in the handler's list.
    pub place: u16,
    /// The socket, if the session has one of its own.
    #[serde(rename = "lane")]
    pub socket: Option<UpstreamSocketId>,
    /// The number of datagrams that were sent on it.
    #[serde(rename = "asked")]
    pub requests: u32,
    /// The number of datagrams that came back.
    #[serde(rename = "answered")]
    pub replies: u32,
    /// Whether the socket must not be leased again after the session ends.
    pub is_spoilt: bool,
}

/// A source port in quarantine or idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// The place of the upstream that the port leads to.
    pub place: u16,
    /// The socket that is bound to the port.
    #[serde(rename = "lane")]
    pub socket: UpstreamSocketId,
    /// The end of the quarantine.
    pub until: Time,
    /// The time at which the session released the port.
    pub released: Time,
    /// Whether a reply is outstanding.
    #[serde(rename = "is_owed")]
    pub has_outstanding: bool,
}

impl SavedState {
    /// Returns whether the state refers to any socket.
    pub fn has_sockets(&self) -> bool {
        !self.ports.is_empty()
            || self
                .sessions
                .iter()
                .any(|session| session.legs.iter().any(|leg| leg.socket.is_some()))
    }
}
