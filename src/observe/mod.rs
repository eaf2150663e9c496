//! What the daemon reports about itself: the snapshot that every view renders, alarms, checks of the host, and taps.

pub mod admin_stats;
pub mod alarm;
pub mod conditions;
pub mod host_watch;
pub mod resource_watch;
pub mod snapshot;
pub mod tap;
