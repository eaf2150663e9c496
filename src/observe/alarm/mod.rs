//! Alarms: what stands out now, as state, each with its cause and its cure. An alarm is there as long as its cause; nothing has
//! to be acknowledged. What needs a memory (a counter that rises, or that does not) is remembered here between two snapshots.
//!
//! One file for each cause that the accounts show; what only the host shows is found by `control/lookout/`. `journal.rs`
//! writes the log.

mod journal;
mod kernel_drops;
mod silence;
mod upstream_dead;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::journal::Journal;
use self::kernel_drops::KernelDrops;
pub use self::kernel_drops::Sockets;
pub use self::silence::Expected;
use self::silence::Silence;
use self::upstream_dead::UpstreamDead;
use crate::observe::snapshot::host::HostCounts;
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
pub struct Sight<'a> {
    /// The listeners' accounts, and what is known of their sockets.
    pub listeners: Vec<(&'a ListenerRow, Sockets)>,
    /// The upstreams.
    pub upstreams: &'a [UpstreamRow],
    /// What must not fall silent.
    pub expected: Vec<Expected<'a>>,
    /// What time it is.
    pub now: Instant,
    /// The same in unix seconds.
    pub now_unix: u64,
}

/// What is remembered between two snapshots.
#[derive(Debug, Default)]
pub struct Memory {
    kernel_drops: KernelDrops,
    silence: Silence,
    upstream_dead: UpstreamDead,
    /// What the host counted when it was last asked.
    pub(crate) host: HostCounts,
}

impl Memory {
    /// Of a process that goes on with the accounts of another, whose past is no news.
    pub fn inherited() -> Memory {
        Memory {
            kernel_drops: KernelDrops::inherited(),
            ..Memory::default()
        }
    }

    /// The alarms in sight, which have been there since their causes were first seen.
    pub fn alarms(&mut self, sight: &Sight<'_>) -> Vec<Alarm> {
        let mut alarms = self.upstream_dead.alarms(sight);
        alarms.extend(self.kernel_drops.alarms(sight));
        alarms.extend(self.silence.alarms(sight));
        alarms
    }
}
