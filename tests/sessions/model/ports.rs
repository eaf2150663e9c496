//! Sockets that are leased, sockets in quarantine and for how long, and the sockets that a session may get.

use std::collections::{HashMap, HashSet};

use udispatch::dispatch::verdict::DropReason;

use super::{Leg, Talker};
use crate::scenario::{MS, SECOND};

/// Quarantine after a session without outstanding replies on the socket.
const QUARANTINE: u64 = 2 * SECOND;
/// Shortest quarantine, where ports are short.
const QUARANTINE_MIN: u64 = 100 * MS;
/// Quarantine after a session that has a reply outstanding on the socket.
const QUARANTINE_OUTSTANDING: u64 = 10 * SECOND;
/// Time after a failed attempt to open a socket in which no other attempt is made.
const RETRY: u64 = SECOND;
/// Time after an attempt that failed for lack of a route to the upstream, in which no other attempt is made.
const RETRY_UNREACHABLE: u64 = 100 * MS;
/// Time after which a free socket is closed.
const IDLE_MAX: u64 = 30 * SECOND;
/// Longest delay of that. A socket with a long quarantine may be in the queue before one that was released later, for
/// as long as a quarantine lasts. The check comes once a second, for both, and closes up to 256 sockets, which is more
/// than there are here.
const IDLE_MAX_LATE: u64 = QUARANTINE_OUTSTANDING + 2 * SECOND;

/// A socket, the index of its upstream, and the TTL of a datagram that is sent there.
pub type Way = (u32, usize, Option<u8>);

/// What one turn of a worker did, as seen from outside. The model removes what it can explain.
#[derive(Default)]
pub struct Step {
    pub now: u64,
    pub worker: usize,
    /// For each handler and datagram: the sockets that it is sent on, each with the index of its upstream, and the TTL.
    pub out: HashMap<(usize, u64), Vec<Way>>,
    /// Sockets that were opened in this turn: the handler, and the index of the upstream.
    pub fresh: HashMap<u32, (usize, usize)>,
    /// Attempts to open a socket that failed, by handler and upstream.
    pub failed: HashMap<(usize, usize), DropReason>,
    /// Sockets that were closed in this turn, with their handlers.
    pub closed: HashMap<u32, usize>,
    /// The cases that were met, for the sum over all seeds.
    pub met: Vec<&'static str>,
}

/// A socket that was opened for sessions.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub place: usize,
    generation: u64,
}

/// A socket that no session has.
#[derive(Debug, Clone, Copy)]
pub struct Free {
    pub socket: u32,
    place: usize,
    /// The time of the session's last datagram.
    seen: u64,
    outstanding: bool,
    /// The span in which it was released.
    released: (u64, u64),
}

impl Free {
    fn quarantine(&self) -> u64 {
        if self.outstanding {
            QUARANTINE_OUTSTANDING
        } else {
            QUARANTINE
        }
    }
}

/// What was promised to a session that released a socket.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    seen: u64,
    outstanding: bool,
    released: u64,
}

/// The sockets of one forwarder in one worker.
#[derive(Default)]
pub struct Ports {
    /// All open sockets.
    pub sockets: HashMap<u32, Held>,
    free: Vec<Free>,
    /// Sockets that were leased before the end of their quarantine, because there were no others.
    hurried: HashSet<u32>,
    /// By upstream.
    shut_until: Vec<u64>,
    /// Why the last attempt to open a socket failed.
    why: Vec<DropReason>,
    generation: Vec<u64>,
    /// By session and socket.
    promises: HashMap<(u64, u32), Promise>,
}

impl Ports {
    pub fn new(upstreams: usize) -> Ports {
        let why = vec![DropReason::NoPort; upstreams];
        Ports {
            shut_until: vec![0; upstreams],
            why,
            generation: vec![0; upstreams],
            ..Ports::default()
        }
    }

    /// Whether a free socket is certainly out of quarantine, in whatever order they are kept.
    fn is_any_rested(&self, place: usize, now: u64) -> bool {
        self.free.iter().any(|free| {
            let is_reusable = free.seen + free.quarantine() <= free.released.0
                || free.released.1 + free.quarantine() <= now;
            free.place == place && is_reusable
        })
    }
}

impl Talker {
    /// A session got a socket to an upstream.
    pub fn lease(&mut self, place: usize, socket: u32, step: &mut Step) {
        if self.spec.is_sticky() {
            assert_eq!(
                socket, self.one_way[place],
                "without replies there is one socket for all"
            );
            return;
        }
        let now = step.now;
        let shut = now < self.ports.shut_until[place];
        if let Some(whose) = step.fresh.remove(&socket) {
            assert_eq!(whose, (self.handler, place), "socket {socket}");
            assert!(
                !shut,
                "socket {socket} was opened though opening has just failed"
            );
            assert!(
                !self.ports.is_any_rested(place, now),
                "socket {socket} was opened though one had left quarantine"
            );
            let generation = self.ports.generation[place];
            self.ports
                .sockets
                .insert(socket, Held { place, generation });
            self.ports.hurried.remove(&socket);
            return;
        }
        let at = self
            .ports
            .free
            .iter()
            .position(|free| free.socket == socket);
        let free = self
            .ports
            .free
            .remove(at.unwrap_or_else(|| panic!("socket {socket} is not free, and leased")));
        assert_eq!(free.place, place, "{free:?}");
        assert_eq!(
            self.ports.sockets[&socket].generation, self.ports.generation[place],
            "{free:?} leads to an old address"
        );
        let is_short = shut || step.failed.contains_key(&(self.handler, place));
        let is_reusable = now >= free.seen + free.quarantine();
        let may_hurry = is_short && !free.outstanding && now >= free.released.0 + QUARANTINE_MIN;
        assert!(
            is_reusable || may_hurry,
            "{free:?} has not left quarantine, short: {is_short}"
        );
        step.met.push(if is_reusable {
            "socket reused"
        } else {
            "socket hurried"
        });
        if is_reusable {
            self.ports.hurried.remove(&socket);
        } else {
            self.ports.hurried.insert(socket);
        }
    }

    /// Why the last attempt to open a socket to this upstream failed.
    pub fn why_failed(&self, place: usize, step: &Step) -> DropReason {
        step.failed
            .get(&(self.handler, place))
            .copied()
            .unwrap_or(self.ports.why[place])
    }

    /// A session got no socket to this upstream, because there was none and none could be opened. Returns the reason.
    pub fn lease_failed(&self, place: usize, step: &Step) -> DropReason {
        assert!(!self.spec.is_sticky(), "there is always a socket");
        assert!(
            self.may_have_failed(place, step),
            "no socket to {place}, for no reason: {:?}",
            self.ports.free
        );
        self.why_failed(place, step)
    }

    /// Whether an attempt to lease a socket to this upstream may have failed.
    pub fn may_have_failed(&self, place: usize, step: &Step) -> bool {
        let now = step.now;
        let is_short =
            step.failed.contains_key(&(self.handler, place)) || now < self.ports.shut_until[place];
        let may_hurry = |free: &Free| {
            free.place == place && !free.outstanding && free.released.1 + QUARANTINE_MIN <= now
        };
        is_short && !self.ports.is_any_rested(place, now) && !self.ports.free.iter().any(may_hurry)
    }

    /// A session releases a socket at some moment of this span.
    pub fn release(
        &mut self,
        session: u64,
        leg: &Leg,
        seen: u64,
        released: (u64, u64),
        is_spoilt: bool,
        step: &mut Step,
    ) {
        if self.spec.is_sticky() {
            return;
        }
        let outstanding = leg.asked > leg.answered;
        self.ports.promises.insert(
            (session, leg.socket),
            Promise {
                seen,
                outstanding,
                released: released.0,
            },
        );
        if is_spoilt
            || self.ports.sockets[&leg.socket].generation != self.ports.generation[leg.place]
        {
            return self.must_close(leg.socket, step);
        }
        self.ports.free.push(Free {
            socket: leg.socket,
            place: leg.place,
            seen,
            outstanding,
            released,
        });
    }

    /// The free sockets to an upstream that has moved must be closed.
    pub fn forget_free(&mut self, place: usize, step: &mut Step) {
        self.ports.generation[place] += 1;
        let (gone, rest): (Vec<Free>, Vec<Free>) =
            self.ports.free.iter().partition(|free| free.place == place);
        self.ports.free = rest;
        for free in gone {
            step.met.push("moved socket closed");
            self.must_close(free.socket, step);
        }
    }

    fn must_close(&mut self, socket: u32, step: &mut Step) {
        assert_eq!(
            step.closed.remove(&socket),
            Some(self.handler),
            "socket {socket} must be closed at once"
        );
        self.ports.sockets.remove(&socket);
    }

    /// All other closed sockets had been free for long enough, and all sockets that were free for too long were closed.
    /// `is_punctual` says that timers are called in time.
    pub fn check_spares(&mut self, is_punctual: bool, step: &mut Step) {
        let Step {
            now, closed, met, ..
        } = step;
        self.ports.free.retain(|free| {
            let is_closed = closed.remove(&free.socket).is_some();
            let since = free.released;
            if is_closed {
                assert!(since.0 + IDLE_MAX <= *now, "{free:?} was closed soon");
                met.push("spare socket closed");
                self.ports.sockets.remove(&free.socket);
            }
            let late = since.1 + IDLE_MAX + IDLE_MAX_LATE + 100 * MS;
            assert!(
                is_closed || !is_punctual || *now < late,
                "{free:?} was not closed"
            );
            !is_closed
        });
    }

    /// A reply to one session's request reached another client, which must not happen earlier than promised.
    pub fn check_stray(&self, asker: u64, socket: u32, step: &mut Step) {
        let now = step.now;
        let promise = self
            .ports
            .promises
            .get(&(asker, socket))
            .expect("it was given back");
        let Promise {
            seen,
            outstanding,
            released,
        } = *promise;
        let until = match (outstanding, self.ports.hurried.contains(&socket)) {
            (true, _) => seen + QUARANTINE_OUTSTANDING,
            (false, false) => seen + QUARANTINE,
            (false, true) => (seen + QUARANTINE).min(released + QUARANTINE_MIN),
        };
        step.met.push(if self.ports.hurried.contains(&socket) {
            "stray, hurried"
        } else {
            "stray"
        });
        assert!(
            now >= until,
            "socket {socket} carried a stranger's answer: {promise:?} at {now}"
        );
    }

    /// The turn has ended: nothing is left unexplained, and each socket belongs to a session or is free.
    pub fn finish(&mut self, step: &Step) {
        for ((handler, place), reason) in &step.failed {
            if *handler == self.handler {
                let retry = if *reason == DropReason::NoPort {
                    RETRY
                } else {
                    RETRY_UNREACHABLE
                };
                self.ports.shut_until[*place] = step.now + retry;
                self.ports.why[*place] = *reason;
            }
        }
        let leased = self
            .sessions
            .iter()
            .flat_map(|session| session.legs.iter().map(|leg| leg.socket));
        let free = self.ports.free.iter().map(|free| free.socket);
        if !self.spec.is_sticky() {
            let held: Vec<u32> = leased.chain(free).collect();
            let distinct: HashSet<u32> = held.iter().copied().collect();
            assert_eq!(held.len(), distinct.len(), "one socket for two: {held:?}");
            assert_eq!(
                distinct,
                self.ports.sockets.keys().copied().collect(),
                "sockets that nobody has, or that are gone"
            );
        }
    }
}
