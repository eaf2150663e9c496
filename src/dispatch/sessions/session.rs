//! A session, its record, and the key by which it is found.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::link::{Link, NONE};
use crate::dispatch::id::{LocalListener, RouteId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::time::Time;
use crate::number;

/// A session's place in the table. It is valid until the session is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl SessionId {
    /// Returns the session at this place of the table, which has fewer than 2³² places.
    pub fn new(place: usize) -> SessionId {
        SessionId(number::to_u32(place))
    }
}

/// The key of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKey {
    /// The client's address.
    pub client: SocketAddr,
    /// The address of this host that the client sent to. Replies leave from it.
    pub local: SocketAddr,
    /// The route of the client's datagrams. `None` if the configuration no longer has it; the session then only waits
    /// for replies.
    #[serde(serialize_with = "write_route", deserialize_with = "read_route")]
    pub route: Option<RouteId>,
}

/// The number that is saved for a route that is gone. Former versions read and write it, too.
const ROUTE_GONE: u32 = u32::MAX;

fn write_route<S: Serializer>(route: &Option<RouteId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(route.map_or(ROUTE_GONE, |route| route.0))
}

fn read_route<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RouteId>, D::Error> {
    let number = u32::deserialize(deserializer)?;
    Ok((number != ROUTE_GONE).then_some(RouteId(number)))
}

impl Hash for SessionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for address in [&self.client, &self.local] {
            match address {
                SocketAddr::V4(v4) => {
                    state.write_u64(u64::from(v4.ip().to_bits()) << 16 | u64::from(v4.port()));
                }
                SocketAddr::V6(v6) => {
                    state.write_u128(v6.ip().to_bits());
                    state.write_u64(u64::from(v6.scope_id()) << 16 | u64::from(v6.port()));
                }
            }
        }
        state.write_u32(self.route.map_or(ROUTE_GONE, |route| route.0));
    }
}

/// The record of one client's exchange with the upstreams. A handler saves it as it is, for its replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The key by which the session is found.
    #[serde(flatten)]
    pub key: SessionKey,
    /// The listener that received the last request. Replies leave through it.
    #[serde(rename = "ear")]
    pub listener: LocalListener,
    /// The index of the interface that the request arrived on; 0 if it is unknown.
    pub interface: u32,
    /// The time of the last datagram in either direction.
    pub seen: Time,
    /// The TTL with which the last request was passed on, one less than it arrived with.
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
}

/// The part of a session that concerns one upstream. A handler saves it as it is, for its replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRecord {
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

/// An entry of the table: a session, and its places in the lists of the table.
#[derive(Debug)]
pub struct Session {
    pub(super) record: SessionRecord,
    pub(super) wheel: Link,
    pub(super) waiting: Link,
}

impl Session {
    /// Returns whether the session is open. An open session always has a previous neighbour in the wheel. For the first
    /// entry of a slot, the neighbour is the slot itself.
    pub(super) fn is_open(&self) -> bool {
        self.wheel.previous != NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler may have a million sessions. The record takes no more room in the table than its fields do.
    #[test]
    fn a_session_is_small() {
        assert!(
            size_of::<Session>() <= 120,
            "it takes {} bytes",
            size_of::<Session>()
        );
    }
}
