//! One upstream that is looked after, what is known of it, and how news about it goes out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::upstream::{Host, Probe, Upstream};
use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;
use crate::monitor::health::Failure;

/// An upstream to be looked after; its number is its place in the list.
#[derive(Debug, Clone)]
pub struct Ward {
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
    pub probe: Option<Arc<Probe>>,
    /// How often its name is resolved again; zero: never, once it has an address.
    pub resolve_interval: Duration,
}

impl Ward {
    /// The name that may come to mean another address. An upstream that misses its interface is not helped by one.
    pub(super) fn name(&self) -> Option<&str> {
        let misses_interface = self.upstream.leave.interface.is_some() && self.interface == 0;
        match &self.upstream.host {
            Host::Name(name) if !misses_interface => Some(name),
            _ => None,
        }
    }
}

/// Looks a name up.
pub type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The outside world, which a test replaces.
pub struct Outside {
    /// Tells every worker.
    pub tell: Box<dyn FnMut(UpstreamId, Change) + Send>,
    /// May block. The ports of the answers mean nothing.
    pub look_up: Arc<LookUp>,
    /// Says whether an upstream may move there, or what would come of it, as in "which would close …".
    pub permit: Box<dyn FnMut(UpstreamId, SocketAddr) -> Result<(), String> + Send>,
}

/// What is known of one upstream, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Whether it is thought to answer. Those that are not probed are.
    pub alive: bool,
    /// When one of the two last changed.
    pub changed: Option<Instant>,
    /// When a probe last failed, and why.
    pub failed: Option<(Instant, Failure)>,
}

impl State {
    /// As it begins.
    pub(super) fn of(ward: &Ward) -> State {
        State {
            address: ward.address,
            alive: ward.is_alive,
            changed: None,
            failed: None,
        }
    }
}

/// Something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// For the workers.
    Change(UpstreamId, Change),
    /// For the views.
    Failed(UpstreamId, Failure),
    /// For the log.
    Say(log::Level, String),
}
