//! The timers of the handlers. There may be thousands of handlers, so the deadline of a handler is read again only
//! after the handler was called.

use super::handler::{Handler, HandlerId};
use super::time::Time;

/// The deadline of each handler, as it was last read.
#[derive(Debug)]
pub struct Timers {
    each: Vec<Option<Time>>,
    /// The handlers that have been called since their deadline was last read.
    stale: Vec<HandlerId>,
    is_stale: Vec<bool>,
    /// No handler is due before this time.
    first: Option<Time>,
}

impl Timers {
    /// Creates timers for this number of handlers, whose deadlines have not been read yet.
    pub fn new(count: usize) -> Timers {
        let stale = (0..count).map(HandlerId::new).collect();
        Timers {
            each: vec![None; count],
            stale,
            is_stale: vec![true; count],
            first: None,
        }
    }

    /// Records that a handler was called, so that its deadline may have changed.
    #[inline]
    pub fn called(&mut self, handler: HandlerId) {
        if !std::mem::replace(&mut self.is_stale[handler.index()], true) {
            self.stale.push(handler);
        }
    }

    /// Returns a time that is not later than the first deadline, or `None` if there is none.
    pub fn first(&mut self, handlers: &[Box<dyn Handler>]) -> Option<Time> {
        for handler in self.stale.drain(..) {
            self.is_stale[handler.index()] = false;
            let forwarding = handlers[handler.index()].forwarding();
            let deadline = forwarding.and_then(super::handler::Forwarding::deadline);
            self.each[handler.index()] = deadline;
            self.first = self.first.into_iter().chain(deadline).min();
        }
        self.first
    }

    /// Returns whether a handler's deadline has passed.
    pub fn is_due(&self, handler: HandlerId, now: Time) -> bool {
        self.each[handler.index()].is_some_and(|deadline| deadline <= now)
    }

    /// Recomputes the first deadline after all handlers that were due have been called.
    pub fn settle(&mut self, handlers: &[Box<dyn Handler>]) {
        self.first(handlers);
        self.first = self.each.iter().flatten().min().copied();
    }
}
