//! The requests to the running daemon, for every kind of client. The supervisor handles them between checks for signals
//! (`commands.rs`), so each response describes one moment. Each client sets how long it waits.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::LevelFilter;
use mio::Waker;

use crate::build::error::Refusal;
use crate::observe::admin_stats::AdminStats;
use crate::observe::conditions::Conditions;
use crate::observe::snapshot::Snapshot;
use crate::observe::tap::{TapQuery, Tapped};
use crate::plan::explain::Imagined;
use crate::supervisor::reload_report::ReloadReport;
use crate::supervisor::responder::Responder;
use crate::supervisor::sessions::{SessionList, SessionQuery};

/// Largest number of requests that wait for the supervisor, for operators and for TCP clients each. A request takes far
/// less than a second, usually a millisecond.
pub const QUEUE_MAX: usize = 64;

/// A request to the supervisor.
#[derive(Debug)]
pub enum Request {
    /// Return all accounts and states.
    Snapshot(Responder<Box<Snapshot>>),
    /// List sessions.
    Sessions(SessionQuery, Responder<Result<SessionList, Refusal>>),
    /// Explain what would happen to a datagram.
    Explain(Imagined, Responder<Result<String, Refusal>>),
    /// Read the file again, and apply the changes or only report them.
    Reload {
        /// Whether to only report the changes.
        is_dry_run: bool,
        /// Receives the report.
        responder: Responder<ReloadReport>,
    },
    /// Drain an upstream, or end its drain.
    Drain {
        /// `HANDLER/ADDRESS`, or only the address if a single handler has it.
        upstream: String,
        /// Whether to drain; `false` ends the drain.
        drain: bool,
        /// Receives a sentence that says what was done.
        responder: Responder<Result<String, Refusal>>,
    },
    /// Begin a tap.
    Tap(TapQuery, Responder<Result<Tapped, Refusal>>),
    /// Set the log level.
    Log(LevelFilter, Responder<String>),
    /// Stop in order, as on SIGTERM.
    Stop(Responder<String>),
}

/// Why a request was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The queue is full.
    #[error("too many requests wait already; try again in a moment")]
    Busy,
    /// The daemon is about to exit.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The handle through which any thread sends requests.
#[derive(Debug, Clone)]
pub struct Requests {
    queue: Sender<Request>,
    tcp_clients: Sender<Request>,
    waker: Arc<Waker>,
    /// The counters of the control socket.
    pub admin_stats: Arc<AdminStats>,
    /// The current conditions.
    pub conditions: Conditions,
}

impl Requests {
    /// Returns the handle of operators, and the queue of all requests. Each request wakes the queue's reader through
    /// `waker`.
    pub fn new(waker: Arc<Waker>) -> (Requests, RequestQueue) {
        let ((queue, operators), (tcp_clients, others)) = (bounded(QUEUE_MAX), bounded(QUEUE_MAX));
        let (admin_stats, conditions) = (Arc::default(), Conditions::default());
        (
            Requests {
                queue,
                tcp_clients,
                waker,
                admin_stats,
                conditions,
            },
            RequestQueue {
                operators,
                tcp_clients: others,
            },
        )
    }

    /// Returns the handle of TCP clients, which has its own queue. Their requests wait even after they disconnect, and
    /// must not keep an operator's request from the queue.
    pub fn of_tcp_clients(&self) -> Requests {
        Requests {
            queue: self.tcp_clients.clone(),
            ..self.clone()
        }
    }

    /// Queues a request for the supervisor.
    ///
    /// # Errors
    ///
    /// Returns [`QueueError::Busy`] if the queue is full, which is also counted. Returns [`QueueError::Stopping`] if
    /// the supervisor accepts no more requests or cannot be woken.
    pub fn send(&self, request: Request) -> Result<(), QueueError> {
        self.queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.admin_stats.refused_busy.more();
                QueueError::Busy
            }
            TrySendError::Disconnected(_) => QueueError::Stopping,
        })?;
        self.wake().map_err(|_| QueueError::Stopping)
    }

    /// Wakes the supervisor.
    pub(crate) fn wake(&self) -> std::io::Result<()> {
        self.waker.wake()
    }
}

/// The waiting requests of operators and of TCP clients.
#[derive(Debug)]
pub struct RequestQueue {
    operators: Receiver<Request>,
    tcp_clients: Receiver<Request>,
}

impl RequestQueue {
    /// Returns the next request. Requests of operators come before those of TCP clients.
    pub(crate) fn next(&self) -> Option<Request> {
        self.operators
            .try_recv()
            .or_else(|_| self.tcp_clients.try_recv())
            .ok()
    }
}
