//! What is to be sent, as data.

/// One way out: an upstream's socket in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(pub u32);
