//! Alarms: what stands out now, as state, each with its cause and its cure. An alarm is there as long as its cause; nothing has
//! to be acknowledged. What needs a memory (a counter that rises, or that does not) is remembered here between two snapshots.
//!
//! One file for each cause that the accounts show; what only the host shows is found by `observe/host_watch/`. `journal.rs`
//! writes the log.

mod input;
mod journal;
mod kernel_drops;
mod silence;
mod upstream_dead;

pub use self::input::{Alarm, AlarmInput, ExpectedTraffic, Sockets};
pub use self::journal::Journal;
use self::kernel_drops::KernelDrops;
use self::silence::Silence;
use self::upstream_dead::UpstreamDead;
use crate::observe::snapshot::host::HostCounts;

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
    pub fn alarms(&mut self, input: &AlarmInput<'_>) -> Vec<Alarm> {
        let mut alarms = self.upstream_dead.alarms(input);
        alarms.extend(self.kernel_drops.alarms(input));
        alarms.extend(self.silence.alarms(input));
        alarms
    }
}
