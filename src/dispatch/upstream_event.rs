//! News about an upstream that the control plane sends to the workers while they run.

use std::net::SocketAddr;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// It answers its probes, or does not any more.
    Alive(bool),
    /// It gets nothing new any more, or does again.
    Drain(bool),
    /// It is at this address now: what is new goes there, old sessions end where they are.
    Moved(SocketAddr),
}
