//! The numbers by which routes and handlers are known: their places in the configuration.

use serde::{Deserialize, Serialize};

/// A route's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteId(pub u32);

/// A handler's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandlerId(pub u32);

impl HandlerId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An upstream's number: handlers in the order of the file, and in each its upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpstreamId(pub u32);

impl UpstreamId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A listener's number in its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalListener(pub u32);

impl LocalListener {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
