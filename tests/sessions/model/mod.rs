//! What the forwarder of one worker must do, from the text of the rules: sessions, sockets, picks, verdicts and
//! counters. It is naive on purpose, and shares only the names of the drop reasons with the code under test.

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

/// The key of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub client: SocketAddr,
    pub local: SocketAddr,
    pub route: usize,
}

/// A session's connection to one upstream.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    pub place: usize,
    pub socket: u32,
    /// Datagrams that were sent there, and that came back.
    pub asked: u64,
    pub answered: u64,
}

#[derive(Debug, Clone)]
pub struct Session {
    /// The number of the session among all sessions.
    pub number: u64,
    pub key: Key,
    listener: usize,
    interface: u32,
    /// The TTL of the last request, less one.
    ttl: Option<u8>,
    pub seen: u64,
    requests: u64,
    replies: u64,
    winner: Option<usize>,
    pub is_assured: bool,
    is_bound: bool,
    pub legs: Vec<Leg>,
    /// For each shadow, the replies that have no counterpart yet, and whether they are those of the shadow.
    unmatched: BTreeMap<usize, (bool, Vec<Vec<u8>>)>,
}

/// A train that arrives.
#[derive(Debug, Clone)]
pub struct Train {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub local: SocketAddr,
    pub interface: u32,
    pub ttl: u8,
    /// Each payload begins with its own number.
    pub payloads: Vec<Vec<u8>>,
}

/// The number with which a payload begins.
pub fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().expect("8 bytes"))
}

/// The state that the workers of one forwarder share.
#[derive(Default)]
pub struct Shared {
    pub homes: Homes,
    /// Number of sessions of each prefix.
    pub held: HashMap<Prefix, usize>,
    /// The token bucket of each upstream: the tokens, and the time at which there were as many.
    buckets: HashMap<usize, (f64, u64)>,
    sessions: u64,
}

/// The network by which the share of a client is counted: /24 or /56.
pub type Prefix = (bool, Vec<u8>);

pub fn prefix(ip: IpAddr) -> Prefix {
    match ip {
        IpAddr::V4(ip) => (true, ip.octets()[..3].to_vec()),
        IpAddr::V6(ip) => (false, ip.octets()[..7].to_vec()),
    }
}

/// One row of counters.
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

    /// If several upstreams could not be reached, the model does not see which one was picked, and so not which of the
    /// two reasons applies. Both are taken together.
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

/// Counts of sessions, by their beginnings and ends.
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

/// The part of one forwarder in one worker.
pub struct Talker {
    pub handler: usize,
    pub spec: Spec,
    /// The sessions, in the order in which they began.
    pub sessions: Vec<Session>,
    picks: Picks,
    passive_health: Option<Vec<PassiveHealth>>,
    ports: Ports,
    /// By upstream.
    pub one_way: Vec<u32>,
    tally: Account,
    replies: Account,
    pub ends: Ends,
    /// For each upstream: replies, and requests that were not sent because of the sample or the rate.
    answers: Vec<u64>,
    skipped: Vec<u64>,
    /// For each shadow: replies that were equal, different and missing.
    compared: Vec<[u64; 3]>,
    /// For each upstream: datagrams that a sample was taken of, and the number that it took.
    sampled: Vec<(u64, u64)>,
    /// Some of several sessions have ended since this time, and it is unclear which.
    unclear_since: Option<u64>,
    /// Sockets that were closed since then.
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

    /// All sockets that are open for the forwarder.
    pub fn sockets(&self) -> impl Iterator<Item = u32> {
        self.ports.sockets.keys().chain(&self.one_way).copied()
    }

    /// Whether it is unclear which sessions have ended.
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

    /// Updates the passive health of an upstream, if it has one, and adopts its result.
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

    /// The number of sessions of each upstream.
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

    /// Ends a session at some moment of this span.
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

    /// Asserts that every counter equals that of the model.
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
