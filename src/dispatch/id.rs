//! The numbers of routes, handlers, upstreams, upstream sockets and listeners.

use serde::{Deserialize, Serialize};

use crate::number;

/// The number of a route: its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteId(pub u32);

impl RouteId {
    /// Returns the number of the route at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> RouteId {
        RouteId(number::to_u32(index))
    }

    /// Returns the place of the route in its list.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a handler: its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandlerId(pub u32);

impl HandlerId {
    /// Returns the number of the handler at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> HandlerId {
        HandlerId(number::to_u32(index))
    }

    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of an upstream. Upstreams are counted through all handlers, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpstreamId(pub u32);

impl UpstreamId {
    /// Returns the number of the upstream at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> UpstreamId {
        UpstreamId(number::to_u32(index))
    }

    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of an upstream socket in its worker. Either a handler owns the socket, or a session leases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamSocketId(pub u32);

impl UpstreamSocketId {
    /// Returns the number for this place. Source ports and open files allow a worker fewer than 2³² sockets.
    pub fn new(index: usize) -> UpstreamSocketId {
        UpstreamSocketId(number::to_u32(index))
    }

    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a listener in the plan, which counts the listeners of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerId(u32);

impl ListenerId {
    /// Returns the number of the listener at this place of the plan's list. The list has fewer than 2³² places.
    pub fn new(index: usize) -> ListenerId {
        ListenerId(number::to_u32(index))
    }

    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a listener within its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalListener(u32);

impl LocalListener {
    /// Stands for the listener of a call that no received datagram has caused.
    pub const NONE: LocalListener = LocalListener(u32::MAX);

    /// Returns the number of the listener at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> LocalListener {
        LocalListener(number::to_u32(index))
    }

    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
