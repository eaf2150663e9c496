//! Whether an upstream is thought to live, counted from what became of its probes, and why a probe failed, in words.

use std::fmt;
use std::time::Duration;

/// What is thought of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeHealth {
    alive: bool,
    /// Probes in a row that say otherwise.
    streak: u32,
}

impl Default for ProbeHealth {
    /// Innocent until probed.
    fn default() -> ProbeHealth {
        ProbeHealth {
            alive: true,
            streak: 0,
        }
    }
}

impl ProbeHealth {
    /// As it was thought before.
    pub fn of(alive: bool) -> ProbeHealth {
        ProbeHealth { alive, streak: 0 }
    }

    /// Counts a probe. `Some` where that changes what is thought.
    pub fn record(&mut self, answered: bool, rise: u32, fall: u32) -> Option<bool> {
        if answered == self.alive {
            self.streak = 0;
            return None;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < if answered { rise } else { fall } {
            return None;
        }
        *self = ProbeHealth {
            alive: answered,
            streak: 0,
        };
        Some(answered)
    }

    /// Forgets the last probes: they were somebody else's.
    pub fn restart(&mut self) {
        self.streak = 0;
    }
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Nothing came within this time.
    NoAnswer(Duration),
    /// Nobody listens there.
    Refused,
    /// What came is not what was expected.
    Unexpected,
    /// The connection ended before anything came.
    Closed,
    /// There is no way to there; the system's words.
    Unreachable(String),
    /// This host lacks something; the system's words. Tells nothing of the upstream.
    Ours(String),
}

impl ProbeFailure {
    /// What a user may do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            ProbeFailure::NoAnswer(_) => {
                "is it running, does it answer what is sent, and does a firewall let both pass?"
            }
            ProbeFailure::Refused => "is it running, and is the port right?",
            ProbeFailure::Unexpected => "compare what is expected with what it answers",
            ProbeFailure::Closed => "compare what is sent with what it wants to be asked",
            ProbeFailure::Unreachable(_) => "check this host's network, and its route to there",
            ProbeFailure::Ours(_) => {
                "check `ulimit -n`, and the address and interface that probes leave from"
            }
        }
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeFailure::NoAnswer(timeout) => write!(
                f,
                "no answer within {}",
                humantime::format_duration(*timeout)
            ),
            ProbeFailure::Refused => f.write_str("refused"),
            ProbeFailure::Unexpected => f.write_str("the answer lacks the expected bytes"),
            ProbeFailure::Closed => f.write_str("the connection was closed without an answer"),
            ProbeFailure::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            ProbeFailure::Ours(why) => write!(f, "it cannot be asked: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rise` answers in a row revive, `fall` failures in a row kill, and anything else begins the count anew. `.` is an
    /// answer, `x` a failure; each word says what is thought after each probe.
    #[test]
    fn rise_and_fall() {
        for (rise, fall, probes, thought) in [
            (2, 3, "......", "++++++"),
            (2, 3, "xx.xx.xxx", "++++++++-"),
            (2, 3, "xxx.x..xx", "++----+++"),
            (2, 3, "xxx..xxx", "++--+++-"),
            (1, 1, "x.x.", "-+-+"),
            (3, 1, "x..x...", "------+"),
            // A limit of nothing is one: a probe must speak for it.
            (0, 0, ".x.", "+-+"),
        ] {
            let mut health = ProbeHealth::default();
            let mut told = true;
            let mut seen = String::new();
            for probe in probes.chars() {
                let before = health.alive;
                let news = health.record(probe == '.', rise, fall);
                assert_eq!(news.is_some(), before != health.alive, "news are told once");
                told = news.unwrap_or(told);
                assert_eq!(told, health.alive);
                seen.push(if told { '+' } else { '-' });
            }
            assert_eq!(seen, thought, "rise {rise}, fall {fall}, probes {probes}");
        }
    }

    /// After a move, failures of the old address do not count for the new one.
    #[test]
    fn restarting_forgets_the_streak() {
        let mut health = ProbeHealth::default();
        assert_eq!(health.record(false, 2, 2), None);
        health.restart();
        assert_eq!(health.record(false, 2, 2), None);
        assert_eq!(health.record(false, 2, 2), Some(false));
    }
}
