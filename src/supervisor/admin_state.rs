//! The state that the supervisor keeps to respond to requests.

use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::config::Config;
use crate::handover::running::{Running, Stopped};
use crate::observe::snapshot::{Alarm, Snapshot};
use crate::observe::tap::TapReaders;
use crate::plan::Plan;
use crate::supervisor::accounts::{Accounts, SnapshotContext};
use crate::supervisor::drain::Drained;
use crate::supervisor::requests::{Request, RequestQueue, Requests};

/// The state that the supervisor keeps to respond to requests.
pub(crate) struct AdminState {
    /// The handle through which threads send requests.
    pub(crate) requests: Requests,
    /// The waiting requests; `None` once the daemon is stopping.
    queue: Option<RequestQueue>,
    /// The accounts and history that snapshots are made from.
    pub(crate) accounts: Accounts,
    /// Upstreams that were drained by command.
    pub(crate) drained: Drained,
    /// The taps and their readers.
    pub(crate) tap_readers: TapReaders,
}

impl AdminState {
    /// Returns the state for a configuration that is about to be served. `waker` wakes the supervisor. Time is counted
    /// from `epoch`.
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

    /// Takes over the upstreams that were drained in another process, and its generation.
    pub(crate) fn inherit(&mut self, drained: Vec<(String, String)>, generation: u64) {
        self.drained = Drained::inherited(drained);
        self.accounts.inherit(generation);
    }

    /// Returns the next request, if one waits.
    pub(crate) fn next_request(&self) -> Option<Request> {
        self.queue.as_ref().and_then(RequestQueue::next)
    }

    /// Refuses all requests from now on and ends all taps, because the daemon is about to exit.
    pub(crate) fn close(&mut self) {
        self.queue = None;
        self.tap_readers.close();
    }

    /// Returns the accounts of all workers, as [`Accounts::snapshot`] does. `found` are alarms that the host watch
    /// found.
    pub(crate) fn snapshot(&mut self, running: &mut Running, found: Vec<Alarm>) -> Snapshot {
        let context = SnapshotContext {
            requests: &self.requests,
            drained: self.drained.names(),
            found,
        };
        self.accounts.snapshot(running, context)
    }

    /// Returns the final accounts, when the workers have returned their ledgers.
    pub(crate) fn last_snapshot(
        &mut self,
        running: &mut Running,
        stopped: &Stopped,
        found: Vec<Alarm>,
    ) -> Snapshot {
        let context = SnapshotContext {
            requests: &self.requests,
            drained: self.drained.names(),
            found,
        };
        self.accounts.last_snapshot(running, stopped, context)
    }
}
