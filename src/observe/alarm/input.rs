//! An alarm, and what alarms are found in.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::Expectation;
use crate::observe::snapshot::rows::{ListenerRow, UpstreamRow};

/// Something that stands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What kind it is, one of a closed set: `upstream_dead`, `kernel_drops`, `route_silent`, `source_silent`, `overlap`,
    /// `interface_gone`.
    pub name: String,
    /// What it is about, by its name in the configuration. With `name` it tells an alarm from all others.
    pub about: String,
    /// Since when, in unix seconds.
    pub since: u64,
    /// What is the matter, as a sentence.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

/// What alarms are found in.
pub struct AlarmInput<'a> {
    /// The listeners' accounts, and what is known of their sockets.
    pub listeners: Vec<(&'a ListenerRow, Sockets)>,
    /// The upstreams.
    pub upstreams: &'a [UpstreamRow],
    /// What must not fall silent.
    pub expected: Vec<ExpectedTraffic<'a>>,
    /// What time it is.
    pub now: Instant,
    /// The same in unix seconds.
    pub now_unix: u64,
}

/// What is known of a listener's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// The receive buffer that the file asks for, in bytes.
    pub asked: u64,
    /// How many workers read it.
    pub readers: usize,
    /// How many there could be, one for each processor.
    pub processors: usize,
    /// Whether further workers would read it too.
    pub is_spread: bool,
}

/// Something that must not fall silent.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedTraffic<'a> {
    /// The name of its route.
    pub route: &'a str,
    /// What is expected.
    pub expectation: &'a Expectation,
    /// What its route has received.
    pub received: u64,
    /// When the workers last heard its source, where they look for that, and ever did.
    pub heard: Option<Instant>,
}
