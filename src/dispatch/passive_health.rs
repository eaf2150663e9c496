//! Whether an upstream lives, told from what comes back: it refuses (ICMP), or has answered before and no longer does. For
//! upstreams without probes. A dead one is tried again after a pause.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// Refusals that make an upstream dead ...
const REFUSALS_MAX: u32 = 3;
/// ... within this time without an answer.
const REFUSALS_WITHIN: Duration = Duration::from_secs(10);
/// Requests without an answer that make one dead that used to answer ...
const SILENCE_REQUESTS: u64 = 20;
/// ... when it has been silent for this long.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a dead one is left alone before it is tried again.
pub const PAUSE: Duration = Duration::from_secs(5);

/// What one worker knows of one upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveHealth {
    refusals: u32,
    refused_first: Time,
    /// Requests since the last answer, and when the first of them was sent.
    waiting: u64,
    waiting_since: Time,
    #[serde(rename = "has_answered")]
    has_replied: bool,
    dead_until: Option<Time>,
}

impl PassiveHealth {
    /// Whether it is thought alive.
    pub fn is_alive(&self) -> bool {
        self.dead_until.is_none()
    }

    /// Datagrams were sent that it may answer. Whether it is alive has changed if this is `true`.
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

    /// It answered. Whether it is alive has changed if this is `true`.
    pub fn replied(&mut self) -> bool {
        self.refusals = 0;
        self.waiting = 0;
        self.has_replied = true;
        self.dead_until.take().is_some()
    }

    /// Word came back that nobody is there. Whether it is alive has changed if this is `true`.
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

    /// Time has passed. Whether it is alive has changed if this is `true`: it is tried again, and a single refusal
    /// is enough then.
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

    /// When it is to be tried again.
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

    /// Three refusals, a pause, one refusal more, and an answer that clears it.
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
        assert!(health.refused(seconds(19)), "on trial");
        assert!(health.replied() && health.is_alive());
        assert!(!health.refused(seconds(19)));
    }

    /// Silence counts against one that has answered, and never against one that does not answer at all.
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
