//! A set of upstreams and a way to pick one of them. Who is fit to be picked (alive, not draining, not kept back as a
//! backup) changes rarely, so every pick is a look into a schedule that was made when that last changed.

use std::sync::Arc;

use crate::number;

use super::maglev::{Maglev, mix};
use super::random::Random;

/// Length of the longest schedule; larger sums of weights are scaled down to it.
const SCHEDULE_MAX: u64 = 65_536;
/// Further places that a hash tries when the first one's upstream is not fit, before those that are draw lots.
const HASH_TRIES: u32 = 16;

/// How one upstream is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The next one, each as often as its weight says.
    RoundRobin,
    /// Any, likelier by weight.
    Random,
    /// Always the same for the same key, on every machine with the same upstreams.
    Hash,
    /// The one with the fewest sessions for its weight.
    LeastSessions,
    /// The first in the order of the file that is alive.
    FirstAlive,
}

/// One upstream, as far as picking is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// A hash of its name, the same on every machine.
    pub name: u64,
    /// How much it takes compared with the others; at least 1.
    pub weight: u32,
    /// Only picked while no other is fit.
    pub backup: bool,
    /// Gets nothing new.
    pub drain: bool,
    /// Whether it is thought to answer.
    pub alive: bool,
    /// Whether it has an address.
    pub resolved: bool,
    /// Whether it only gets copies: never picked.
    pub shadow: bool,
}

/// The set.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    pick: Pick,
    /// Where nobody is alive: pick as if all were.
    fail_open: bool,
    maglev: Option<Arc<Maglev>>,
    random: Random,
    /// Who may be picked now, each as often as its weight says, well mixed.
    schedule: Vec<u16>,
    /// Whether somebody else is fit since it was made. With many weights it takes milliseconds to make, and many may die or
    /// return at once, so it is made when it is needed.
    is_schedule_old: bool,
    turn: usize,
    fit: Vec<bool>,
    is_all_alive: bool,
}

impl Pool {
    /// A pool of members. `maglev` is the table over all of them, needed for [`Pick::Hash`] alone.
    pub fn new(
        members: Vec<Member>,
        pick: Pick,
        fail_open: bool,
        maglev: Option<Arc<Maglev>>,
        seed: u64,
    ) -> Pool {
        let (schedule, fit, turn, is_all_alive) = (Vec::new(), Vec::new(), 0, true);
        let random = Random::new(seed);
        let is_schedule_old = true;
        let mut pool = Pool {
            members,
            pick,
            fail_open,
            maglev,
            random,
            schedule,
            is_schedule_old,
            turn,
            fit,
            is_all_alive,
        };
        pool.plan();
        pool
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Changes what is known of a member.
    pub fn change(&mut self, member: usize, change: impl FnOnce(&mut Member)) {
        let before = self.members[member];
        change(&mut self.members[member]);
        if before != self.members[member] {
            self.plan();
        }
    }

    /// Whose turn it is, to be handed over.
    pub fn turn(&self) -> u64 {
        self.turn as u64
    }

    /// Goes on where another pool of the same members has stopped.
    pub fn restore_turn(&mut self, turn: u64) {
        self.make_schedule();
        self.turn = usize::try_from(turn).map_or(0, |turn| turn % self.schedule.len().max(1));
    }

    /// Whether no member is thought dead.
    pub fn is_all_alive(&self) -> bool {
        self.is_all_alive
    }

    /// Whether the member may get something new.
    pub fn is_fit(&self, member: usize) -> bool {
        self.fit[member]
    }

    /// Whether the member gets what all get: dead or alive, for one that has come back is heard of by nothing else.
    pub fn is_fit_for_all(&self, member: usize) -> bool {
        let member = &self.members[member];
        member.resolved && !member.drain
    }

    /// Picks one; `None` if nobody is fit. `key` decides under [`Pick::Hash`], `sessions` tells each member's under
    /// [`Pick::LeastSessions`].
    pub fn pick(
        &mut self,
        key: impl FnOnce() -> u64,
        sessions: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        self.make_schedule();
        if self.schedule.len() <= 1 {
            return self.schedule.first().map(|only| usize::from(*only));
        }
        let member = match self.pick {
            Pick::RoundRobin => {
                let member = self.schedule[self.turn];
                self.turn = if self.turn + 1 == self.schedule.len() {
                    0
                } else {
                    self.turn + 1
                };
                usize::from(member)
            }
            Pick::Random => usize::from(self.schedule[self.random.below(self.schedule.len())]),
            Pick::Hash => self.by_hash(key()),
            Pick::LeastSessions => self.least(sessions)?,
            Pick::FirstAlive => self.fit.iter().position(|fit| *fit)?,
        };
        Some(member)
    }

    #[inline]
    fn make_schedule(&mut self) {
        if std::mem::take(&mut self.is_schedule_old) {
            self.schedule = schedule(&self.members, &self.fit);
            self.turn = 0;
        }
    }

    /// The key's own member, or, while that is not fit, another that is always the same for this key: nobody else's
    /// clients move.
    fn by_hash(&self, mut key: u64) -> usize {
        if let Some(maglev) = &self.maglev {
            for _ in 0..=HASH_TRIES {
                let member = maglev.pick(key);
                if self.fit[member] {
                    return member;
                }
                key = mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15));
            }
        }
        self.by_lot(key)
    }

    /// Every fit member draws a lot for the key, the heavier the better (weighted rendezvous hashing: the lots of others do
    /// not change when one comes or goes).
    fn by_lot(&self, key: u64) -> usize {
        let lot = |member: usize| {
            let drawn = mix(key ^ self.members[member].name).max(1) as f64 / u64::MAX as f64;
            -drawn.ln() / f64::from(self.members[member].weight)
        };
        let fit = (0..self.members.len())
            .filter(|member| self.fit[*member])
            .map(|member| (lot(member), member));
        fit.min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0, |best| best.1)
    }

    fn least(&self, sessions: impl Fn(usize) -> u64) -> Option<usize> {
        let fit = (0..self.members.len()).filter(|member| self.fit[*member]);
        // a / weight(a) < b / weight(b), without division.
        fit.reduce(|best, member| {
            let (mine, theirs) = (
                u64::from(self.members[best].weight),
                u64::from(self.members[member].weight),
            );
            if sessions(member) * mine < sessions(best) * theirs {
                member
            } else {
                best
            }
        })
    }

    /// Says anew who is fit.
    fn plan(&mut self) {
        let may = |member: &Member| member.resolved && !member.drain && !member.shadow;
        let chosen: [&dyn Fn(&Member) -> bool; 3] = [
            &|member| may(member) && member.alive && !member.backup,
            &|member| may(member) && member.alive,
            &|member| may(member) && self.fail_open,
        ];
        let is_chosen = chosen
            .into_iter()
            .find(|chosen| self.members.iter().any(chosen));
        self.fit = match is_chosen {
            Some(is_chosen) => self.members.iter().map(is_chosen).collect(),
            None => vec![false; self.members.len()],
        };
        self.is_schedule_old = true;
        self.is_all_alive = self.members.iter().all(|member| member.alive);
    }
}

/// A sequence in which each fit member stands as often as its weight says, as evenly spread as can be (smooth weighted
/// round robin: everybody earns their weight, the richest goes next and pays the sum).
fn schedule(members: &[Member], fit: &[bool]) -> Vec<u16> {
    let places: Vec<usize> = (0..members.len()).filter(|member| fit[*member]).collect();
    let weights: Vec<i64> = scaled(
        places
            .iter()
            .map(|member| u64::from(members[*member].weight))
            .collect(),
    );
    let sum: i64 = weights.iter().sum();
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return places.into_iter().map(number::to_u16).collect();
    }
    let mut earned = vec![0_i64; weights.len()];
    let mut next = || {
        earned
            .iter_mut()
            .zip(&weights)
            .for_each(|(earned, weight)| *earned += weight);
        let richest =
            (0..earned.len()).max_by_key(|place| (earned[*place], std::cmp::Reverse(*place)))?;
        earned[richest] -= sum;
        Some(number::to_u16(places[richest]))
    };
    (0..sum).filter_map(|_| next()).collect()
}

/// The weights without a common divisor, and small enough that a schedule of their sum is quickly made.
fn scaled(weights: Vec<u64>) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|weight| weight / divisor).sum();
    // The sequence costs its length times the number of members to make.
    let longest = (SCHEDULE_MAX * 16 / weights.len().max(1) as u64)
        .min(SCHEDULE_MAX)
        .max(weights.len() as u64);
    let shrink = sum.div_ceil(longest).max(1);
    weights
        .iter()
        .map(|weight| (weight / divisor).div_ceil(shrink).cast_signed())
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
