//! Timer wheel for session expiry. A datagram only updates the session's last-seen time; the entry is not moved. When
//! the entry's slot comes up, the deadline is recomputed. If it is still in the future, the entry is inserted again.
//! Expiry is reported at most two slots late and never early.

use super::link::{Link, NONE};
use super::list::link;
use super::session::Session;
use crate::dispatch::time::Time;
use crate::number;

/// The number of slots of the wheel. An entry further ahead waits in the last slot, and moves on from there.
const SLOTS: u64 = 256;
/// The shortest duration of a slot. Deadlines are kept to a hundredth of a second at best.
const SLOT_NS_MIN: u64 = 10_000_000;

/// The kind of the lists of the wheel's slots.
#[derive(Debug)]
pub struct InWheel;

#[derive(Debug)]
pub struct Wheel {
    slot_ns: u64,
    slots: Vec<u32>,
    /// The number of the slot whose entries are checked next, counted from time zero.
    at: u64,
    entries: u32,
}

impl Wheel {
    /// Creates a wheel for deadlines from `shortest_ns` to `longest_ns` ahead. A slot is a small part of either.
    pub fn new(shortest_ns: u64, longest_ns: u64) -> Wheel {
        let slot_ns = (longest_ns / (SLOTS / 2))
            .min(shortest_ns / 8)
            .max(SLOT_NS_MIN);
        Wheel {
            slot_ns,
            slots: vec![NONE; number::to_usize(SLOTS)],
            at: 0,
            entries: 0,
        }
    }

    /// Adds an entry.
    pub fn insert(&mut self, slab: &mut [Session], place: u32, deadline: Time, now: Time) {
        // An empty wheel has not turned: no slot in between has entries.
        if self.entries == 0 {
            self.at = now.0 / self.slot_ns;
        }
        self.put(slab, place, deadline);
    }

    fn put(&mut self, slab: &mut [Session], place: u32, deadline: Time) {
        self.entries += 1;
        // The slot after the deadline's own is checked when all of the deadline's slot has passed.
        let slot = (deadline.0 / self.slot_ns + 1).clamp(self.at, self.at + SLOTS - 1);
        let first = &mut self.slots[(slot % SLOTS) as usize];
        let next = std::mem::replace(first, place);
        // The previous neighbour of a slot's first entry is the slot itself, in a range of numbers that no entry has.
        *link::<InWheel>(slab, place) = Link {
            previous: head(slot),
            next,
        };
        if next != NONE {
            link::<InWheel>(slab, next).previous = place;
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, slab: &mut [Session], place: u32) {
        self.entries -= 1;
        let Link { previous, next } = std::mem::take(link::<InWheel>(slab, place));
        match slot_of(previous) {
            Some(slot) => self.slots[slot] = next,
            None => link::<InWheel>(slab, previous).next = next,
        }
        if next != NONE {
            link::<InWheel>(slab, next).previous = previous;
        }
    }

    /// Returns an entry whose deadline has passed. It stays in the wheel until it is removed.
    pub fn expired(
        &mut self,
        slab: &mut [Session],
        now: Time,
        deadline: impl Fn(&Session) -> Time,
    ) -> Option<u32> {
        let present = now.0 / self.slot_ns;
        // After a long sleep, one turn of the wheel visits all slots.
        self.at = self.at.max(present.saturating_sub(SLOTS - 1));
        while self.at <= present {
            let first = self.slots[(self.at % SLOTS) as usize];
            if first == NONE {
                self.at += 1;
                continue;
            }
            let at = deadline(&slab[first as usize]);
            if at <= now {
                return Some(first);
            }
            self.remove(slab, first);
            // The entry must not return to the slot that is being emptied.
            self.put(slab, first, Time(at.0.max((self.at + 1) * self.slot_ns)));
        }
        None
    }

    /// Returns when the next slot with entries comes up.
    pub fn deadline(&self) -> Time {
        let next =
            (self.at..self.at + SLOTS).find(|slot| self.slots[(slot % SLOTS) as usize] != NONE);
        Time(next.unwrap_or(self.at) * self.slot_ns)
    }
}

/// Numbers from here up to [`NONE`] stand for slots.
const HEADS: u32 = NONE - number::to_u32(number::to_usize(SLOTS));

fn head(slot: u64) -> u32 {
    HEADS + (slot % SLOTS) as u32
}

fn slot_of(previous: u32) -> Option<usize> {
    (HEADS..NONE)
        .contains(&previous)
        .then(|| (previous - HEADS) as usize)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dispatch::id::{LocalListener, RouteId};
    use crate::dispatch::random::Random;
    use crate::dispatch::sessions::{Lifetimes, SessionId, SessionKey, Sessions};

    /// A session as a plain list keeps it.
    struct Listed {
        id: SessionId,
        seen: Time,
        is_assured: bool,
    }

    fn key(number: u64) -> SessionKey {
        let local = "192.0.2.1:53".parse().unwrap();
        let client =
            std::net::SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 4_000));
        SessionKey {
            client,
            local,
            route: Some(RouteId((number >> 16) as u32)),
        }
    }

    /// Expiry matches a plain list. No session expires before its deadline. Each expires at most two slots after it
    /// when the wheel is called at its deadlines, and at once after a long sleep. The wheel's own deadline is never
    /// too late.
    #[test]
    fn deadlines_as_in_a_plain_list() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let idle = [50_000_000, 1_000_000_000, 60_000_000_000][random.below(3)];
            let unreplied = idle / [1, 2, 12][random.below(3)];
            let lifetimes = Lifetimes {
                idle: Duration::from_nanos(idle),
                unreplied: Duration::from_nanos(unreplied),
            };
            let late_max = 2 * (idle / 128).max(10_000_000);
            let mut table = Sessions::new(64, 0, lifetimes, seed);
            let mut list: Vec<Listed> = Vec::new();
            let deadline =
                |one: &Listed| one.seen.0 + if one.is_assured { idle } else { unreplied };
            let (mut now, mut number) = (Time(random.number() % (10 * idle)), 0);
            for _ in 0..400 {
                match random.below(8) {
                    0..3 => {
                        number += 1;
                        let id = table.insert(key(number), LocalListener::new(0), 0, now);
                        list.push(Listed {
                            id,
                            seen: now,
                            is_assured: false,
                        });
                    }
                    3 | 4 if !list.is_empty() => {
                        let place = random.below(list.len());
                        let one = &mut list[place];
                        if random.below(2) == 0 {
                            table.assure(one.id);
                            one.is_assured = true;
                        }
                        table.get_mut(one.id).seen = now;
                        one.seen = now;
                    }
                    5 if !list.is_empty() => {
                        table.remove(list.swap_remove(random.below(list.len())).id);
                    }
                    // A sleep, sometimes through several turns of the wheel.
                    6 => now = Time(now.0 + random.number() % (idle * [1, 1, 8][random.below(3)])),
                    _ => {
                        let later = now.0 + random.number() % idle;
                        now = Time(
                            table
                                .deadline()
                                .map_or(later, |deadline| deadline.0.max(now.0).min(later)),
                        );
                    }
                }
                while let Some(id) = (random.below(4) > 0).then(|| table.expired(now)).flatten() {
                    let place = list
                        .iter()
                        .position(|one| one.id == id)
                        .expect("it is open");
                    assert!(
                        deadline(&list[place]) <= now.0,
                        "seed {seed}: ended too soon"
                    );
                    list.swap_remove(place);
                    table.remove(id);
                }
                assert_eq!(table.len() as usize, list.len());
                let unreplied = list.iter().filter(|one| !one.is_assured).count();
                assert_eq!(table.unreplied() as usize, unreplied);
                let next = table.deadline();
                assert_eq!(next.is_none(), list.is_empty());
                let first = list.iter().map(deadline).min();
                assert!(
                    first.is_none_or(|first| next.unwrap().0 <= now.0.max(first + late_max)),
                    "seed {seed}: the deadline of the wheel is too late"
                );
            }
            while let Some(id) = table.expired(Time(now.0 + 9 * idle)) {
                table.remove(id);
            }
            assert!(
                table.is_empty(),
                "seed {seed}: after a long sleep one turn sees everything"
            );
        }
    }
}
