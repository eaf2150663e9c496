//! The neighbours of an entry in a doubly linked list through a slab.

/// Marks the absence of a neighbour.
pub const NONE: u32 = u32::MAX;

/// The neighbours of an entry in one list.
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
