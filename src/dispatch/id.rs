//! The numbers by which routes and handlers are known: their places in the configuration.

use serde::{Deserialize, Serialize};

use crate::number;

/// A route's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteId(pub u32);

impl RouteId {
    /// Returns the number of the route at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> RouteId {
        RouteId(number::to_u32(index))
    }
}

/// A handler's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandlerId(pub u32);

impl HandlerId {
    /// Returns the number of the handler at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> HandlerId {
        HandlerId(number::to_u32(index))
    }

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An upstream's number: handlers in the order of the file, and in each its upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpstreamId(pub u32);

impl UpstreamId {
    /// Returns the number of the upstream at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> UpstreamId {
        UpstreamId(number::to_u32(index))
    }

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A listener's number in its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalListener(pub u32);

impl LocalListener {
    /// Returns the number of the listener at this place of its list. The lists have fewer than 2³² places.
    pub fn new(index: usize) -> LocalListener {
        LocalListener(number::to_u32(index))
    }

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
