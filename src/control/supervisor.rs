//! Runs the daemon: starts the workers, waits for signals, shows the ledger, and ends in order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;

use super::answers::Office;
use super::build;
use super::host::Host;
use super::plan::{Plan, worker_count};
use super::snapshot::Snapshot;
use super::upkeep::Upkeep;
use super::{standard_error, standard_output};
use crate::config::{Config, Problems};
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::sink::Job;
use crate::worker::command::{Command, Handle};
use crate::worker::event_loop::Worker;

/// Longest wait for standard output at the end.
const OUTPUT_MAX: Duration = Duration::from_millis(1_500);
/// By when standard output is not waited for any more, since the signal. Workers take at most three seconds of it.
const OUTPUT_BY: Duration = Duration::from_secs(4);
/// By when standard error is not waited for any more, since the signal: below the five seconds that are promised.
const ERROR_BY: Duration = Duration::from_millis(4_500);

const SIGNALS: Token = Token(0);
/// A request, or a worker that has ended. A poll has one waker.
const WOKEN: Token = Token(1);

/// Why the daemon cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file does not fit this machine.
    #[error("{0}")]
    Configuration(Box<Problems>),
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

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::System { what, error }
}

/// A running daemon.
pub struct Supervisor {
    pub(super) config: Config,
    pub(super) plan: Plan,
    output: Sender<Job>,
    poll: Poll,
    signals: Signals,
    pub(super) workers: Vec<(Handle, JoinHandle<Dispatcher>)>,
    /// Whether a worker has ended, which none does by itself.
    has_lost_worker: Arc<AtomicBool>,
    pub(super) upkeep: Upkeep,
    pub(super) office: Office,
}

impl Supervisor {
    /// Binds everything and starts the workers. When this returns, every listener is bound.
    pub fn start(config: Config) -> Result<Supervisor, Failure> {
        let host = Host::this().map_err(system("cannot list the interfaces of this host"))?;
        let plan = Plan::new(&config, &host, worker_count(&config))
            .map_err(|problems| Failure::Configuration(Box::new(problems)))?;
        for note in &plan.notes {
            log::warn!("{note}");
        }
        let poll = Poll::new().map_err(system("cannot set up the control loop"))?;
        let registry = poll.registry();
        let waker = Waker::new(registry, WOKEN).map_err(system("cannot set up the control loop"))?;
        let output = standard_output::start().map_err(system("cannot use standard output"))?;
        let built = build::build(&config, &plan, &output)?;
        // Before the workers: a signal that comes while they start is not lost. After the plan, which may wait for the
        // resolver as long as that likes: until then a signal ends the process, and nothing is lost by that.
        let uncaught = |error| build::explain("cannot catch signals".to_owned(), &error);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(uncaught)?;
        registry.register(&mut signals, SIGNALS, Interest::READABLE).map_err(system("cannot wait for signals"))?;
        let (waker, has_lost_worker) = (Arc::new(waker), Arc::default());
        let office = Office::new(&config, &plan, Arc::clone(&waker));
        let workers = start_workers(built, &waker, &has_lost_worker).map_err(system("cannot start a thread"))?;
        let handles = workers.iter().map(|(handle, _)| handle.clone()).collect();
        let upkeep = Upkeep::of_plan(&config, &plan, handles).map_err(system("cannot look after the upstreams"))?;
        Ok(Supervisor { config, plan, output, poll, signals, workers, has_lost_worker, upkeep, office })
    }

    /// One line for the log: what is being served.
    pub fn summary(&self) -> String {
        let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!(
            "{}, {}, {}",
            counted(self.plan.listeners.len(), "listener"),
            counted(self.config.routes.len(), "route"),
            counted(self.workers.len(), "worker")
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
                    SIGHUP => log::warn!("SIGHUP: this version cannot reload; restart to use a changed file"),
                    signal => {
                        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                        log::info!("{name}: stopping; what the sockets hold is still handled");
                        return self.stop();
                    }
                }
            }
            if self.has_lost_worker.load(Ordering::Acquire) {
                let _ = self.stop();
                return Err(Failure::Worker);
            }
            if self.answer_requests() {
                log::info!("asked to stop; what the sockets hold is still handled");
                return self.stop();
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
        self.upkeep.stop();
        for (handle, _) in &self.workers {
            handle.send(Command::Stop);
        }
        let workers = std::mem::take(&mut self.workers);
        let ended: Vec<_> = workers.into_iter().map(|(_, thread)| thread.join()).collect();
        let left = (begun + OUTPUT_BY).saturating_duration_since(Instant::now());
        if !standard_output::drain(&self.output, left.min(OUTPUT_MAX)) {
            log::error!("standard output is blocked: lines that are still under way count as in flight");
        }
        let ledgers = ended.into_iter().map(|ended| ended.map(|dispatcher| dispatcher.snapshot()));
        let ledgers = ledgers.collect::<Result<_, _>>().map_err(|_| Failure::Worker)?;
        Ok((self.last_snapshot(ledgers), begun + ERROR_BY))
    }
}

/// Each thread wakes the supervisor when it ends, whatever the reason.
fn start_workers(
    built: Vec<(Worker, Handle)>,
    waker: &Arc<Waker>,
    has_lost_worker: &Arc<AtomicBool>,
) -> io::Result<Vec<(Handle, JoinHandle<Dispatcher>)>> {
    struct Farewell(Arc<Waker>, Arc<AtomicBool>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Release);
            // Without the supervisor there is nobody to tell.
            let _ = self.0.wake();
        }
    }
    let start = |(number, (worker, handle)): (usize, (Worker, Handle))| {
        let farewell = Farewell(Arc::clone(waker), Arc::clone(has_lost_worker));
        let run = move || {
            let _farewell = farewell;
            worker.run()
        };
        Ok((handle, thread::Builder::new().name(format!("worker-{number}")).spawn(run)?))
    };
    built.into_iter().enumerate().map(start).collect()
}
