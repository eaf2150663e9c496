//! Events of upstreams that the control plane sends to the workers while they run.

use std::net::SocketAddr;

/// A change of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// The upstream replies to its probes, or no longer does.
    Alive(bool),
    /// The upstream starts to drain (`true`), or gets new datagrams again.
    Drain(bool),
    /// The upstream has a new address. New sessions use it, and old sessions end at the old address.
    Moved(SocketAddr),
}
