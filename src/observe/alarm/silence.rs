//! `route_silent` and `source_silent`: traffic that `expect_every` of a route requires is overdue. The time is counted
//! from when the expectation is first seen, so a fresh start raises no alarm.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::input::{Alarm, AlarmInput, ExpectedTraffic};

/// When each expected route or source last received a datagram, by route and source.
#[derive(Debug, Default)]
pub struct Silence(HashMap<String, LastReceived>);

/// The last datagram of a route or source.
#[derive(Debug, Clone, Copy)]
struct LastReceived {
    /// The number of datagrams that the route had received then.
    received: u64,
    last: Instant,
}

impl Silence {
    /// Returns the current alarms, in the order of the file.
    pub fn alarms(&mut self, input: &AlarmInput<'_>) -> Vec<Alarm> {
        let mut seen = HashMap::with_capacity(input.expected.len());
        let mut alarms = Vec::new();
        for expected in &input.expected {
            let about = about(expected);
            let state = expected.advance(self.0.get(&about).copied(), input.now);
            let silent = input.now.saturating_duration_since(state.last);
            if silent > expected.expectation.every {
                alarms.push(make_alarm(
                    expected,
                    about.clone(),
                    input.now_unix.saturating_sub(silent.as_secs()),
                ));
            }
            seen.insert(about, state);
        }
        self.0 = seen;
        alarms
    }
}

impl ExpectedTraffic<'_> {
    /// Returns the state after this snapshot, given the previous one if there is one.
    fn advance(&self, known: Option<LastReceived>, now: Instant) -> LastReceived {
        let received = self.received;
        let Some(known) = known else {
            return LastReceived {
                received,
                last: self.last_received.map_or(now, |last| last.min(now)),
            };
        };
        let last = match self.expectation.source {
            Some(_) => self
                .last_received
                .map_or(known.last, |last| last.max(known.last)),
            None if known.received == received => known.last,
            None => now,
        };
        LastReceived { received, last }
    }
}

fn about(expected: &ExpectedTraffic<'_>) -> String {
    match expected.expectation.source {
        Some(source) => format!("{} from {source}", expected.route),
        None => expected.route.to_owned(),
    }
}

fn make_alarm(expected: &ExpectedTraffic<'_>, about: String, since: u64) -> Alarm {
    let ExpectedTraffic {
        route, expectation, ..
    } = expected;
    let every = humantime::format_duration(Duration::from_secs(expectation.every.as_secs()));
    let (name, text, cure) = match expectation.source {
        Some(source) => (
            "source_silent",
            format!("route {route} has received nothing from {source} for longer than {every}"),
            format!("check that {source} still sends to this destination; `expect_every` of the route is the permitted silence"),
        ),
        None => (
            "route_silent",
            format!("route {route} has received nothing for longer than {every}"),
            "check that datagrams are still sent there, and that no firewall or more specific route takes them; \
             `expect_every` of the route is the permitted silence"
                .to_owned(),
        ),
    };
    Alarm {
        name: name.to_owned(),
        about,
        since,
        text,
        cure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Expectation;

    fn expectation(source: Option<&str>) -> Expectation {
        Expectation {
            source: source.map(|net| net.parse().unwrap()),
            every: Duration::from_secs(60),
        }
    }

    /// Returns the alarm at a time, in seconds from `start`.
    fn alarm_at(
        memory: &mut Silence,
        start: Instant,
        seconds: u64,
        expected: ExpectedTraffic<'_>,
    ) -> Option<(String, u64)> {
        let now = start + Duration::from_secs(seconds);
        let expected = vec![expected];
        let input = AlarmInput {
            listeners: Vec::new(),
            upstreams: &[],
            expected,
            now,
            now_unix: 1_000 + seconds,
        };
        memory
            .alarms(&input)
            .pop()
            .map(|alarm| (alarm.name + " " + &alarm.about, alarm.since))
    }

    /// A route is silent when its counter has stood still for longer than the file allows. That time is also granted at
    /// the start, and the next datagram ends the alarm.
    #[test]
    fn a_route_that_stands_still_is_silent() {
        let (mut memory, start, expectation) =
            (Silence::default(), Instant::now(), expectation(None));
        let mut at = |seconds, received| {
            let expected = ExpectedTraffic {
                route: "in",
                expectation: &expectation,
                received,
                last_received: None,
            };
            alarm_at(&mut memory, start, seconds, expected)
        };
        assert_eq!(at(0, 7), None);
        assert_eq!(at(60, 7), None);
        assert_eq!(at(61, 7), Some(("route_silent in".to_owned(), 1_000)));
        assert_eq!(at(70, 8), None);
        assert_eq!(at(130, 8), None);
        assert_eq!(at(131, 8), Some(("route_silent in".to_owned(), 1_070)));
        // The counter restarts at 0 if another configuration has created the route anew.
        assert_eq!(at(132, 0), None);
    }

    /// A source can be silent while its route receives other traffic. The state of a source persists when a new worker
    /// has not seen it yet.
    #[test]
    fn a_source_can_be_silent_alone() {
        let mut memory = Silence::default();
        let start = Instant::now();
        let expectation = expectation(Some("10.0.0.0/8"));
        let mut at = |seconds, last: Option<u64>| {
            let last_received = last.map(|last| start + Duration::from_secs(last));
            let expected = ExpectedTraffic {
                route: "in",
                expectation: &expectation,
                received: seconds,
                last_received,
            };
            alarm_at(&mut memory, start, seconds, expected)
        };
        assert_eq!(at(0, None), None);
        assert_eq!(
            at(61, None),
            Some(("source_silent in from 10.0.0.0/8".to_owned(), 1_000))
        );
        assert_eq!(at(62, Some(30)), None);
        assert_eq!(at(90, None), None);
        assert_eq!(
            at(91, None),
            Some(("source_silent in from 10.0.0.0/8".to_owned(), 1_030))
        );
    }
}
