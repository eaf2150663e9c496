//! The verb: what a handler is, and the context it acts in.

/// Does something with each datagram of its routes.
pub trait Handler: Send {}
