//! The monotonic clock, and what is left until a deadline.

use std::io;
use std::time::{Duration, Instant};

/// What is left until the deadline; an error once it is over, since a timeout of zero would be none at all (socket(7)).
pub fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which is the same for all processes of a boot.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
