//! Doubly linked lists through a slab. Entries refer to their neighbours by number, so insertion and removal allocate
//! no memory.

use super::link::{Link, NONE};
use super::session::Session;

/// An entry that has neighbours in the list of kind `K`.
pub trait Linked<K> {
    fn link(&mut self) -> &mut Link;
}

/// The kind of the list of unreplied sessions.
#[derive(Debug)]
pub struct InQueue;

/// A first-in, first-out queue. Entries may also be removed from its middle.
#[derive(Debug)]
pub struct Queue {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }
}

impl Queue {
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn push(&mut self, slab: &mut [Session], place: u32) {
        self.len += 1;
        *link::<InQueue>(slab, place) = Link {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = place,
            last => link::<InQueue>(slab, last).next = place,
        }
        self.last = place;
    }

    pub fn remove(&mut self, slab: &mut [Session], place: u32) {
        self.len -= 1;
        let Link { previous, next } = std::mem::take(link::<InQueue>(slab, place));
        match previous {
            NONE => self.first = next,
            previous => link::<InQueue>(slab, previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => link::<InQueue>(slab, next).previous = previous,
        }
    }
}

/// Returns the neighbours of an entry.
pub fn link<K>(slab: &mut [Session], place: u32) -> &mut Link
where
    Session: Linked<K>,
{
    <Session as Linked<K>>::link(&mut slab[place as usize])
}
