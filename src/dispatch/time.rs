//! A moment as a number. No code in this room reads a clock: the caller passes the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds on the daemon's clock. It never goes back, is unrelated to the time of day, and is the same in all
/// workers. A worker reads the clock once a turn.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// Returns the moment that is `duration` later.
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(nanoseconds(duration)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Returns a duration in nanoseconds, or the largest number for durations above 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
