//! One upstream that is looked after, what is known of it, and how news about it goes out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::upstream::{ProbeSettings, Upstream, UpstreamHost};
use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::monitor::health::ProbeFailure;

/// An upstream to be looked after; its number is its place in the list.
#[derive(Debug, Clone)]
pub struct MonitoredUpstream {
    /// The handler's name.
    pub handler: String,
    /// What the file says of it.
    pub upstream: Upstream,
    /// Where it is, if that is known.
    pub address: Option<SocketAddr>,
    /// Index of the interface that datagrams leave through; 0: the kernel's choice.
    pub interface: u32,
    /// Whether it is thought to live when its upkeep begins.
    pub is_alive: bool,
    /// How it is asked whether it lives.
    pub probe: Option<Arc<ProbeSettings>>,
    /// How often its name is resolved again; zero: never, once it has an address.
    pub resolve_interval: Duration,
}

impl MonitoredUpstream {
    /// The name that may come to mean another address. An upstream that misses its interface is not helped by one.
    pub(super) fn name(&self) -> Option<&str> {
        let misses_interface = self.upstream.egress.interface.is_some() && self.interface == 0;
        match &self.upstream.host {
            UpstreamHost::Name(name) if !misses_interface => Some(name),
            _ => None,
        }
    }
}

/// Looks a name up.
pub type NameLookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The outside world, which a test replaces.
pub struct Outside {
    /// Tells every worker.
    pub tell: Box<dyn FnMut(UpstreamId, UpstreamEvent) + Send>,
    /// May block. The ports of the answers mean nothing.
    pub look_up: Arc<NameLookup>,
    /// Says whether an upstream may move there, or what would come of it, as in "which would close …".
    pub permit: Box<dyn FnMut(UpstreamId, SocketAddr) -> Result<(), String> + Send>,
}

/// What is known of one upstream, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamState {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Whether it is thought to answer. Those that are not probed are.
    pub alive: bool,
    /// When one of the two last changed.
    pub changed: Option<Instant>,
    /// When a probe last failed, and why.
    pub failed: Option<(Instant, ProbeFailure)>,
}

impl UpstreamState {
    /// As it begins.
    pub(super) fn of(monitored: &MonitoredUpstream) -> UpstreamState {
        UpstreamState {
            address: monitored.address,
            alive: monitored.is_alive,
            changed: None,
            failed: None,
        }
    }
}

/// Something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// For the workers.
    UpstreamEvent(UpstreamId, UpstreamEvent),
    /// For the views.
    Failed(UpstreamId, ProbeFailure),
    /// For the log.
    Say(log::Level, String),
}
