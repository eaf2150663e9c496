//! What one worker's forwarder must do, from the text of the rules: sessions, sockets, picks, verdicts and accounts. Naive on
//! purpose, and it shares nothing with the code under test but the names of the reasons.

mod picks;
mod ports;
mod replies;
mod requests;
mod time;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use udispatch::dispatch::ledger::{HandlerCount, Tally, UpstreamCount};
use udispatch::dispatch::verdict::DropReason;

use self::picks::PassiveHealth;
pub use self::picks::{Homes, Picks};
use self::ports::Ports;
pub use self::ports::Step;
pub use self::replies::{Flight, Pass};
use crate::scenario::{Replies, Spec};

/// Whom a session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub client: SocketAddr,
    pub local: SocketAddr,
    pub route: usize,
}

/// A session's way to one upstream.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    pub place: usize,
    pub socket: u32,
    /// Datagrams that went there, and that came back.
    pub asked: u64,
    pub answered: u64,
}

#[derive(Debug, Clone)]
pub struct Session {
    /// Which of all sessions it is.
    pub number: u64,
    pub key: Key,
    listener: usize,
    interface: u32,
    /// Of the last request, less one.
    ttl: Option<u8>,
    pub seen: u64,
    requests: u64,
    replies: u64,
    winner: Option<usize>,
    pub is_assured: bool,
    is_bound: bool,
    pub legs: Vec<Leg>,
    /// By shadow: answers that the other side has not given yet, and whether they are the shadow's.
    unmatched: BTreeMap<usize, (bool, Vec<Vec<u8>>)>,
}

/// A train on its way in.
#[derive(Debug, Clone)]
pub struct Train {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub local: SocketAddr,
    pub interface: u32,
    pub ttl: u8,
    /// Each begins with its own number.
    pub payloads: Vec<Vec<u8>>,
}

/// The number that a payload begins with.
pub fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().expect("8 bytes"))
}

/// What the workers of one forwarder have in common.
#[derive(Default)]
pub struct Shared {
    pub homes: Homes,
    /// Sessions of each prefix.
    pub held: HashMap<Prefix, usize>,
    /// By place: what may pass at once, and when that was so.
    buckets: HashMap<usize, (f64, u64)>,
    sessions: u64,
}

/// The network that a client's share is counted for: /24 or /56.
pub type Prefix = (bool, Vec<u8>);

pub fn prefix(ip: IpAddr) -> Prefix {
    match ip {
        IpAddr::V4(ip) => (true, ip.octets()[..3].to_vec()),
        IpAddr::V6(ip) => (false, ip.octets()[..7].to_vec()),
    }
}

/// One account.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    received: u64,
    handled: u64,
    dropped: HashMap<DropReason, u64>,
}

impl Account {
    fn handle(&mut self, datagrams: usize) {
        self.received += datagrams as u64;
        self.handled += datagrams as u64;
    }

    fn drop(&mut self, reason: DropReason, datagrams: usize) {
        self.received += datagrams as u64;
        *self.dropped.entry(reason).or_default() += datagrams as u64;
    }

    /// Of several upstreams that could not be reached the model does not see which one was picked, and so not which of
    /// the two reasons was its: they are taken together.
    fn without_places(&self) -> Account {
        let mut dropped = self.dropped.clone();
        let nowhere = dropped.remove(&DropReason::NoUpstream).unwrap_or(0);
        if nowhere > 0 {
            *dropped.entry(DropReason::NoPort).or_default() += nowhere;
        }
        Account { dropped, ..*self }
    }

    fn check(&self, what: &str, tally: &Tally) {
        let of = |reason: &DropReason| {
            Some((*reason, tally.dropped_for(*reason))).filter(|(_, count)| *count > 0)
        };
        let dropped = DropReason::ALL.iter().filter_map(of).collect();
        let found = Account {
            received: tally.received,
            handled: tally.handled,
            dropped,
        };
        assert_eq!(
            found.without_places(),
            self.without_places(),
            "{what}: found, expected"
        );
        assert!(
            tally.balances() && tally.in_flight == 0,
            "{what}: {tally:?}"
        );
    }
}

/// How sessions begin and end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub opened: u64,
    pub idle: u64,
    pub unanswered: u64,
    pub complete: u64,
    pub evicted: u64,
    pub broken: u64,
    pub one_way: u64,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Time,
    Complete,
    Evicted,
    Broken,
}

/// One worker's part of one forwarder.
pub struct Talker {
    pub handler: usize,
    pub spec: Spec,
    /// In the order in which they began.
    pub sessions: Vec<Session>,
    picks: Picks,
    passive_health: Option<Vec<PassiveHealth>>,
    ports: Ports,
    /// By place.
    pub one_way: Vec<u32>,
    tally: Account,
    replies: Account,
    pub ends: Ends,
    /// By place: answers, and requests not sent for the sample or the rate.
    answers: Vec<u64>,
    skipped: Vec<u64>,
    /// By place: the shadow's answers that were the same, others, and those that never came.
    compared: Vec<[u64; 3]>,
    /// By place: datagrams that a sample was taken of, and how many it took.
    sampled: Vec<(u64, u64)>,
    /// Some of several sessions have ended since then, and it cannot be seen which.
    unclear_since: Option<u64>,
    /// Sockets that were closed meanwhile.
    unclear_closed: Vec<u32>,
}

impl Talker {
    pub fn new(handler: usize, spec: &Spec, one_way: Vec<u32>) -> Talker {
        let count = spec.receivers.len();
        Talker {
            handler,
            spec: spec.clone(),
            sessions: Vec::new(),
            picks: Picks::new(spec),
            passive_health: spec
                .has_passive_health()
                .then(|| vec![PassiveHealth::default(); count]),
            ports: Ports::new(count),
            one_way,
            tally: Account::default(),
            replies: Account::default(),
            ends: Ends::default(),
            answers: vec![0; count],
            skipped: vec![0; count],
            compared: vec![[0; 3]; count],
            sampled: vec![(0, 0); count],
            unclear_since: None,
            unclear_closed: Vec::new(),
        }
    }

    /// All sockets that are open for it.
    pub fn sockets(&self) -> impl Iterator<Item = u32> {
        self.ports.sockets.keys().chain(&self.one_way).copied()
    }

    /// Whether it cannot be told which sessions have ended.
    pub fn is_unclear(&self) -> bool {
        self.unclear_since.is_some()
    }

    fn shadows(&self) -> Vec<usize> {
        (0..self.spec.receivers.len())
            .filter(|place| self.spec.receivers[*place].shadow)
            .collect()
    }

    fn is_shadow(&self, place: usize) -> bool {
        self.spec.receivers[place].shadow
    }

    /// Tells the passive health of an upstream, if there is one, and believes it.
    fn update_health(
        &mut self,
        place: usize,
        tell: impl FnOnce(&mut PassiveHealth),
        step: &mut Step,
    ) {
        if let Some(passive_health) = &mut self.passive_health {
            let before = passive_health[place].is_alive();
            tell(&mut passive_health[place]);
            let alive = passive_health[place].is_alive();
            if before != alive {
                step.met.push(if alive { "revived" } else { "died" });
                self.picks.change(place, |member| member.alive = alive);
            }
        }
    }

    /// How many sessions each upstream has.
    fn loads(&self) -> Vec<u64> {
        let legs: Vec<usize> = self
            .sessions
            .iter()
            .flat_map(|session| session.legs.iter().map(|leg| leg.place))
            .collect();
        (0..self.spec.receivers.len())
            .map(|place| legs.iter().filter(|one| **one == place).count() as u64)
            .collect()
    }

    /// Ends a session, at some moment of this span.
    fn end(
        &mut self,
        at: usize,
        cause: Cause,
        when: (u64, u64),
        broken: Option<u32>,
        shared: &mut Shared,
        step: &mut Step,
    ) {
        let session = self.sessions.remove(at);
        for leg in &session.legs {
            self.release(
                session.number,
                leg,
                session.seen,
                when,
                broken == Some(leg.socket),
                step,
            );
        }
        for (shadow, (is_shadows, answers)) in &session.unmatched {
            self.compared[*shadow][2] += if *is_shadows { 0 } else { answers.len() as u64 };
        }
        let prefix = prefix(session.key.client.ip());
        let held = shared.held.get_mut(&prefix).expect("it was counted");
        *held -= 1;
        if *held == 0 {
            shared.held.remove(&prefix);
        }
        *match cause {
            Cause::Time if session.is_assured || self.spec.replies == Replies::No => {
                &mut self.ends.idle
            }
            Cause::Time => &mut self.ends.unanswered,
            Cause::Complete => &mut self.ends.complete,
            Cause::Evicted => &mut self.ends.evicted,
            Cause::Broken => &mut self.ends.broken,
        } += 1;
    }

    /// Every account equal to the model's.
    pub fn check(&self, found: &HandlerCount, upstreams: &[UpstreamCount]) {
        let name = format!("handler {}", self.handler);
        self.tally.check(&name, &found.tally);
        self.replies
            .check(&format!("{name}, replies"), &found.replies);
        let sessions = found.sessions;
        assert!(sessions.balances(), "{name}: {sessions:?}");
        assert!(
            sessions.open <= self.spec.max as u64,
            "{name}: {sessions:?}"
        );
        if self.is_unclear() {
            return;
        }
        let ends = Ends {
            opened: sessions.opened,
            idle: sessions.idle,
            unanswered: sessions.unanswered,
            complete: sessions.complete,
            evicted: sessions.evicted,
            broken: sessions.broken,
            one_way: sessions.one_way,
        };
        assert_eq!(ends, self.ends, "{name}: found, expected");
        let unanswered = self
            .sessions
            .iter()
            .filter(|session| !session.is_assured)
            .count();
        let unreplied = if self.spec.replies == Replies::No {
            0
        } else {
            unanswered
        };
        let expected = (
            self.sessions.len() as u64,
            unreplied as u64,
            self.ports.sockets.len() as u64,
        );
        assert_eq!(
            (sessions.open, sessions.unreplied, sessions.ports),
            expected,
            "{name}: open, unreplied, ports"
        );
        let loads = self.loads();
        for (place, count) in upstreams.iter().enumerate() {
            let found = (
                count.counters.sessions,
                count.counters.replies,
                count.counters.skipped,
                count.shadow.values(),
                count.dead_in == 0,
            );
            let is_alive = self.picks.members[place].alive;
            let expected = (
                loads[place],
                self.answers[place],
                self.skipped[place],
                self.compared[place],
                is_alive,
            );
            assert_eq!(
                found, expected,
                "{name}, {place}: sessions, replies, skipped, shadow, alive"
            );
        }
    }
}
