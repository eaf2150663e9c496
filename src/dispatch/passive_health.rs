//! Passive health of an upstream without probes. An upstream is considered dead if it refuses requests (ICMP), or if
//! it has replied before and no longer does. A dead upstream is tried again after a pause.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// The number of refusals within [`REFUSALS_WITHIN`] without a reply that makes an upstream dead.
const REFUSALS_MAX: u32 = 3;
/// The time within which refusals are counted.
const REFUSALS_WITHIN: Duration = Duration::from_secs(10);
/// The number of requests without a reply that makes an upstream dead, if it has replied before and is silent for
/// [`SILENCE`].
const SILENCE_REQUESTS: u64 = 20;
/// The time without a reply after which an upstream that has replied before may be considered dead.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause before a dead upstream is tried again.
pub const PAUSE: Duration = Duration::from_secs(5);

/// The passive health of one upstream in one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveHealth {
    refusals: u32,
    refused_first: Time,
    /// The number of requests since the last reply. The first of them was sent at `waiting_since`.
    waiting: u64,
    waiting_since: Time,
    #[serde(rename = "has_answered")]
    has_replied: bool,
    dead_until: Option<Time>,
}

impl PassiveHealth {
    /// Returns whether the upstream is considered alive.
    pub fn is_alive(&self) -> bool {
        self.dead_until.is_none()
    }

    /// Records that datagrams were sent which the upstream may reply to. Returns whether the upstream has died by
    /// this.
    pub fn requested(&mut self, datagrams: u64, now: Time) -> bool {
        if self.waiting == 0 {
            self.waiting_since = now;
        }
        self.waiting += datagrams;
        let is_silent = self.has_replied
            && self.waiting >= SILENCE_REQUESTS
            && now.since(self.waiting_since) >= SILENCE
            && self.is_alive();
        if is_silent {
            self.die(now);
        }
        is_silent
    }

    /// Records a reply. Returns whether the upstream has come alive by this.
    pub fn replied(&mut self) -> bool {
        self.refusals = 0;
        self.waiting = 0;
        self.has_replied = true;
        self.dead_until.take().is_some()
    }

    /// Records a refusal (ICMP). Returns whether the upstream has died by this.
    pub fn refused(&mut self, now: Time) -> bool {
        if self.refusals == 0 || now.since(self.refused_first) > REFUSALS_WITHIN {
            self.refusals = 0;
            self.refused_first = now;
        }
        self.refusals += 1;
        let is_dying = self.refusals >= REFUSALS_MAX && self.is_alive();
        if is_dying {
            self.die(now);
        }
        is_dying
    }

    /// Records that time has passed. Returns whether the upstream is considered alive again, so that it is tried. A
    /// single refusal then makes it dead.
    pub fn pass_time(&mut self, now: Time) -> bool {
        let is_over = self.dead_until.is_some_and(|until| until <= now);
        if is_over {
            self.dead_until = None;
            self.refusals = REFUSALS_MAX - 1;
            self.refused_first = now;
            self.waiting = 0;
        }
        is_over
    }

    /// Returns when a dead upstream is tried again.
    pub fn deadline(&self) -> Option<Time> {
        self.dead_until
    }

    fn die(&mut self, now: Time) {
        self.dead_until = Some(now.after(PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    /// Three refusals make an upstream dead. After the pause a single refusal suffices, and a reply clears all
    /// refusals.
    #[test]
    fn refusals() {
        let mut health = PassiveHealth::default();
        assert!(![1, 2].map(|at| health.refused(seconds(at))).contains(&true));
        assert!(
            !health.refused(seconds(12)),
            "the first ones are too long ago"
        );
        health.refused(seconds(13));
        assert!(health.refused(seconds(13)) && !health.is_alive());
        assert!(
            !health.pass_time(seconds(17)) && health.pass_time(seconds(18)) && health.is_alive()
        );
        assert!(
            health.refused(seconds(19)),
            "one refusal suffices after the pause"
        );
        assert!(health.replied() && health.is_alive());
        assert!(!health.refused(seconds(19)));
    }

    /// Silence counts against an upstream that has replied, and never against one that does not reply at all.
    #[test]
    fn silence() {
        let mut collector = PassiveHealth::default();
        assert!(!(0..1_000).any(|at| collector.requested(100, seconds(at))));
        let mut server = PassiveHealth::default();
        server.replied();
        assert!(!(0..5).any(|at| server.requested(10, seconds(at))));
        assert!(server.requested(1, seconds(5)));
        let mut slow = PassiveHealth::default();
        slow.replied();
        assert!(
            !(0..60).any(|at| slow.requested(1, seconds(at)) || (at % 19 == 0 && slow.replied()))
        );
    }
}
