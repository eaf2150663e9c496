//! What may be asked of the running daemon, by whichever way it is asked. The supervisor answers between two signals
//! (`commands.rs`), so an answer is of one moment; who asks waits no longer than it likes.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::LevelFilter;
use mio::Waker;

use crate::build::error::Refusal;
use crate::observe::admin_stats::Visits;
use crate::observe::conditions::Troubles;
use crate::observe::snapshot::Snapshot;
use crate::observe::tap::{TapQuery, Tapped};
use crate::plan::explain::Imagined;
use crate::supervisor::reload_report::ReloadReport;
use crate::supervisor::reply::Reply;
use crate::supervisor::sessions::{SessionList, SessionQuery};

/// Requests that may wait for the supervisor, of operators and of guests each. Each takes it far less than a second, as a rule
/// a thousandth.
pub const QUEUE_MAX: usize = 64;

/// Something that is asked for.
#[derive(Debug)]
pub enum Request {
    /// All accounts and states.
    Snapshot(Reply<Box<Snapshot>>),
    /// Who talks to whom.
    Sessions(SessionQuery, Reply<Result<SessionList, Refusal>>),
    /// What would become of a datagram.
    Explain(Imagined, Reply<Result<String, Refusal>>),
    /// Read the file again, and apply what changed or only say what would change.
    Reload {
        /// Only say.
        is_dry_run: bool,
        /// Gets the report.
        reply: Reply<ReloadReport>,
    },
    /// Give an upstream nothing new any more, or again.
    Drain {
        /// `HANDLER/ADDRESS`, or the address alone where only one handler has it.
        upstream: String,
        /// Nothing new any more.
        drain: bool,
        /// Gets what was done, as a sentence.
        reply: Reply<Result<String, Refusal>>,
    },
    /// Look on.
    Tap(TapQuery, Reply<Result<Tapped, Refusal>>),
    /// Log this much from now on.
    Log(LevelFilter, Reply<String>),
    /// End in order, as on SIGTERM.
    Stop(Reply<String>),
}

/// Why a request was not even queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
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
    guests: Sender<Request>,
    waker: Arc<Waker>,
    /// Who came to ask.
    pub visits: Arc<Visits>,
    /// What does not work.
    pub troubles: Troubles,
}

impl Requests {
    /// The way of operators, and what comes by it and by that of guests. The reader is woken by this.
    pub fn new(waker: Arc<Waker>) -> (Requests, Asked) {
        let ((queue, operators), (guests, others)) = (bounded(QUEUE_MAX), bounded(QUEUE_MAX));
        let (visits, troubles) = (Arc::default(), Troubles::default());
        (
            Requests {
                queue,
                guests,
                waker,
                visits,
                troubles,
            },
            Asked {
                operators,
                guests: others,
            },
        )
    }

    /// The way of guests, with places of its own: what they ask waits even when they have hung up, and must not keep an
    /// operator from asking.
    pub fn of_guests(&self) -> Requests {
        Requests {
            queue: self.guests.clone(),
            ..self.clone()
        }
    }

    /// Queues a request.
    pub fn ask(&self, request: Request) -> Result<(), Unasked> {
        self.queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.visits.refused_busy.more();
                Unasked::Busy
            }
            TrySendError::Disconnected(_) => Unasked::Stopping,
        })?;
        self.wake().map_err(|_| Unasked::Stopping)
    }

    /// Wakes the supervisor.
    pub(crate) fn wake(&self) -> std::io::Result<()> {
        self.waker.wake()
    }
}

/// What is asked, by either way.
#[derive(Debug)]
pub struct Asked {
    operators: Receiver<Request>,
    guests: Receiver<Request>,
}

impl Asked {
    /// What is to be answered next: guests wait for operators.
    pub(crate) fn next(&self) -> Option<Request> {
        self.operators
            .try_recv()
            .or_else(|_| self.guests.try_recv())
            .ok()
    }
}
