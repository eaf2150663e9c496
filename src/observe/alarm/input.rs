//! The type of an alarm, and the data that alarms are derived from.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::Expectation;
use crate::observe::snapshot::rows::{ListenerRow, UpstreamRow};

/// A condition that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The type of alarm, from a closed set: `upstream_dead`, `kernel_drops`, `route_silent`, `source_silent`,
    /// `overlap`, `interface_gone`.
    pub name: String,
    /// The object concerned, by its name in the configuration. `name` and `about` together identify an alarm.
    pub about: String,
    /// The time at which the alarm began, in unix seconds.
    pub since: u64,
    /// A sentence that describes the condition.
    pub text: String,
    /// A sentence that says what to do about the condition.
    pub cure: String,
}

/// The data that alarms are derived from.
pub struct AlarmInput<'a> {
    /// The accounts of the listeners, and the state of their sockets.
    pub listeners: Vec<(&'a ListenerRow, Sockets)>,
    /// The upstreams of all handlers.
    pub upstreams: &'a [UpstreamRow],
    /// The traffic that the configuration expects.
    pub expected: Vec<ExpectedTraffic<'a>>,
    /// The current time.
    pub now: Instant,
    /// The current time in unix seconds.
    pub now_unix: u64,
}

/// The state of a listener's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// The size of the receive buffer that the file requests, in bytes.
    pub requested: u64,
    /// The number of workers that read the listener.
    pub readers: usize,
    /// The number of processors, which is the largest useful number of workers.
    pub processors: usize,
    /// Whether additional workers would also read this listener.
    pub is_spread: bool,
}

/// Traffic that the configuration expects on a route.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedTraffic<'a> {
    /// The name of the route.
    pub route: &'a str,
    /// The expectation, as the file states it.
    pub expectation: &'a Expectation,
    /// The number of datagrams that the route has received.
    pub received: u64,
    /// When the workers last received a datagram from the expected source. `None` if no source is expected, or none
    /// came yet.
    pub last_received: Option<Instant>,
}
