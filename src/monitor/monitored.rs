//! A monitored upstream, its state, and the news about it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::upstream::{ProbeSettings, Upstream, UpstreamHost};
use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::monitor::health::ProbeFailure;

/// An upstream to monitor. Its number is its position in the list.
#[derive(Debug, Clone)]
pub struct MonitoredUpstream {
    /// The name of the handler.
    pub handler: String,
    /// The upstream as the file defines it.
    pub upstream: Upstream,
    /// Index of the interface that datagrams leave through; 0 leaves the choice to the kernel.
    pub interface: u32,
    /// The state in which its monitoring begins.
    pub state: UpstreamState,
    /// The settings of its probes; `None` if it is not probed.
    pub probe: Option<Arc<ProbeSettings>>,
    /// Time between two resolutions of its name. If zero, the name is not resolved again once it has an address.
    pub resolve_interval: Duration,
}

impl MonitoredUpstream {
    /// Returns the name, if it may resolve to another address. An upstream whose interface is missing is excluded,
    /// since another address does not help it.
    pub(super) fn name(&self) -> Option<&str> {
        let misses_interface = self.upstream.egress.interface.is_some() && self.interface == 0;
        match &self.upstream.host {
            UpstreamHost::Name(name) if !misses_interface => Some(name),
            _ => None,
        }
    }
}

/// Resolves a name.
pub type NameLookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What the monitor needs from its environment. A test replaces it.
pub struct Outside {
    /// Sends an event to every worker.
    pub notify: Box<dyn FnMut(UpstreamId, UpstreamEvent) + Send>,
    /// Resolves a name; may block. The ports of the returned addresses have no meaning.
    pub look_up: Arc<NameLookup>,
    /// Checks whether an upstream may move to an address. The error describes what the move would cause, as in
    /// "which would close …".
    pub permit: Box<dyn FnMut(UpstreamId, SocketAddr) -> Result<(), String> + Send>,
}

/// The state of one upstream, for views and for a process that takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamState {
    /// The current address; `None` if its name was never resolved.
    pub address: Option<SocketAddr>,
    /// Whether the upstream is considered alive; always true if it is not probed.
    #[serde(rename = "is_alive")]
    pub alive: bool,
    /// When the address or the health last changed in this process.
    #[serde(skip)]
    pub changed: Option<Instant>,
    /// When a probe of this process last failed, and why.
    #[serde(skip)]
    pub failed: Option<(Instant, ProbeFailure)>,
}

impl UpstreamState {
    /// Returns the state of an upstream that no probe has found dead.
    pub fn new(address: Option<SocketAddr>) -> UpstreamState {
        UpstreamState {
            address,
            alive: true,
            changed: None,
            failed: None,
        }
    }
}

/// A change to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// An event for the workers.
    UpstreamEvent(UpstreamId, UpstreamEvent),
    /// A failed probe, for the views.
    Failed(UpstreamId, ProbeFailure),
    /// A line for the log.
    Log(log::Level, String),
}
