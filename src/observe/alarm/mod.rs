//! Alarms: conditions that need attention now, each with its cause and its cure. An alarm lasts as long as its cause
//! and needs no acknowledgement. State that is compared between two snapshots, such as counters that rise or stand
//! still, is kept here.
//!
//! Each cause that the accounts show has one file. `observe/host_watch/` finds the causes that only the host shows.
//! `journal.rs` writes the log.

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

/// The state that is kept between two snapshots.
#[derive(Debug, Default)]
pub struct Memory {
    kernel_drops: KernelDrops,
    silence: Silence,
    upstream_dead: UpstreamDead,
    /// The UDP counters of the host when they were last read.
    pub(crate) host: HostCounts,
}

impl Memory {
    /// Returns the state for a process that continues the accounts of another. Past drops of that process raise no
    /// alarm.
    pub fn inherited() -> Memory {
        Memory {
            kernel_drops: KernelDrops::inherited(),
            ..Memory::default()
        }
    }

    /// Returns the current alarms. Each begins when its cause was first seen.
    pub fn alarms(&mut self, input: &AlarmInput<'_>) -> Vec<Alarm> {
        let mut alarms = self.upstream_dead.alarms(input);
        alarms.extend(self.kernel_drops.alarms(input));
        alarms.extend(self.silence.alarms(input));
        alarms
    }
}
