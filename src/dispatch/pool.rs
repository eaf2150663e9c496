//! A set of upstreams and a way to pick one of them. An upstream is fit to be picked if it is alive, not draining and
//! not held back as a backup. This changes rarely, so every pick reads a schedule that was made at the last change.

use std::sync::Arc;

use crate::number;

use super::maglev::{Maglev, mix};
use super::random::Random;

/// The length of the longest schedule. Larger sums of weights are scaled down to it.
const SCHEDULE_MAX: u64 = 65_536;
/// The number of further places that a hash tries if the upstream at the first place is not fit. If none of them is
/// fit, rendezvous hashing decides.
const HASH_TRIES: u32 = 16;

/// The rule by which an upstream is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The upstreams in turn, each in proportion to its weight.
    RoundRobin,
    /// An upstream at random, in proportion to the weights.
    Random,
    /// Always one upstream for the same key, on every machine with the same upstreams.
    Hash,
    /// The upstream with the fewest sessions in relation to its weight.
    LeastSessions,
    /// The first alive upstream in the order of the file.
    FirstAlive,
}

/// One upstream of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// A hash of the upstream's name, the same on every machine.
    pub name: u64,
    /// The weight relative to the other members; at least 1.
    pub weight: u32,
    /// Whether the upstream is picked only while no other is fit.
    pub backup: bool,
    /// Whether the upstream is draining, so that it gets nothing new.
    pub drain: bool,
    /// Whether the upstream is considered alive.
    pub alive: bool,
    /// Whether the upstream has an address.
    pub resolved: bool,
    /// Whether the upstream gets copies only, so that it is never picked.
    pub shadow: bool,
}

/// The rule of a pool, and what the rule needs.
#[derive(Debug)]
pub struct PickRule {
    /// The rule itself.
    pub pick: Pick,
    /// Whether to pick as if all members were alive when none is.
    pub fail_open: bool,
    /// The table over all members, which only [`Pick::Hash`] needs.
    pub maglev: Option<Arc<Maglev>>,
}

/// The members and the state of picking.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    rule: PickRule,
    random: Random,
    /// The members that may be picked now, evenly mixed. Each occurs in proportion to its weight.
    schedule: Vec<u16>,
    /// Whether the set of fit members has changed since the schedule was made. With many weights a schedule takes
    /// milliseconds, and many members may die or return at once. It is therefore made at the next pick.
    is_schedule_old: bool,
    turn: usize,
    fit: Vec<bool>,
    is_all_alive: bool,
}

impl Pool {
    /// Creates a pool. `seed` starts the random numbers of [`Pick::Random`].
    pub fn new(members: Vec<Member>, rule: PickRule, seed: u64) -> Pool {
        let mut pool = Pool {
            members,
            rule,
            random: Random::new(seed),
            schedule: Vec::new(),
            is_schedule_old: true,
            turn: 0,
            fit: Vec::new(),
            is_all_alive: true,
        };
        pool.plan();
        pool
    }

    /// Returns the members, in the order in which they were given.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Changes a member, and determines the fit members again if the member differs afterwards.
    pub fn change(&mut self, member: usize, change: impl FnOnce(&mut Member)) {
        let before = self.members[member];
        change(&mut self.members[member]);
        if before != self.members[member] {
            self.plan();
        }
    }

    /// Returns the position of [`Pick::RoundRobin`], for [`Pool::restore_turn`].
    pub fn turn(&self) -> u64 {
        self.turn as u64
    }

    /// Continues at the position of another pool with the same members.
    pub fn restore_turn(&mut self, turn: u64) {
        self.make_schedule();
        self.turn = usize::try_from(turn).map_or(0, |turn| turn % self.schedule.len().max(1));
    }

    /// Returns whether all members are considered alive.
    pub fn is_all_alive(&self) -> bool {
        self.is_all_alive
    }

    /// Returns whether the member may get something new.
    pub fn is_fit(&self, member: usize) -> bool {
        self.fit[member]
    }

    /// Returns whether the member gets what is sent to all members. A dead member does, because only its reply to
    /// such a datagram can show that it is alive again.
    pub fn is_fit_for_all(&self, member: usize) -> bool {
        let member = &self.members[member];
        member.resolved && !member.drain
    }

    /// Picks a member, or returns `None` if no member is fit. `key` decides under [`Pick::Hash`]. `sessions` returns
    /// the number of a member's sessions under [`Pick::LeastSessions`].
    pub fn pick(
        &mut self,
        key: impl FnOnce() -> u64,
        sessions: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        self.make_schedule();
        if self.schedule.len() <= 1 {
            return self.schedule.first().map(|only| usize::from(*only));
        }
        let member = match self.rule.pick {
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

    /// Returns the key's own member. While that member is not fit, the function returns another one, always the same
    /// for this key. The keys of other members do not move.
    fn by_hash(&self, mut key: u64) -> usize {
        if let Some(maglev) = &self.rule.maglev {
            for _ in 0..=HASH_TRIES {
                let member = maglev.pick(key);
                if self.fit[member] {
                    return member;
                }
                key = mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15));
            }
        }
        self.by_rendezvous(key)
    }

    /// Returns the fit member with the best draw for the key, in relation to its weight (weighted rendezvous
    /// hashing). The draws of other members do not change when a member comes or goes.
    fn by_rendezvous(&self, key: u64) -> usize {
        let draw = |member: usize| {
            let drawn = mix(key ^ self.members[member].name).max(1) as f64 / u64::MAX as f64;
            -drawn.ln() / f64::from(self.members[member].weight)
        };
        let fit = (0..self.members.len())
            .filter(|member| self.fit[*member])
            .map(|member| (draw(member), member));
        fit.min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0, |best| best.1)
    }

    fn least(&self, sessions: impl Fn(usize) -> u64) -> Option<usize> {
        let fit = (0..self.members.len()).filter(|member| self.fit[*member]);
        // a / weight(a) < b / weight(b), without division.
        fit.reduce(|best, member| {
            let mine = u64::from(self.members[best].weight);
            let theirs = u64::from(self.members[member].weight);
            if sessions(member) * mine < sessions(best) * theirs {
                member
            } else {
                best
            }
        })
    }

    /// Determines which members are fit.
    fn plan(&mut self) {
        let may = |member: &Member| member.resolved && !member.drain && !member.shadow;
        let chosen: [&dyn Fn(&Member) -> bool; 3] = [
            &|member| may(member) && member.alive && !member.backup,
            &|member| may(member) && member.alive,
            &|member| may(member) && self.rule.fail_open,
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

/// Returns a sequence in which each fit member occurs in proportion to its weight, as evenly spread as possible. The
/// method is smooth weighted round robin: in each step every member earns its weight. The member with the most is next,
/// and pays the sum of all weights.
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

/// Returns the weights without a common divisor, small enough that a schedule of their sum is made quickly.
fn scaled(weights: Vec<u64>) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|weight| weight / divisor).sum();
    // Making the sequence costs its length times the number of members.
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
