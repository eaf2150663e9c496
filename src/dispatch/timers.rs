//! When handlers want to be called for the sake of time. Of thousands, only those that were called since have to be asked
//! again.

use super::handler::{Handler, HandlerId};
use super::time::Time;

/// What each handler said when it was last asked.
#[derive(Debug)]
pub struct Timers {
    each: Vec<Option<Time>>,
    /// Those that have been called since.
    stale: Vec<HandlerId>,
    is_stale: Vec<bool>,
    /// Before this, none of them is due.
    first: Option<Time>,
}

impl Timers {
    /// Of so many handlers, none of which was asked.
    pub fn new(count: usize) -> Timers {
        let stale = (0..count).map(HandlerId::new).collect();
        Timers {
            each: vec![None; count],
            stale,
            is_stale: vec![true; count],
            first: None,
        }
    }

    /// A handler was called, so it may have changed its mind.
    #[inline]
    pub fn called(&mut self, handler: HandlerId) {
        if !std::mem::replace(&mut self.is_stale[handler.index()], true) {
            self.stale.push(handler);
        }
    }

    /// No later than the first of them is due.
    pub fn first(&mut self, handlers: &[Box<dyn Handler>]) -> Option<Time> {
        for handler in self.stale.drain(..) {
            self.is_stale[handler.index()] = false;
            let forwarding = handlers[handler.index()].forwarding();
            let deadline = forwarding.and_then(|forwarding| forwarding.deadline());
            self.each[handler.index()] = deadline;
            self.first = self.first.into_iter().chain(deadline).min();
        }
        self.first
    }

    /// Whether a handler is due.
    pub fn is_due(&self, handler: HandlerId, now: Time) -> bool {
        self.each[handler.index()].is_some_and(|deadline| deadline <= now)
    }

    /// All that were due have been called.
    pub fn settle(&mut self, handlers: &[Box<dyn Handler>]) {
        self.first(handlers);
        self.first = self.each.iter().flatten().min().copied();
    }
}
