//! Asks upstreams whether they live. All probes share one thread and one poll; each has a deadline, and only so many are
//! under way at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::attempt::{Attempt, BUFFER_BYTES, Outcome};
use super::health::{Failure, Health};
use super::schedule::{Schedule, Turn};
use super::{News, Target};
use crate::config::upstream::{Probe, SendFrom};
use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;
use crate::net::probe::Leaving;

/// Probes that are under way at a time; each is an open socket. Further ones wait.
const UNDER_WAY_MAX: usize = 512;
/// Between the first probes of two upstreams, so that many do not start at once; less where the interval is too short.
const FIRST_GAP: Duration = Duration::from_millis(10);

/// All upstreams that are probed. The places of this list are the schedule's jobs and the poll's tokens.
pub struct Prober {
    registry: Registry,
    probed: Vec<Probed>,
    schedule: Schedule,
    buffer: Vec<u8>,
}

struct Probed {
    id: UpstreamId,
    handler: String,
    name: String,
    address: Option<SocketAddr>,
    leaving: Leaving,
    probe: Arc<Probe>,
    health: Health,
    attempt: Option<Attempt>,
    /// Whether this host could not even ask, the last time.
    is_stuck: bool,
}

impl Prober {
    /// Will probe those of the targets that are to be. The tokens of the registry below their number are taken.
    pub fn new(targets: &[Target], registry: Registry, start: Instant) -> Prober {
        let targets = targets.iter().enumerate().filter_map(|(id, target)| {
            // Nobody answers from a group's address.
            let probe = target.probe.as_ref().filter(|_| !target.upstream.is_group())?;
            Some((UpstreamId(id as u32), target, probe))
        });
        let targets: Vec<_> = targets.collect();
        let mut schedule = Schedule::new(UNDER_WAY_MAX);
        for (place, (_, target, probe)) in targets.iter().enumerate() {
            let (first, phase) = beginnings(place, targets.len(), probe.interval);
            let first = target.address.map(|_| start + first);
            schedule.add(start + phase, first, Some(probe.interval), probe.timeout);
        }
        let probed = targets.into_iter().map(|(id, target, probe)| Probed::new(id, target, probe));
        Prober { registry, probed: probed.collect(), schedule, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Whether there is nothing to probe.
    pub fn is_empty(&self) -> bool {
        self.probed.is_empty()
    }

    /// When there will be something to do besides events.
    pub fn wake_at(&self) -> Option<Instant> {
        self.schedule.wake_at()
    }

    /// Something came for this probe, or its connection is there.
    pub fn on_event(&mut self, token: Token, now: Instant, news: &mut Vec<News>) {
        let Some(probed) = self.probed.get_mut(token.0) else { return };
        let Some(attempt) = &mut probed.attempt else { return };
        if let Some(outcome) = attempt.go_on(&probed.probe, &mut self.buffer) {
            self.end(token.0, outcome, now, news);
        }
    }

    /// Begins the probes that are due and ends those that have waited long enough.
    pub fn on_time(&mut self, now: Instant, news: &mut Vec<News>) {
        while let Some(turn) = self.schedule.next_turn(now) {
            match turn {
                Turn::Begin(place) => self.begin(place, now, news),
                Turn::Overdue(place) => {
                    let probed = &self.probed[place];
                    if let Some(attempt) = &probed.attempt {
                        let failure = attempt.overdue(&probed.probe);
                        self.end(place, Err(failure), now, news);
                    }
                }
            }
        }
    }

    /// The upstream is somewhere else now, and is asked there at once.
    pub fn on_moved(&mut self, upstream: UpstreamId, address: SocketAddr, now: Instant) {
        let Some(place) = self.probed.iter().position(|probed| probed.id == upstream) else { return };
        let probed = &mut self.probed[place];
        probed.address = Some(address);
        probed.attempt = None;
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
        match Attempt::begin(&self.registry, Token(place), address, probed.leaving, &probed.probe) {
            Ok(attempt) => probed.attempt = Some(attempt),
            Err(failure) => self.end(place, Err(failure), now, news),
        }
    }

    fn end(&mut self, place: usize, outcome: Outcome, now: Instant, news: &mut Vec<News>) {
        let probed = &mut self.probed[place];
        probed.attempt = None;
        probed.judge(outcome, news);
        self.schedule.done(place, now);
    }
}

/// After how long one of so many upstreams is probed first, and where its interval's grid lies. First all are asked soon;
/// then they are spread over the interval.
fn beginnings(place: usize, count: usize, interval: Duration) -> (Duration, Duration) {
    let share = |whole: Duration| whole.mul_f64(place as f64 / count as f64);
    let phase = share(interval);
    (phase.min(FIRST_GAP.saturating_mul(place as u32)), phase)
}

impl Probed {
    fn new(id: UpstreamId, target: &Target, probe: &Arc<Probe>) -> Probed {
        let from = match target.upstream.leave.from {
            SendFrom::Address(from) => Some(from),
            // An answer to somebody else's address would not come here.
            SendFrom::Own | SendFrom::Keep => None,
        };
        Probed {
            id,
            handler: target.handler.clone(),
            name: target.upstream.to_string(),
            address: target.address,
            leaving: Leaving { from, interface: target.interface },
            probe: Arc::clone(probe),
            health: Health::default(),
            attempt: None,
            is_stuck: false,
        }
    }

    /// For people: which upstream this is, and where.
    fn label(&self) -> String {
        let name = &self.name;
        match self.address.map(|address| address.to_string()) {
            Some(address) if address != *name => {
                format!("upstream {name} ({address}) of handler `{}`", self.handler)
            }
            _ => format!("upstream {name} of handler `{}`", self.handler),
        }
    }

    fn judge(&mut self, outcome: Outcome, news: &mut Vec<News>) {
        let Probe { rise, fall, .. } = *self.probe;
        let failure = match outcome {
            Ok(()) => None,
            Err(failure) => {
                news.push(News::Failed(self.id, failure.clone()));
                Some(failure)
            }
        };
        let is_stuck = matches!(failure, Some(Failure::Ours(_)));
        let was_stuck = std::mem::replace(&mut self.is_stuck, is_stuck);
        match &failure {
            Some(failure) if is_stuck => {
                if !was_stuck {
                    let advice = failure.advice();
                    let text = format!("{}: {failure}; what is known of it stays as it is. {advice}", self.label());
                    news.push(News::Say(log::Level::Warn, text));
                }
            }
            failure => {
                let Some(alive) = self.health.record(failure.is_none(), rise, fall) else { return };
                news.push(News::Change(self.id, Change::Alive(alive)));
                news.push(self.obituary(failure.as_ref()));
            }
        }
    }

    /// Tells of a death, or of a return to life.
    fn obituary(&self, failure: Option<&Failure>) -> News {
        let Probe { rise, fall, .. } = *self.probe;
        let label = self.label();
        match failure {
            None => News::Say(log::Level::Info, format!("{label} is alive again: it answered {}", in_a_row(rise))),
            Some(failure) => {
                let advice = failure.advice();
                let text = format!(
                    "{label} is dead: {failure}, the last of {} that failed. It gets nothing new until it has answered \
                     {}; {advice}",
                    in_a_row(fall),
                    in_a_row(rise)
                );
                News::Say(log::Level::Warn, text)
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
