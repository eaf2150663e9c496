//! A set of upstreams and a way to pick one of them. Who is fit to be picked (alive, not draining, not kept back as a
//! backup) changes rarely, so every pick is a look into a schedule that was made when that last changed.

use std::sync::Arc;

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
        return places.into_iter().map(|member| member as u16).collect();
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
        Some(places[richest] as u16)
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
        .map(|weight| ((weight / divisor).div_ceil(shrink)) as i64)
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::maglev::hash_bytes;
    use super::*;

    const PLAIN: Member = Member {
        name: 0,
        weight: 1,
        backup: false,
        drain: false,
        alive: true,
        resolved: true,
        shadow: false,
    };

    fn pool(members: &[Member], pick: Pick) -> Pool {
        let names: Vec<(String, u32)> = members
            .iter()
            .enumerate()
            .map(|(n, member)| (format!("10.0.0.{n}:53"), member.weight))
            .collect();
        let named = |(member, (name, _)): (&Member, &(String, u32))| Member {
            name: hash_bytes(name.as_bytes()),
            ..*member
        };
        let members: Vec<Member> = members.iter().zip(&names).map(named).collect();
        Pool::new(members, pick, true, Some(Arc::new(Maglev::new(&names))), 1)
    }

    fn picks(pool: &mut Pool, count: u64) -> Vec<u64> {
        let mut counts = vec![0; pool.members.len()];
        for key in 0..count {
            counts[pool.pick(|| mix(key), |_| 0).expect("somebody is fit")] += 1;
        }
        counts
    }

    /// Weights are kept exactly in turn, nearly at random and by hash.
    #[test]
    fn weights() {
        let members = [
            Member { weight: 5, ..PLAIN },
            PLAIN,
            Member { weight: 2, ..PLAIN },
        ];
        assert_eq!(
            picks(&mut pool(&members, Pick::RoundRobin), 8_000),
            [5_000, 1_000, 2_000]
        );
        for pick in [Pick::Random, Pick::Hash] {
            let counts = picks(&mut pool(&members, pick), 8_000);
            assert!(
                counts[0].abs_diff(5_000) < 250 && counts[1].abs_diff(1_000) < 150,
                "{pick:?}: {counts:?}"
            );
        }
        let mut mixed = pool(&members, Pick::RoundRobin);
        let first: Vec<_> = (0..8).filter_map(|_| mixed.pick(|| 0, |_| 0)).collect();
        assert_eq!(first, [0, 2, 0, 0, 1, 0, 2, 0], "evenly spread");
    }

    /// Who is dead or draining gets nothing, a backup only when it is needed, and everybody when all are dead.
    #[test]
    fn fitness() {
        let members = [
            PLAIN,
            PLAIN,
            Member {
                backup: true,
                ..PLAIN
            },
        ];
        for pick in [
            Pick::RoundRobin,
            Pick::Random,
            Pick::Hash,
            Pick::LeastSessions,
            Pick::FirstAlive,
        ] {
            let mut pool = pool(&members, pick);
            assert_eq!(picks(&mut pool, 100)[2], 0, "{pick:?}");
            pool.change(0, |member| member.alive = false);
            assert_eq!(picks(&mut pool, 100), [0, 100, 0], "{pick:?}");
            pool.change(1, |member| member.drain = true);
            assert_eq!(picks(&mut pool, 100), [0, 0, 100], "{pick:?}");
            pool.change(2, |member| member.alive = false);
            assert_eq!(
                picks(&mut pool, 100)[1],
                0,
                "{pick:?}: nobody is alive, so all may, but for who drains"
            );
            pool.fail_open = false;
            pool.plan();
            assert_eq!(pool.pick(|| 1, |_| 0), None);
        }
    }

    /// The fewest sessions for the weight.
    #[test]
    fn least_sessions() {
        let mut pool = pool(
            &[PLAIN, Member { weight: 3, ..PLAIN }, PLAIN],
            Pick::LeastSessions,
        );
        let sessions = [2, 5, 2];
        assert_eq!(
            pool.pick(|| 0, |member| sessions[member]),
            Some(1),
            "5 / 3 is less than 2"
        );
        let sessions = [2, 7, 1];
        assert_eq!(pool.pick(|| 0, |member| sessions[member]), Some(2));
    }

    /// A lost upstream moves its own clients and nobody else's, and they come home when it is back.
    #[test]
    fn a_lost_upstream_moves_its_own_clients() {
        let mut pool = pool(&[PLAIN; 10], Pick::Hash);
        let before: Vec<_> = (0..50_000)
            .map(|key| pool.pick(|| mix(key), |_| 0))
            .collect();
        pool.change(3, |member| member.alive = false);
        let during: Vec<_> = (0..50_000)
            .map(|key| pool.pick(|| mix(key), |_| 0))
            .collect();
        let moved = before
            .iter()
            .zip(&during)
            .filter(|(before, during)| before != during);
        assert!(moved.clone().all(|(before, _)| *before == Some(3)) && moved.count() > 4_000);
        let mut counts = [0_u32; 10];
        before
            .iter()
            .zip(&during)
            .filter(|(b, _)| **b == Some(3))
            .for_each(|(_, d)| counts[d.unwrap()] += 1);
        assert!(
            counts
                .iter()
                .enumerate()
                .all(|(n, count)| n == 3 || *count > 300),
            "spread over all: {counts:?}"
        );
        pool.change(3, |member| member.alive = true);
        assert_eq!(
            before,
            (0..50_000)
                .map(|key| pool.pick(|| mix(key), |_| 0))
                .collect::<Vec<_>>()
        );
    }

    /// Whatever the weights and whoever comes and goes: only those that are fit are picked, in turn as often as their
    /// weights say, and by hash nobody moves whose own is still there.
    #[test]
    fn any_weights_and_changes() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let weight = |random: &mut Random| [1, 1, 2, 3, 10, 100, 1_000][random.below(7)];
            let member = |random: &mut Random| Member {
                weight: weight(random),
                backup: random.below(5) == 0,
                ..PLAIN
            };
            let members: Vec<Member> = (0..2 + random.below(9))
                .map(|_| member(&mut random))
                .collect();
            let (mut turns, mut hash) =
                (pool(&members, Pick::RoundRobin), pool(&members, Pick::Hash));
            let keys: Vec<u64> = (0..300).map(mix).collect();
            let mut before: Option<(Vec<bool>, Vec<usize>)> = None;
            for _ in 0..12 {
                let (place, part, to) = (
                    random.below(members.len()),
                    random.below(3),
                    random.below(2) == 0,
                );
                for pool in [&mut turns, &mut hash] {
                    pool.change(place, |member| match part {
                        0 => member.alive = to,
                        1 => member.drain = to,
                        _ => member.resolved = to,
                    });
                }
                let fit: Vec<usize> = (0..members.len())
                    .filter(|place| turns.is_fit(*place))
                    .collect();
                if fit.is_empty() {
                    assert_eq!(
                        (turns.pick(|| 0, |_| 0), hash.pick(|| 0, |_| 0)),
                        (None, None)
                    );
                    before = None;
                    continue;
                }
                let divisor = fit
                    .iter()
                    .map(|place| u64::from(members[*place].weight))
                    .fold(0, gcd);
                let length = fit
                    .iter()
                    .map(|place| u64::from(members[*place].weight))
                    .sum::<u64>()
                    / divisor;
                let counts = picks(&mut turns, length);
                for (place, count) in counts.into_iter().enumerate() {
                    let expected = if turns.is_fit(place) {
                        u64::from(members[place].weight) / divisor
                    } else {
                        0
                    };
                    assert_eq!(count, expected, "seed {seed}: {place} of {fit:?}");
                }
                let chosen: Vec<usize> = keys
                    .iter()
                    .map(|key| hash.pick(|| *key, |_| 0).unwrap())
                    .collect();
                assert!(chosen.iter().all(|place| fit.contains(place)));
                if let Some((others, old)) = before {
                    let shrank = fit.iter().all(|place| others[*place]);
                    let moved = old
                        .iter()
                        .zip(&chosen)
                        .filter(|(old, new)| shrank && old != new);
                    assert!(
                        moved.clone().all(|(old, _)| !hash.is_fit(*old)),
                        "seed {seed}: whose own is there moved"
                    );
                }
                before = Some((hash.fit.clone(), chosen));
            }
        }
    }

    /// A thousand upstreams with many weights die and return at once: that takes no longer than looking at each of them.
    #[test]
    fn many_changes_at_once() {
        let members: Vec<Member> = (1..=1_000)
            .map(|weight| Member { weight, ..PLAIN })
            .collect();
        let mut pool = pool(&members, Pick::RoundRobin);
        let begun = std::time::Instant::now();
        for alive in [false, true] {
            (0..members.len())
                .for_each(|member| pool.change(member, |member| member.alive = alive));
        }
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(picks(&mut pool, 10).iter().sum::<u64>(), 10);
    }
}
