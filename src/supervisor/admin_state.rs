//! What the supervisor remembers for its answers.

use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::config::Config;
use crate::handover::running::{Running, Stopped};
use crate::observe::snapshot::{Alarm, Snapshot};
use crate::observe::tap::TapReaders;
use crate::plan::Plan;
use crate::supervisor::accounts::{Accounts, Surroundings};
use crate::supervisor::drain::Drained;
use crate::supervisor::requests::{Request, RequestQueue, Requests};

/// What the supervisor remembers for its answers.
pub(crate) struct AdminState {
    /// The way to ask.
    pub(crate) requests: Requests,
    /// What is asked; `None` once the daemon is stopping.
    queue: Option<RequestQueue>,
    /// What snapshots are made from.
    pub(crate) accounts: Accounts,
    /// Upstreams that were drained by hand.
    pub(crate) drained: Drained,
    /// The taps.
    pub(crate) tap_readers: TapReaders,
}

impl AdminState {
    /// Begins with a configuration that is about to be served. `waker` wakes the supervisor; time is counted from `epoch`.
    pub(crate) fn new(
        config: &Config,
        plan: &Plan,
        waker: Arc<Waker>,
        epoch: Instant,
    ) -> AdminState {
        let (requests, queue) = Requests::new(waker);
        AdminState {
            requests,
            queue: Some(queue),
            accounts: Accounts::new(config, plan, epoch),
            drained: Drained::default(),
            tap_readers: TapReaders::default(),
        }
    }

    /// Takes over what operators had drained in another process, and its count of configurations.
    pub(crate) fn inherit(&mut self, drained: Vec<(String, String)>, generation: u64) {
        self.drained = Drained::inherited(drained);
        self.accounts.inherit(generation);
    }

    /// The next request, if one waits.
    pub(crate) fn next_request(&self) -> Option<Request> {
        self.queue.as_ref().and_then(RequestQueue::next)
    }

    /// Answers no request from now on, and ends all taps: the daemon is about to end.
    pub(crate) fn close(&mut self) {
        self.queue = None;
        self.tap_readers.close();
    }

    /// Returns the accounts of all workers, as [`Accounts::snapshot`] does. `found` are alarms of what the host shows.
    pub(crate) fn snapshot(&mut self, running: &mut Running, found: Vec<Alarm>) -> Snapshot {
        let around = Surroundings {
            requests: &self.requests,
            drained: self.drained.names(),
            found,
        };
        self.accounts.snapshot(running, around)
    }

    /// Returns the accounts at the end, when the workers have given their ledgers back.
    pub(crate) fn last_snapshot(
        &mut self,
        running: &mut Running,
        stopped: &Stopped,
        found: Vec<Alarm>,
    ) -> Snapshot {
        let around = Surroundings {
            requests: &self.requests,
            drained: self.drained.names(),
            found,
        };
        self.accounts.last_snapshot(running, stopped, around)
    }
}
