//! The monotonic clock, and the time that is left until a deadline.

use std::io;
use std::time::{Duration, Instant};

/// Returns the time that is left until the deadline.
///
/// # Errors
/// Returns `TimedOut` once the deadline is over: a socket timeout of zero would mean no timeout at all (socket(7)).
pub fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Returns the nanoseconds of CLOCK_MONOTONIC, which all processes of one boot share.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
