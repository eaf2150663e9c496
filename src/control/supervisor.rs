//! Runs the daemon: starts the workers, waits for signals, shows the ledger, and ends in order.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;

use super::answers::Office;
use super::build;
use super::held::Held;
use super::prepare::{Present, prepare};
use super::reload::{Loader, Reloader, Wish};
use super::running::Running;
use super::snapshot::Snapshot;
use super::{standard_error, standard_output};
use crate::config::{Config, LoadError, Problems};
use crate::dispatch::sink::Job;

/// Longest wait for standard output at the end.
const OUTPUT_MAX: Duration = Duration::from_millis(1_500);
/// By when standard output is not waited for any more, since the signal. Workers take at most three seconds of it.
const OUTPUT_BY: Duration = Duration::from_secs(4);
/// By when standard error is not waited for any more, since the signal: below the five seconds that are promised.
const ERROR_BY: Duration = Duration::from_millis(4_500);

const SIGNALS: Token = Token(0);
const AWOKEN: Token = Token(1);

/// Why the daemon cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file does not fit this machine.
    #[error("{0}")]
    Configuration(Box<Problems>),
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// Something could not be bound, joined, resolved or opened.
    #[error("{0}")]
    Start(#[from] crate::config::kind::BuildError),
    /// The system refused something that it never should.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A worker panicked: a defect.
    #[error("a worker ended by a defect; the message above says where. Please report it")]
    Worker,
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        match error {
            LoadError::Wrong(problems) => Failure::Configuration(problems),
            LoadError::Unreadable { .. } => Failure::File(error.to_string()),
        }
    }
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::System { what, error }
}

/// A running daemon.
pub struct Supervisor {
    pub(super) running: Running,
    pub(super) office: Office,
    pub(super) reloader: Reloader,
    pub(super) output: Sender<Job>,
    /// Time is counted from here.
    pub(super) epoch: Instant,
    /// Woken by each worker that ends.
    pub(super) ended: Arc<Waker>,
    poll: Poll,
    signals: Signals,
}

impl Supervisor {
    /// Binds everything and starts the workers. When this returns, every listener is bound.
    pub fn start(config: Config) -> Result<Supervisor, Failure> {
        let poll = Poll::new().map_err(system("cannot set up the control loop"))?;
        let waker = |token| Waker::new(poll.registry(), token).map_err(system("cannot set up the control loop"));
        // mio has one waker for each poll: whoever wakes it, all is looked at.
        let ended = Arc::new(waker(AWOKEN)?);
        let output = standard_output::start().map_err(system("cannot use standard output"))?;
        let epoch = Instant::now();
        let prepared = prepare(config, Present::default(), Held::default(), &output, epoch, &ended)?;
        for note in &prepared.plan.notes {
            log::warn!("{note}");
        }
        // Before the workers: a signal that comes while they start is not lost. After the plan, which may wait for the
        // resolver as long as that likes: until then a signal ends the process, and nothing is lost by that.
        let uncaught = |error| build::explain("cannot catch signals".to_owned(), &error);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(uncaught)?;
        poll.registry()
            .register(&mut signals, SIGNALS, Interest::READABLE)
            .map_err(system("cannot wait for signals"))?;
        let reloader = Reloader::new(Arc::clone(&ended));
        let office = Office::new(&prepared.config, &prepared.plan, Arc::clone(&ended));
        Ok(Supervisor { running: Running::start(prepared), office, reloader, output, epoch, ended, poll, signals })
    }

    /// Says how a reload reads the configuration. Without this there is none.
    pub fn reload_with(mut self, loader: Arc<Loader>) -> Supervisor {
        self.reloader.loader = Some(loader);
        self
    }

    /// One line for the log: what is being served.
    pub fn summary(&self) -> String {
        let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!(
            "{}, {}, {}",
            counted(self.running.plan.listeners.len(), "listener"),
            counted(self.running.config.routes.len(), "route"),
            counted(self.running.workers(), "worker")
        )
    }

    /// Serves until SIGTERM or SIGINT, then handles what the sockets hold and shows the final accounts.
    pub fn serve(self) -> Result<(), Failure> {
        let (snapshot, deadline) = self.until_stopped()?;
        standard_error::show(snapshot.to_string());
        standard_error::drain(deadline);
        Ok(())
    }

    /// The same, but returns the final accounts.
    pub fn run(self) -> Result<Snapshot, Failure> {
        let (snapshot, deadline) = self.until_stopped()?;
        standard_error::drain(deadline);
        Ok(snapshot)
    }

    /// The final accounts, and by when all must be over.
    fn until_stopped(mut self) -> Result<(Snapshot, Instant), Failure> {
        let mut events = Events::with_capacity(8);
        loop {
            // An interrupted poll is a signal, which the next line finds.
            let _ = self.poll.poll(&mut events, None);
            for signal in self.signals.pending() {
                match signal {
                    SIGUSR1 => self.show_ledger(),
                    SIGHUP => self.reload(Wish::silent()),
                    signal => {
                        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                        log::info!("{name}: stopping; what the sockets hold is still handled");
                        return self.stop();
                    }
                }
            }
            if self.answer_requests() {
                log::info!("asked to stop; what the sockets hold is still handled");
                return self.stop();
            }
            self.finish_reload()?;
            if self.running.has_lost_a_worker() {
                let _ = self.stop();
                return Err(Failure::Worker);
            }
        }
    }

    fn show_ledger(&mut self) {
        let snapshot = self.snapshot();
        match snapshot.workers.iter().all(|worker| worker.answers) {
            true => standard_error::show(snapshot.to_string()),
            false => log::error!("a worker does not answer: no ledger"),
        }
    }

    fn stop(mut self) -> Result<(Snapshot, Instant), Failure> {
        let begun = Instant::now();
        self.close_office();
        let stopped = self.running.stop()?;
        let left = (begun + OUTPUT_BY).saturating_duration_since(Instant::now());
        if !standard_output::drain(&self.output, left.min(OUTPUT_MAX)) {
            log::error!("standard output is blocked: lines that are still under way count as in flight");
        }
        Ok((self.last_snapshot(&stopped), begun + ERROR_BY))
    }
}
