//! Probes upstreams. All probes share one thread and one poll. Each has a timeout, and the number in progress is
//! bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::config::upstream::{ProbeSettings, SendFrom};
use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::monitor::health::{ProbeFailure, ProbeHealth};
use crate::monitor::monitored::{MonitoredUpstream, News};
use crate::monitor::probe::{BUFFER_BYTES, Probe, ProbeOutcome, ProbePath};
use crate::monitor::schedule::{Schedule, Turn};
use crate::net::probe::Leaving;
use crate::number;

/// Largest number of probes in progress. Each needs a descriptor, of the few that are not reserved for sessions.
/// Further probes wait.
const IN_PROGRESS_MAX: usize = 256;
/// Time between the first probes of two upstreams, so that they do not all start at once. It is shorter if the interval
/// is too short.
const FIRST_GAP: Duration = Duration::from_millis(10);

/// All probed upstreams. Positions in this list are the schedule's jobs and the poll's tokens.
pub struct Prober {
    registry: Registry,
    probed: Vec<Probed>,
    schedule: Schedule,
    buffer: Vec<u8>,
}

struct Probed {
    id: UpstreamId,
    monitored: Arc<MonitoredUpstream>,
    address: Option<SocketAddr>,
    probe: Arc<ProbeSettings>,
    health: ProbeHealth,
    running_probe: Option<Probe>,
    /// Whether the last probe failed because of this host.
    is_stuck: bool,
}

impl Prober {
    /// Returns a prober for those monitored upstreams that have a probe. It uses the registry's tokens below their
    /// number.
    pub fn new(
        monitored_upstreams: &[Arc<MonitoredUpstream>],
        registry: Registry,
        start: Instant,
    ) -> Prober {
        let monitored_upstreams =
            monitored_upstreams
                .iter()
                .enumerate()
                .filter_map(|(id, monitored)| {
                    // A group address never sends replies.
                    let probe = monitored
                        .probe
                        .as_ref()
                        .filter(|_| !monitored.upstream.is_group())?;
                    Some((UpstreamId::new(id), monitored, probe))
                });
        let monitored_upstreams: Vec<_> = monitored_upstreams.collect();
        let mut schedule = Schedule::new(IN_PROGRESS_MAX);
        for (place, (_, monitored, probe)) in monitored_upstreams.iter().enumerate() {
            let (first, phase) = beginnings(place, monitored_upstreams.len(), probe.interval);
            let first = monitored.state.address.map(|_| start + first);
            schedule.add(start + phase, first, Some(probe.interval), probe.timeout);
        }
        let probed = monitored_upstreams
            .into_iter()
            .map(|(id, monitored, probe)| Probed::new(id, monitored, probe));
        Prober {
            registry,
            probed: probed.collect(),
            schedule,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Returns whether there is nothing to probe.
    pub fn is_empty(&self) -> bool {
        self.probed.is_empty()
    }

    /// Returns when there will be something to do, unless an event comes first.
    pub fn wake_at(&self) -> Option<Instant> {
        self.schedule.wake_at()
    }

    /// Handles an event of a probe's socket.
    pub fn on_event(&mut self, token: Token, now: Instant, news: &mut Vec<News>) {
        let Some(probed) = self.probed.get_mut(token.0) else {
            return;
        };
        let Some(running_probe) = &mut probed.running_probe else {
            return;
        };
        if let Some(outcome) = running_probe.proceed(&probed.probe, &mut self.buffer) {
            self.end(token.0, outcome, now, news);
        }
    }

    /// Begins the probes that are due and ends those whose timeout has expired.
    pub fn on_time(&mut self, now: Instant, news: &mut Vec<News>) {
        while let Some(turn) = self.schedule.next_turn(now) {
            match turn {
                Turn::Begin(place) => self.begin(place, now, news),
                Turn::Overdue(place) => {
                    let probed = &self.probed[place];
                    if let Some(running_probe) = &probed.running_probe {
                        let failure = running_probe.overdue(&probed.probe);
                        self.end(place, Err(failure), now, news);
                    }
                }
            }
        }
    }

    /// Sets the new address of an upstream and probes it at once.
    pub fn on_moved(&mut self, upstream: UpstreamId, address: SocketAddr, now: Instant) {
        let Some(place) = self.probed.iter().position(|probed| probed.id == upstream) else {
            return;
        };
        let probed = &mut self.probed[place];
        probed.address = Some(address);
        probed.running_probe = None;
        probed.health.restart();
        self.schedule.done(place, now);
        self.schedule.hasten(place, now);
    }

    fn begin(&mut self, place: usize, now: Instant, news: &mut Vec<News>) {
        let probed = &mut self.probed[place];
        let Some(address) = probed.address else {
            self.schedule.done(place, now);
            return;
        };
        let path = ProbePath {
            to: address,
            leaving: probed.leaving(),
        };
        match Probe::begin(&self.registry, Token(place), path, &probed.probe) {
            Ok(running_probe) => probed.running_probe = Some(running_probe),
            Err(failure) => self.end(place, Err(failure), now, news),
        }
    }

    fn end(&mut self, place: usize, outcome: ProbeOutcome, now: Instant, news: &mut Vec<News>) {
        let probed = &mut self.probed[place];
        probed.running_probe = None;
        probed.record_outcome(outcome, news);
        self.schedule.done(place, now);
    }
}

/// Returns the delay of an upstream's first probe, and the delay of the origin of its probe grid. The first probes
/// start soon; later ones are spread over the interval.
fn beginnings(place: usize, count: usize, interval: Duration) -> (Duration, Duration) {
    let share = |whole: Duration| whole.mul_f64(place as f64 / count as f64);
    let phase = share(interval);
    (
        phase.min(FIRST_GAP.saturating_mul(number::to_u32(place))),
        phase,
    )
}

impl Probed {
    fn new(
        id: UpstreamId,
        monitored: &Arc<MonitoredUpstream>,
        probe: &Arc<ProbeSettings>,
    ) -> Probed {
        Probed {
            id,
            monitored: Arc::clone(monitored),
            address: monitored.state.address,
            probe: Arc::clone(probe),
            health: ProbeHealth::of(monitored.state.alive),
            running_probe: None,
            is_stuck: false,
        }
    }

    /// Returns the source address and the interface of the upstream's probes.
    fn leaving(&self) -> Leaving {
        let from = match self.monitored.upstream.egress.from {
            SendFrom::Address(from) => Some(from),
            // A reply to the address of another host would not come here.
            SendFrom::Own | SendFrom::Keep => None,
        };
        Leaving {
            from,
            interface: self.monitored.interface,
        }
    }

    /// Returns the name and address of the upstream, for log lines.
    fn label(&self) -> String {
        let (name, handler) = (self.monitored.upstream.to_string(), &self.monitored.handler);
        match self.address.map(|address| address.to_string()) {
            Some(address) if address != name => {
                format!("upstream {name} ({address}) of handler `{handler}`")
            }
            _ => format!("upstream {name} of handler `{handler}`"),
        }
    }

    /// Counts the outcome of a probe, and reports the change that follows from it.
    fn record_outcome(&mut self, outcome: ProbeOutcome, news: &mut Vec<News>) {
        let ProbeSettings { rise, fall, .. } = *self.probe;
        let failure = match outcome {
            Ok(()) => None,
            Err(failure) => {
                news.push(News::Failed(self.id, failure.clone()));
                Some(failure)
            }
        };
        let is_stuck = matches!(failure, Some(ProbeFailure::Ours(_)));
        let was_stuck = std::mem::replace(&mut self.is_stuck, is_stuck);
        match &failure {
            Some(failure) if is_stuck => {
                if !was_stuck {
                    let advice = failure.advice();
                    let text = format!(
                        "{}: {failure}; its state does not change: {advice}",
                        self.label()
                    );
                    news.push(News::Log(log::Level::Warn, text));
                }
            }
            failure => {
                let Some(alive) = self.health.record(failure.is_none(), rise, fall) else {
                    return;
                };
                news.push(News::UpstreamEvent(self.id, UpstreamEvent::Alive(alive)));
                news.push(self.log_line(failure.as_ref()));
            }
        }
    }

    /// Returns the log line for a change between alive and dead.
    fn log_line(&self, failure: Option<&ProbeFailure>) -> News {
        let ProbeSettings { rise, fall, .. } = *self.probe;
        let label = self.label();
        match failure {
            None => News::Log(
                log::Level::Info,
                format!("{label} is alive again: it replied to {}", in_a_row(rise)),
            ),
            Some(failure) => {
                let advice = failure.advice();
                let text = format!(
                    "{label} is dead: {failure}, the last of {} that failed. It gets no new sessions until it has replied to \
                     {}; {advice}",
                    in_a_row(fall),
                    in_a_row(rise)
                );
                News::Log(log::Level::Warn, text)
            }
        }
    }
}

fn in_a_row(probes: u32) -> String {
    match probes {
        0 | 1 => "one probe".to_owned(),
        _ => format!("{probes} probes in a row"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::{Egress, ProbeOver, Upstream, UpstreamHost};
    use crate::monitor::UpstreamState;

    const SECOND: Duration = Duration::from_secs(1);

    fn monitored_upstreams(count: u16, interval: Duration) -> Vec<Arc<MonitoredUpstream>> {
        let (send, expect, timeout) = (b"ping".to_vec(), Vec::new(), interval / 2);
        let probe = Arc::new(ProbeSettings {
            over: ProbeOver::Udp,
            send,
            expect,
            interval,
            timeout,
            rise: 2,
            fall: 3,
        });
        let monitored = |port| {
            let address: SocketAddr = ([192, 0, 2, 1], port).into();
            let upstream = Upstream {
                host: UpstreamHost::Address(address),
                port,
                at: 0..0,
                egress: Egress::default(),
            };
            Arc::new(MonitoredUpstream {
                handler: "web".to_owned(),
                upstream,
                interface: 0,
                state: UpstreamState::new(Some(address)),
                probe: Some(Arc::clone(&probe)),
                resolve_interval: Duration::ZERO,
            })
        };
        (1..=count).map(monitored).collect()
    }

    fn prober(monitored_upstreams: &[Arc<MonitoredUpstream>], start: Instant) -> Prober {
        Prober::new(
            monitored_upstreams,
            mio::Poll::new().unwrap().registry().try_clone().unwrap(),
            start,
        )
    }

    /// Returns when the probes of each upstream begin, if every probe ends at once.
    fn beginnings_until(prober: &mut Prober, start: Instant, end: Duration) -> Vec<Vec<Duration>> {
        let mut begun = vec![Vec::new(); prober.probed.len()];
        while let Some(now) = prober.wake_at().filter(|now| *now < start + end) {
            while let Some(turn) = prober.schedule.next_turn(now) {
                let Turn::Begin(place) = turn else {
                    panic!("{turn:?}")
                };
                begun[place].push(now - start);
                prober.schedule.done(place, now);
            }
        }
        begun
    }

    /// A thousand upstreams are never probed in a burst, from the first interval on. Each is probed once per interval.
    #[test]
    fn many_are_spread_over_the_interval() {
        for interval in [SECOND, 10 * SECOND, 60 * SECOND] {
            let start = Instant::now();
            let mut prober = prober(&monitored_upstreams(1_000, interval), start);
            let begun = beginnings_until(&mut prober, start, 5 * interval);
            for of_one in &begun {
                for gap in of_one.windows(2).map(|pair| pair[1] - pair[0]) {
                    assert!(
                        gap >= interval / 2 && gap <= interval * 2,
                        "{gap:?} of {interval:?}"
                    );
                }
                let later: Vec<_> = of_one
                    .windows(2)
                    .skip(1)
                    .map(|pair| pair[1] - pair[0])
                    .collect();
                assert!(
                    later.len() >= 2 && later.iter().all(|gap| *gap == interval),
                    "{later:?}"
                );
            }
            // Each hundredth of an interval has a hundredth of the probes. The first interval, of a minute, has one
            // every ten milliseconds.
            let mut all: Vec<_> = begun.concat();
            all.sort();
            let window = interval / 100;
            let most = |moments: &[Duration]| {
                let within = |at: &Duration| {
                    moments
                        .iter()
                        .filter(|one| *one >= at && **one < *at + window)
                        .count()
                };
                moments.iter().map(within).max().unwrap()
            };
            let second = all.partition_point(|at| *at < 2 * interval);
            assert!(
                most(&all[second..]) <= 11,
                "{} at a time",
                most(&all[second..])
            );
            assert!(
                most(&all[..second]) <= 80,
                "{} at a time at first",
                most(&all[..second])
            );
        }
    }

    /// A few upstreams are probed at once when the daemon starts. One without an address is probed when it gets one.
    #[test]
    fn few_are_probed_at_once() {
        let start = Instant::now();
        let mut monitored_upstreams = monitored_upstreams(3, 10 * SECOND);
        Arc::make_mut(&mut monitored_upstreams[2]).state.address = None;
        let mut prober = prober(&monitored_upstreams, start);
        let begun = beginnings_until(&mut prober, start, SECOND);
        assert_eq!(begun, [vec![Duration::ZERO], vec![FIRST_GAP], vec![]]);
        prober.on_moved(UpstreamId(2), ([192, 0, 2, 1], 3).into(), start + SECOND);
        assert_eq!(prober.wake_at(), Some(start + SECOND));
    }

    /// The log names the upstream, the reason and the cure, once per change. A shortage of this host is no failure of
    /// the upstream.
    #[test]
    fn changes_are_logged_with_their_reason() {
        let (mut prober, id) = (
            prober(&monitored_upstreams(1, SECOND), Instant::now()),
            UpstreamId(0),
        );
        let mut record = |outcomes: &[ProbeOutcome]| {
            let mut news = Vec::new();
            outcomes
                .iter()
                .for_each(|outcome| prober.probed[0].record_outcome(outcome.clone(), &mut news));
            news.retain(|one| !matches!(one, News::Failed(..)));
            news
        };
        let (refused, silent) = (
            Err(ProbeFailure::Refused),
            Err(ProbeFailure::NoReply(2 * SECOND)),
        );
        let stuck = Err(ProbeFailure::Ours("Too many open files".to_owned()));
        assert_eq!(
            record(&[
                refused.clone(),
                refused,
                Ok(()),
                silent.clone(),
                silent.clone()
            ]),
            []
        );
        let text = "upstream 192.0.2.1:1 of handler `web`: cannot send the probe: Too many open files; its state does not \
                    change: check `ulimit -n`, and the address and interface that probes leave from";
        assert_eq!(
            record(&[stuck.clone(), stuck.clone(), stuck]),
            [News::Log(log::Level::Warn, text.to_owned())]
        );
        let text = "upstream 192.0.2.1:1 of handler `web` is dead: no reply within 2s, the last of 3 probes in a row that \
                    failed. It gets no new sessions until it has replied to 2 probes in a row; check that it runs, that \
                    it replies to the probe, and that no firewall blocks either";
        let died = [
            News::UpstreamEvent(id, UpstreamEvent::Alive(false)),
            News::Log(log::Level::Warn, text.to_owned()),
        ];
        assert_eq!(record(&[silent.clone(), silent.clone(), silent]), died);
        let text =
            "upstream 192.0.2.1:1 of handler `web` is alive again: it replied to 2 probes in a row";
        let revived = [
            News::UpstreamEvent(id, UpstreamEvent::Alive(true)),
            News::Log(log::Level::Info, text.to_owned()),
        ];
        assert_eq!(record(&[Ok(()), Ok(()), Ok(())]), revived);
    }
}
