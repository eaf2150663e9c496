//! Decides from the results of probes whether an upstream is alive, and describes why a probe failed.

use std::fmt;
use std::time::Duration;

/// The health of one upstream, by its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeHealth {
    alive: bool,
    /// Number of consecutive probes that contradict the current state.
    streak: u32,
}

impl Default for ProbeHealth {
    /// An upstream counts as alive until it is probed.
    fn default() -> ProbeHealth {
        ProbeHealth {
            alive: true,
            streak: 0,
        }
    }
}

impl ProbeHealth {
    /// Returns the health with a known state.
    pub fn of(alive: bool) -> ProbeHealth {
        ProbeHealth { alive, streak: 0 }
    }

    /// Counts the result of a probe. Returns the new state if it changes.
    pub fn record(&mut self, replied: bool, rise: u32, fall: u32) -> Option<bool> {
        if replied == self.alive {
            self.streak = 0;
            return None;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < if replied { rise } else { fall } {
            return None;
        }
        *self = ProbeHealth {
            alive: replied,
            streak: 0,
        };
        Some(replied)
    }

    /// Forgets the last results, which belong to a previous address.
    pub fn restart(&mut self) {
        self.streak = 0;
    }
}

/// The reason why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// No reply came within this time.
    NoReply(Duration),
    /// The port is closed.
    Refused,
    /// A reply came, but not the expected one.
    Unexpected,
    /// The connection was closed before a reply came.
    Closed,
    /// There is no route to the upstream; with the kernel's error text.
    Unreachable(String),
    /// This host lacks a resource; with the kernel's error text. It does not concern the upstream.
    Ours(String),
}

impl ProbeFailure {
    /// Returns a suggestion of what the operator can do about the failure.
    pub fn advice(&self) -> &'static str {
        match self {
            ProbeFailure::NoReply(_) => {
                "check that it runs, that it replies to the probe, and that no firewall blocks either"
            }
            ProbeFailure::Refused => "check that it runs, and the port",
            ProbeFailure::Unexpected => "compare `expect` with its reply",
            ProbeFailure::Closed => "compare `send` with the requests that it accepts",
            ProbeFailure::Unreachable(_) => {
                "check this host's network and its route to the upstream"
            }
            ProbeFailure::Ours(_) => {
                "check `ulimit -n`, and the address and interface that probes leave from"
            }
        }
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeFailure::NoReply(timeout) => write!(
                f,
                "no reply within {}",
                humantime::format_duration(*timeout)
            ),
            ProbeFailure::Refused => f.write_str("refused"),
            ProbeFailure::Unexpected => f.write_str("the reply lacks the expected bytes"),
            ProbeFailure::Closed => f.write_str("the connection was closed without a reply"),
            ProbeFailure::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            ProbeFailure::Ours(why) => write!(f, "cannot send the probe: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rise` successes in a row make an upstream alive, and `fall` failures in a row make it dead. Any other result
    /// restarts the count. In the input, `.` is a success and `x` a failure; each output has the state after each
    /// probe, `+` for alive and `-` for dead.
    #[test]
    fn rise_and_fall() {
        for (rise, fall, probes, expected) in [
            (2, 3, "......", "++++++"),
            (2, 3, "xx.xx.xxx", "++++++++-"),
            (2, 3, "xxx.x..xx", "++----+++"),
            (2, 3, "xxx..xxx", "++--+++-"),
            (1, 1, "x.x.", "-+-+"),
            (3, 1, "x..x...", "------+"),
            // A threshold of 0 acts as 1: at least one probe must decide.
            (0, 0, ".x.", "+-+"),
        ] {
            let mut health = ProbeHealth::default();
            let mut reported = true;
            let mut states = String::new();
            for probe in probes.chars() {
                let before = health.alive;
                let change = health.record(probe == '.', rise, fall);
                assert_eq!(
                    change.is_some(),
                    before != health.alive,
                    "a change is reported once"
                );
                reported = change.unwrap_or(reported);
                assert_eq!(reported, health.alive);
                states.push(if reported { '+' } else { '-' });
            }
            assert_eq!(
                states, expected,
                "rise {rise}, fall {fall}, probes {probes}"
            );
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
