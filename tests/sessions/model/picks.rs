//! The upstreams that may be picked, those that must be, and those that are considered alive, by the rules, naively.

use std::collections::HashMap;

use crate::scenario::{Pick, SECOND, Spec};

/// The state of an upstream in one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub weight: u64,
    pub backup: bool,
    pub drain: bool,
    pub shadow: bool,
    pub resolved: bool,
    pub alive: bool,
}

/// For each key, the upstreams among which one was picked, and the one that it got. This is shared by all workers.
#[derive(Default)]
pub struct Homes(HashMap<String, Vec<(Vec<usize>, usize)>>);

/// The upstreams of a forwarder, as one worker sees them.
pub struct Picks {
    pick: Pick,
    fail_open: bool,
    pub members: Vec<Member>,
    /// The picks since the last change, as far as they could be seen without a gap.
    recent: Vec<usize>,
}

impl Picks {
    pub fn new(spec: &Spec) -> Picks {
        let member = |one: &crate::scenario::Receiver| Member {
            weight: one.weight,
            backup: one.backup,
            drain: one.drain,
            shadow: one.shadow,
            resolved: one.resolved,
            alive: true,
        };
        let members = spec.receivers.iter().map(member).collect();
        Picks {
            pick: spec.pick,
            fail_open: spec.fail_open,
            members,
            recent: Vec::new(),
        }
    }

    pub fn change(&mut self, place: usize, change: impl FnOnce(&mut Member)) {
        let before = self.members[place];
        change(&mut self.members[place]);
        if before != self.members[place] {
            self.recent.clear();
        }
    }

    /// The candidates for a new pick: upstreams that are alive and no backups, otherwise backups that are alive,
    /// otherwise, if the file says so, all. An upstream that drains, has no address, or is a shadow is never one.
    pub fn fit(&self) -> Vec<usize> {
        let usable: Vec<usize> = (0..self.members.len())
            .filter(|place| {
                let member = self.members[*place];
                member.resolved && !member.drain && !member.shadow
            })
            .collect();
        let alive: Vec<usize> = usable
            .iter()
            .copied()
            .filter(|place| self.members[*place].alive)
            .collect();
        let first: Vec<usize> = alive
            .iter()
            .copied()
            .filter(|place| !self.members[*place].backup)
            .collect();
        match (first.is_empty(), alive.is_empty(), self.fail_open) {
            (false, _, _) => first,
            (true, false, _) => alive,
            (true, true, true) => usable,
            (true, true, false) => Vec::new(),
        }
    }

    /// Whether the upstream gets copies, or what all upstreams get.
    pub fn gets_copies(&self, place: usize) -> bool {
        self.members[place].resolved && !self.members[place].drain
    }

    /// Notes that a pick was made that could not be seen.
    pub fn unseen(&mut self) {
        self.recent.clear();
    }

    /// Notes a pick. `sessions` are those that each upstream had before. Returns whether a key had to change its
    /// upstream.
    pub fn seen(&mut self, place: usize, key: &str, sessions: &[u64], homes: &mut Homes) -> bool {
        let fit = self.fit();
        assert!(
            fit.contains(&place),
            "{place} was picked of {fit:?}: {:?}",
            self.members
        );
        match self.pick {
            Pick::All => panic!("nobody is picked"),
            Pick::Random => {}
            Pick::FirstAlive => assert_eq!(place, fit[0], "the first that is alive"),
            Pick::LeastSessions => {
                let load =
                    |place: usize| sessions[place] as f64 / self.members[place].weight as f64;
                let least = fit
                    .iter()
                    .map(|other| load(*other))
                    .fold(f64::INFINITY, f64::min);
                assert!(
                    load(place) <= least + 1e-9,
                    "{place} has more than the least sessions: {sessions:?} {fit:?}"
                );
            }
            Pick::RoundRobin => self.turn(place, &fit),
            Pick::Hash => return homes.check(key, fit, place),
        }
        false
    }

    /// In each full turn, each upstream occurs as often as its weight says.
    fn turn(&mut self, place: usize, fit: &[usize]) {
        self.recent.push(place);
        let weight = |place: &usize| self.members[*place].weight;
        let divisor = (1..=5)
            .rev()
            .find(|divisor| fit.iter().all(|place| weight(place) % divisor == 0))
            .unwrap_or(1);
        let turn = fit.iter().map(weight).sum::<u64>() / divisor;
        let Some(from) = self.recent.len().checked_sub(turn as usize) else {
            return;
        };
        for member in fit {
            let count = self.recent[from..]
                .iter()
                .filter(|one| *one == member)
                .count() as u64;
            assert_eq!(
                count,
                weight(member) / divisor,
                "{member} in the last turn of {:?}",
                &self.recent[from..]
            );
        }
    }
}

impl Homes {
    /// A key gets one upstream as long as the candidates do not change. An upstream that leaves or comes back does not
    /// move the keys of others.
    fn check(&mut self, key: &str, fit: Vec<usize>, place: usize) -> bool {
        let known = self.0.entry(key.to_owned()).or_default();
        let mut has_moved = false;
        for (others, other) in known.iter() {
            let is_less = fit.iter().all(|one| others.contains(one));
            let is_more = others.iter().all(|one| fit.contains(one));
            if (is_less && fit.contains(other)) || (is_more && others.contains(&place)) {
                assert_eq!(
                    place, *other,
                    "{key} moved: of {others:?} {other}, of {fit:?} {place}"
                );
            }
            has_moved |= place != *other;
        }
        if !known.contains(&(fit.clone(), place)) {
            known.push((fit, place));
        }
        has_moved
    }
}

/// The passive health of an upstream, judged by what comes back.
#[derive(Debug, Clone, Default)]
pub struct PassiveHealth {
    /// Refusals since the last reply. They are counted anew when the first of them is 10 s old.
    refusals: Vec<u64>,
    /// Requests since the last reply.
    unanswered: Vec<u64>,
    has_answered: bool,
    dead_until: Option<u64>,
}

impl PassiveHealth {
    pub fn is_alive(&self) -> bool {
        self.dead_until.is_none()
    }

    /// An upstream that had replied before is dead after 20 requests and 5 s without a reply.
    pub fn asked(&mut self, datagrams: usize, now: u64) {
        self.unanswered.extend(std::iter::repeat_n(now, datagrams));
        if self.has_answered
            && self.unanswered.len() >= 20
            && now - self.unanswered[0] >= 5 * SECOND
        {
            self.die(now);
        }
    }

    pub fn answered(&mut self) {
        *self = PassiveHealth {
            has_answered: true,
            ..PassiveHealth::default()
        };
    }

    /// An upstream is dead after three refusals in 10 s. After a pause of 5 s, one is enough.
    pub fn refused(&mut self, now: u64) {
        if self
            .refusals
            .first()
            .is_some_and(|first| now - first > 10 * SECOND)
        {
            self.refusals.clear();
        }
        self.refusals.push(now);
        if self.refusals.len() >= 3 {
            self.die(now);
        }
    }

    pub fn pass_time(&mut self, now: u64) {
        if self.dead_until.is_some_and(|until| until <= now) {
            *self = PassiveHealth {
                refusals: vec![now; 2],
                has_answered: self.has_answered,
                ..PassiveHealth::default()
            };
        }
    }

    fn die(&mut self, now: u64) {
        self.dead_until.get_or_insert(now + 5 * SECOND);
    }
}
