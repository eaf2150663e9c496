//! A limit on the number of datagrams in a second, shared by all workers. It is the generic cell rate algorithm (ITU-T
//! I.371): a single number holds the time at which the next datagram is due.

use std::sync::atomic::{AtomicU64, Ordering};

use super::time::Time;

/// The burst that is allowed after a pause: as many datagrams as the limit allows in this time. A worker reads the time
/// once a turn, and a turn brings many datagrams.
const BURST_NS: u64 = 100_000_000;

/// A rate limit that several workers share.
#[derive(Debug)]
pub struct RateLimit {
    /// The time between two datagrams at the limit.
    interval_ns: u64,
    /// The time at which the next datagram would be due if none came early.
    due_ns: AtomicU64,
}

impl RateLimit {
    /// Creates a limit of `count` datagrams in `period_ns` nanoseconds. Values below 1 count as 1.
    pub fn new(count: u64, period_ns: u64) -> RateLimit {
        RateLimit {
            interval_ns: (period_ns / count.max(1)).max(1),
            due_ns: AtomicU64::new(0),
        }
    }

    /// Returns whether one more datagram may be sent now, and counts it if so.
    pub fn take(&self, now: Time) -> bool {
        let next = |due: u64| {
            let due = due.max(now.0);
            // A single datagram may always be sent after a pause, however slow the rate.
            let burst = BURST_NS.max(self.interval_ns);
            (due + self.interval_ns <= now.0 + burst).then_some(due + self.interval_ns)
        };
        // Workers that collide here try again. The order between them does not matter.
        self.due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over ten seconds of overload, exactly the rate passes, and a burst of a tenth of a second at the start.
    #[test]
    fn rate_and_burst() {
        let limit = RateLimit::new(1_000, 1_000_000_000);
        let burst = (0..5_000).filter(|_| limit.take(Time(0))).count();
        assert_eq!(burst, 100);
        let passed = (1..=10_000_u64)
            .flat_map(|ms| (0..3).map(move |_| Time(ms * 1_000_000)))
            .filter(|now| limit.take(*now));
        assert_eq!(passed.count(), 10_000);
    }

    /// A slow rate lets the first datagram pass.
    #[test]
    fn one_a_minute() {
        let limit = RateLimit::new(1, 60_000_000_000);
        assert!(limit.take(Time(0)));
        assert!(!limit.take(Time(59_000_000_000)));
        assert!(limit.take(Time(60_000_000_000)));
    }
}
