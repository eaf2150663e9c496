//! A limit on the number of objects, shared by all workers.

use std::sync::atomic::{AtomicU32, Ordering};

/// A number of places that workers take and give back.
#[derive(Debug)]
pub struct Limit {
    max: u32,
    taken: AtomicU32,
}

impl Limit {
    /// Creates a limit of `max` places, none of which is taken.
    pub fn new(max: u32) -> Limit {
        Limit {
            max,
            taken: AtomicU32::new(0),
        }
    }

    /// Returns the number of places.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Returns the number of places that are taken. It may exceed [`Limit::max`] after [`Limit::force`].
    #[cfg(test)]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes a place. Returns `false` if none is left.
    pub fn take(&self) -> bool {
        let room = |taken: u32| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
    }

    /// Takes a place even if none is left, because its user exists already.
    pub fn force(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back a place that was taken.
    pub fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
