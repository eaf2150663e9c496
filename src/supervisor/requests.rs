//! What may be asked of the running daemon, by whichever way it is asked. The supervisor answers between two signals
//! (`commands.rs`), so an answer is of one moment; who asks waits no longer than it likes.

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

/// Requests that may wait for the supervisor, of operators and of TCP clients each. Each takes it far less than a second, as a rule
/// a thousandth.
pub const QUEUE_MAX: usize = 64;

/// Something that is asked for.
#[derive(Debug)]
pub enum Request {
    /// All accounts and states.
    Snapshot(Responder<Box<Snapshot>>),
    /// Who talks to whom.
    Sessions(SessionQuery, Responder<Result<SessionList, Refusal>>),
    /// What would become of a datagram.
    Explain(Imagined, Responder<Result<String, Refusal>>),
    /// Read the file again, and apply what changed or only say what would change.
    Reload {
        /// Only say.
        is_dry_run: bool,
        /// Gets the report.
        responder: Responder<ReloadReport>,
    },
    /// Give an upstream nothing new any more, or again.
    Drain {
        /// `HANDLER/ADDRESS`, or the address alone where only one handler has it.
        upstream: String,
        /// Nothing new any more.
        drain: bool,
        /// Gets what was done, as a sentence.
        responder: Responder<Result<String, Refusal>>,
    },
    /// Look on.
    Tap(TapQuery, Responder<Result<Tapped, Refusal>>),
    /// Log this much from now on.
    Log(LevelFilter, Responder<String>),
    /// End in order, as on SIGTERM.
    Stop(Responder<String>),
}

/// Why a request was not even queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// As many wait as may.
    #[error("too many requests wait already; try again in a moment")]
    Busy,
    /// The daemon is about to end.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The way to ask, for any thread.
#[derive(Debug, Clone)]
pub struct Requests {
    queue: Sender<Request>,
    tcp_clients: Sender<Request>,
    waker: Arc<Waker>,
    /// Who came to ask.
    pub admin_stats: Arc<AdminStats>,
    /// What does not work.
    pub conditions: Conditions,
}

impl Requests {
    /// The way of operators, and what comes by it and by that of TCP clients. The reader is woken by this.
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

    /// The way of TCP clients, with places of its own: what they ask waits even when they have hung up, and must not keep an
    /// operator from asking.
    pub fn of_tcp_clients(&self) -> Requests {
        Requests {
            queue: self.tcp_clients.clone(),
            ..self.clone()
        }
    }

    /// Queues a request.
    pub fn ask(&self, request: Request) -> Result<(), QueueError> {
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

/// What is asked, by either way.
#[derive(Debug)]
pub struct RequestQueue {
    operators: Receiver<Request>,
    tcp_clients: Receiver<Request>,
}

impl RequestQueue {
    /// What is to be answered next: TCP clients wait for operators.
    pub(crate) fn next(&self) -> Option<Request> {
        self.operators
            .try_recv()
            .or_else(|_| self.tcp_clients.try_recv())
            .ok()
    }
}
