//! Neighbours of an entry in a doubly linked list through a slab.

/// No neighbour.
pub const NONE: u32 = u32::MAX;

/// An entry's neighbours in one list.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub previous: u32,
    pub next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            previous: NONE,
            next: NONE,
        }
    }
}
