//! So many of something, over all workers.

use std::sync::atomic::{AtomicU32, Ordering};

/// A number of places that workers take and give back.
#[derive(Debug)]
pub struct Limit {
    max: u32,
    taken: AtomicU32,
}

impl Limit {
    /// So many places.
    pub fn new(max: u32) -> Limit {
        Limit {
            max,
            taken: AtomicU32::new(0),
        }
    }

    /// How many there are.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// How many are taken.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one; `false` if none is left.
    pub fn take(&self) -> bool {
        let room = |taken: u32| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
    }

    /// Takes one even where none is left: its user is there already.
    pub fn force(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one back that was taken.
    pub fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
