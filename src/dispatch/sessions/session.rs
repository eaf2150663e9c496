//! One session, and what it is found by.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use super::link::Link;
use crate::dispatch::id::LocalListener;
use crate::dispatch::route_table::RouteId;
use crate::dispatch::time::Time;
use crate::number;

/// A session's place in the table. Valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl SessionId {
    /// Returns the session at this place of the table, which has fewer than 2³² places.
    pub fn new(place: usize) -> SessionId {
        SessionId(number::to_u32(place))
    }
}

/// Whom a session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// The client.
    pub client: SocketAddr,
    /// The address of ours that it asked, and that answers leave from.
    pub local: SocketAddr,
    /// The route that brought it here.
    pub route: RouteId,
}

impl Hash for SessionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for address in [&self.client, &self.local] {
            match address {
                SocketAddr::V4(v4) => {
                    state.write_u64(u64::from(v4.ip().to_bits()) << 16 | u64::from(v4.port()))
                }
                SocketAddr::V6(v6) => {
                    state.write_u128(v6.ip().to_bits());
                    state.write_u64(u64::from(v6.scope_id()) << 16 | u64::from(v6.port()));
                }
            }
        }
        state.write_u32(self.route.0);
    }
}

/// One client's conversation with the upstreams.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose it is.
    pub key: SessionKey,
    /// The listener that its last request came in by and that its answers leave through.
    pub listener: LocalListener,
    /// The interface that it came in by, 0 where unknown.
    pub interface: u32,
    /// When the last datagram passed, either way.
    pub seen: Time,
    /// The TTL that its last request was passed on with, one less than it arrived with.
    pub ttl: Option<u8>,
    /// Datagrams from the client.
    pub requests: u32,
    /// Datagrams to the client.
    pub replies: u32,
    /// The upstream that has answered first since the last request.
    pub winner: Option<u16>,
    /// Whether it ever got an answer.
    pub is_assured: bool,
    /// Whether the client's next datagram belongs to it.
    pub(super) is_bound: bool,
    pub(super) is_open: bool,
    pub(super) wheel: Link,
    pub(super) waiting: Link,
}
