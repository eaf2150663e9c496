//! A moment, as a number. Nothing in this room reads a clock: whoever calls says what time it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the daemon began to count. Never goes back, has nothing to do with the time of day, and is the same
/// in all workers. The worker reads the clock once a turn.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// The moment so much later.
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(nanoseconds(duration)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds; beyond 584 years, for ever.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
