//! A wheel of deadlines. Traffic moves a session's deadline all the time, so an entry stays where it is until its slot's
//! time comes, and only then moves on to where it belongs by now: a datagram costs the wheel nothing.

use super::Session;
use super::list::{Link, NONE, link};
use crate::dispatch::time::Time;

/// Slots in a turn of the wheel; the longest deadline takes half of them.
const SLOTS: u64 = 256;
/// The shortest time that a slot stands for: deadlines are kept to a hundredth of a second at best.
const SLOT_NS_MIN: u64 = 10_000_000;

/// The lists of the wheel's slots.
#[derive(Debug)]
pub struct InWheel;

#[derive(Debug)]
pub struct Wheel {
    slot_ns: u64,
    slots: Vec<u32>,
    /// The slot whose entries are looked at next, counted from the beginning of time.
    at: u64,
    entries: u32,
}

impl Wheel {
    /// For deadlines up to `longest_ns` ahead.
    pub fn new(longest_ns: u64) -> Wheel {
        let slot_ns = (longest_ns / (SLOTS / 2)).max(SLOT_NS_MIN);
        Wheel { slot_ns, slots: vec![NONE; SLOTS as usize], at: 0, entries: 0 }
    }

    /// Adds an entry.
    pub fn insert(&mut self, slab: &mut [Session], place: u32, deadline: Time, now: Time) {
        // An idle wheel has not turned: nothing is in the slots between.
        if self.entries == 0 {
            self.at = now.0 / self.slot_ns;
        }
        self.put(slab, place, deadline);
    }

    fn put(&mut self, slab: &mut [Session], place: u32, deadline: Time) {
        self.entries += 1;
        // The slot after the deadline's own: looked at when all of it has passed.
        let slot = (deadline.0 / self.slot_ns + 1).clamp(self.at, self.at + SLOTS - 1);
        let first = &mut self.slots[(slot % SLOTS) as usize];
        let next = std::mem::replace(first, place);
        // The first entry of a slot has the slot's own number before it, marked by being no entry's.
        *link::<InWheel>(slab, place) = Link { previous: head(slot), next };
        if next != NONE {
            link::<InWheel>(slab, next).previous = place;
        }
    }

    /// Takes an entry out.
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

    /// An entry whose deadline has passed; it stays in the wheel until it is removed.
    pub fn expired(&mut self, slab: &mut [Session], now: Time, deadline: impl Fn(&Session) -> Time) -> Option<u32> {
        let present = now.0 / self.slot_ns;
        // After a long sleep one turn sees everything.
        self.at = self.at.max(present.saturating_sub(SLOTS - 1));
        while self.at <= present {
            let first = self.slots[(self.at % SLOTS) as usize];
            if first == NONE {
                self.at += 1;
                continue;
            }
            let due = deadline(&slab[first as usize]);
            if due <= now {
                return Some(first);
            }
            self.remove(slab, first);
            // Not into the slot that is being emptied.
            self.put(slab, first, Time(due.0.max((self.at + 1) * self.slot_ns)));
        }
        None
    }

    /// When the next slot's time comes.
    pub fn due(&self) -> Time {
        let next = (self.at..self.at + SLOTS).find(|slot| self.slots[(slot % SLOTS) as usize] != NONE);
        Time(next.unwrap_or(self.at) * self.slot_ns)
    }
}

/// Numbers from here up to [`NONE`] stand for slots.
const HEADS: u32 = NONE - SLOTS as u32;

fn head(slot: u64) -> u32 {
    HEADS + (slot % SLOTS) as u32
}

fn slot_of(previous: u32) -> Option<usize> {
    (HEADS..NONE).contains(&previous).then(|| (previous - HEADS) as usize)
}
