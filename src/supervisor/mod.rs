//! Runs the daemon: starts the workers, handles signals and requests, and stops in order.

pub mod accounts;
pub mod admin_state;
pub mod commands;
pub mod config_watch;
pub mod control_path;
pub mod drain;
pub mod explain_live;
pub mod log_level;
pub mod periodic;
pub mod reload;
pub mod reload_report;
pub mod requests;
pub mod responder;
pub mod sessions;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use crate::build::error::{DaemonError, explain, system};
use crate::build::inherited_sockets::LentSockets;
use crate::build::service_manager::log_error;
use crate::build::socket_activation;
use crate::build::{line_writer, log_writer};
use crate::config::{Config, Kind};
use crate::dispatch::sink::Job;
use crate::handover::prepare::{ConfigDraft, Prepared, Present, draft};
use crate::handover::running::Running;
use crate::net::limits;
use crate::observe::snapshot::Snapshot;
use crate::supervisor::admin_state::AdminState;
use crate::supervisor::commands::{CommandParts, respond_to_all};
use crate::supervisor::periodic::Periodic;
use crate::supervisor::reload::{Loader, ReloadRequest, ReloadStep, Reloader};
use crate::supervisor::requests::Requests;
use crate::takeover::client::TakeoverClient;
use crate::takeover::messages::PassedListener;
use crate::takeover::server::TakeoverServer;
use crate::takeover::successor::Successor;
use crate::takeover::switchover::Serving;

/// Longest wait for standard output at the end.
const OUTPUT_MAX: Duration = Duration::from_millis(1_500);
/// Time after the signal at which the wait for standard output ends. Workers take at most three seconds of it.
const OUTPUT_BY: Duration = Duration::from_secs(4);
/// Time after the signal at which the wait for standard error ends, below the five seconds that are promised.
const ERROR_BY: Duration = Duration::from_millis(4_500);

const SIGNALS: Token = Token(0);
const AWOKEN: Token = Token(1);

/// A running daemon.
pub struct Supervisor {
    running: Running,
    admin_state: AdminState,
    takeover_server: TakeoverServer,
    periodic: Periodic,
    reloader: Reloader,
    output: Sender<Job>,
    poll: Poll,
    signals: Signals,
    successor: Option<Successor>,
}

/// The parts of a supervisor that exist before it serves anything.
struct Startup {
    /// The moment from which the workers count time.
    epoch: Instant,
    poll: Poll,
    ended: Arc<Waker>,
    output: Sender<Job>,
}

impl Startup {
    fn new(epoch: Instant) -> Result<Startup, DaemonError> {
        limits::raise_open_files();
        limits::return_large_memory();
        let poll = Poll::new().map_err(system("cannot set up the control loop"))?;
        // mio allows one waker per poll. After any wake-up, everything is checked.
        let ended = Waker::new(poll.registry(), AWOKEN)
            .map_err(system("cannot set up the control loop"))?;
        let output = line_writer::start().map_err(system("cannot use standard output"))?;
        Ok(Startup {
            epoch,
            poll,
            ended: Arc::new(ended),
            output,
        })
    }

    /// Prepares the configuration to run, and catches signals from then on. Signals are caught before the workers
    /// start, so that none is lost meanwhile. They are caught after the plan is made, since the resolver may delay that
    /// for any time. Until then a signal ends the process, and nothing is lost.
    fn prepare(
        &self,
        draft: ConfigDraft,
        lent_sockets: LentSockets,
    ) -> Result<(Prepared, Signals), DaemonError> {
        let prepared = draft.prepare(lent_sockets, &self.output, self.epoch, &self.ended)?;
        prepared
            .plan
            .notes
            .iter()
            .for_each(|note| log::warn!("{note}"));
        let uncaught = |error| explain("cannot catch signals".to_owned(), &error);
        let mut signals =
            Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map_err(uncaught)?;
        let registry = self.poll.registry();
        registry
            .register(&mut signals, SIGNALS, Interest::READABLE)
            .map_err(system("cannot wait for signals"))?;
        Ok((prepared, signals))
    }

    fn open(
        self,
        admin_state: AdminState,
        takeover_server: TakeoverServer,
        running: Running,
        signals: Signals,
    ) -> Supervisor {
        let Startup {
            epoch,
            poll,
            ended,
            output,
        } = self;
        let reloader = Reloader::new(ended, output.clone(), epoch);
        Supervisor {
            running,
            admin_state,
            takeover_server,
            periodic: Periodic::new(),
            reloader,
            output,
            poll,
            signals,
            successor: None,
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The daemon stopped on request, after it handled what the sockets held.
    Stopped,
    /// Another process has taken over.
    TakenOver,
}

impl Supervisor {
    /// Binds everything and starts the workers. When this returns, every listener is bound.
    ///
    /// Sockets that the service manager passes are used where they fit.
    ///
    /// # Errors
    ///
    /// Returns a [`DaemonError`] if the configuration does not fit this host, if a socket cannot be bound, or if the
    /// kernel refuses a thread or another resource.
    pub fn start(config: Config) -> Result<Supervisor, DaemonError> {
        let startup = Startup::new(Instant::now())?;
        let draft = draft(config, Present::default())?;
        let (lent_sockets, unfit) = socket_activation::take(draft.listeners());
        unfit.iter().for_each(|reason| log::warn!("{reason}"));
        let (prepared, signals) = startup.prepare(draft, lent_sockets)?;
        let admin_state = AdminState::new(
            &prepared.config,
            &prepared.plan,
            Arc::clone(&startup.ended),
            startup.epoch,
        );
        let takeover_server = TakeoverServer::new(Arc::clone(&startup.ended), startup.epoch);
        Ok(startup.open(
            admin_state,
            takeover_server,
            Running::start(prepared),
            signals,
        ))
    }

    /// Starts with the sockets, sessions and accounts of another process, which then exits. That process serves until
    /// this returns.
    ///
    /// # Errors
    ///
    /// Returns a [`DaemonError`] if the new configuration cannot be prepared, or if the other process does not hand
    /// over everything. The other process then continues unchanged.
    pub fn take_over(
        config: Config,
        kinds: &[Kind],
        mut client: TakeoverClient,
    ) -> Result<Supervisor, DaemonError> {
        let startup = Startup::new(client.epoch())?;
        let (present, lent_sockets) = client.present(kinds);
        let (prepared, signals) = startup.prepare(draft(config, present)?, lent_sockets)?;
        prepared
            .diff
            .lines()
            .iter()
            .for_each(|change| log::info!("takeover: {change}"));
        let mut admin_state = AdminState::new(
            &prepared.config,
            &prepared.plan,
            Arc::clone(&startup.ended),
            startup.epoch,
        );
        let mut takeover_server = TakeoverServer::new(Arc::clone(&startup.ended), startup.epoch);
        let server = client.server();
        let listeners = client.listeners();
        let taken = client.take_over(prepared, takeover_server.expect_final_counts())?;
        admin_state.inherit(taken.drained, taken.generation);
        let mut supervisor = startup.open(admin_state, takeover_server, taken.running, signals);
        supervisor.periodic.inherit(listeners);
        let Supervisor {
            admin_state,
            running,
            ..
        } = &supervisor;
        admin_state.drained.apply_again(running);
        log::info!("taken over from {server}");
        Ok(supervisor)
    }

    /// Sets how a reload reads the configuration. Without it, reloads are refused.
    pub fn reload_with(mut self, loader: Arc<Loader>) -> Supervisor {
        self.reloader.loader = Some(loader);
        self
    }

    /// Returns one line for the log that says what is being served.
    pub fn summary(&self) -> String {
        self.running.summary()
    }

    /// Returns a handle through which any thread can send requests.
    pub fn requests(&self) -> Requests {
        self.admin_state.requests.clone()
    }

    /// Lets another process take over from now on, through a socket at `path`. `inherited` is that socket if a takeover has
    /// passed it to this process. The other process receives `listeners`, too.
    ///
    /// # Errors
    ///
    /// The socket cannot be bound, or a thread cannot be started.
    pub fn offer_takeover(
        &mut self,
        path: PathBuf,
        inherited: Option<OwnedFd>,
        listeners: Vec<(PassedListener, OwnedFd)>,
    ) -> io::Result<()> {
        self.takeover_server.offer(path, inherited, listeners)
    }

    /// Must be called when everything is bound and runs. It notifies the service manager, and begins to watch the file
    /// and the host.
    pub fn report_ready(&mut self) {
        self.periodic.on_ready(&self.running);
    }

    /// Serves until SIGTERM, SIGINT or a stop request, or until another process has taken over. When stopped, it
    /// handles what the sockets hold and shows the final accounts.
    ///
    /// # Errors
    ///
    /// Returns [`DaemonError::Worker`] if a worker panicked.
    pub fn serve(self) -> Result<Served, DaemonError> {
        let (snapshot, deadline) = self.until_stopped()?;
        let served = if snapshot.is_some() {
            Served::Stopped
        } else {
            Served::TakenOver
        };
        snapshot
            .into_iter()
            .for_each(|snapshot| log_writer::show(snapshot.to_string()));
        log_writer::drain(deadline);
        Ok(served)
    }

    /// Serves until the end. Returns the final accounts if it was stopped, and the time by which all output must be written.
    fn until_stopped(mut self) -> Result<(Option<Snapshot>, Instant), DaemonError> {
        let mut events = Events::with_capacity(8);
        loop {
            // An interrupted poll means a signal, which the next line finds.
            let _ = self.poll.poll(&mut events, Some(self.periodic.timeout()));
            for signal in self.signals.pending() {
                match signal {
                    SIGUSR1 => self.show_ledger(),
                    SIGUSR2 => self.start_successor(),
                    SIGHUP => {
                        log::info!("SIGHUP: reloading {}", self.running.config.source.name());
                        self.reloader.request(ReloadRequest::silent());
                    }
                    signal => {
                        let name =
                            signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                        log::info!("{name}: stopping after the datagrams in the socket buffers");
                        return self.stop();
                    }
                }
            }
            self.run_periodic();
            if self.respond() {
                log::info!("stop requested: stopping after the datagrams in the socket buffers");
                return self.stop();
            }
            self.finish_reloads()?;
            if self.serve_takeover()? {
                return Ok((None, self.end_after_takeover()));
            }
            self.begin_reload();
            if self.running.has_lost_a_worker() {
                let _ = self.stop();
                return Err(DaemonError::Worker);
            }
        }
    }

    /// Does the periodic tasks that are due.
    fn run_periodic(&mut self) {
        let now = Instant::now();
        let conditions = &self.admin_state.requests.conditions;
        let due = self.periodic.run(now, &self.running, conditions);
        if due.reload {
            let name = self.running.config.source.name();
            log::info!("{name} has changed: reloading it");
            self.reloader.request(ReloadRequest::silent());
        }
        if due.snapshot {
            self.snapshot();
            self.periodic.after_snapshot(now, &self.running.config);
        }
    }

    /// Responds to requests. Returns whether one of them was to stop.
    fn respond(&mut self) -> bool {
        respond_to_all(&mut CommandParts {
            running: &mut self.running,
            admin_state: &mut self.admin_state,
            reloader: &mut self.reloader,
            found: &|| self.periodic.found(),
        })
    }

    /// Applies the configurations that are prepared.
    fn finish_reloads(&mut self) -> Result<(), DaemonError> {
        while let ReloadStep::Replace(replacement) =
            self.reloader.step(&self.running, &mut self.admin_state)
        {
            replacement.announce(&self.running);
            log_error(self.periodic.service.reloading());
            let applied = replacement.take_place(&mut self.running, &mut self.admin_state)?;
            self.report_ready();
            applied.report(&self.running);
        }
        Ok(())
    }

    /// Begins a waiting reload, unless another task has to finish first.
    fn begin_reload(&mut self) {
        if self.reloader.may_begin() && !self.takeover_server.awaits_final_counts {
            let generation = self.admin_state.accounts.life.generation;
            self.reloader.begin(self.running.present(generation));
        }
    }

    /// Serves the processes that want to take over. Returns whether one of them serves everything now.
    fn serve_takeover(&mut self) -> Result<bool, DaemonError> {
        self.takeover_server.step(&mut Serving {
            running: &mut self.running,
            generation: self.admin_state.accounts.life.generation,
            drained: self.admin_state.drained.names(),
            is_reloading: self.reloader.is_busy(),
            service: &self.periodic.service,
        })
    }

    /// Returns the accounts of all workers, each as of the end of one of its turns, and logs new alarms. A worker that
    /// is not responsive is shown with its last accounts.
    pub fn snapshot(&mut self) -> Snapshot {
        let found = self.periodic.found();
        self.admin_state.snapshot(&mut self.running, found)
    }

    fn show_ledger(&mut self) {
        let snapshot = self.snapshot();
        if snapshot.workers.iter().all(|worker| worker.responsive) {
            log_writer::show(snapshot.to_string());
        } else {
            log::error!("cannot show the ledger: a worker is not responsive");
        }
    }

    fn stop(mut self) -> Result<(Option<Snapshot>, Instant), DaemonError> {
        let begun = Instant::now();
        log_error(self.periodic.service.stopping());
        self.admin_state.close();
        self.takeover_server.close(false);
        let stopped = self.running.stop(self.periodic.has_successor())?;
        self.drain_output(begun);
        let found = self.periodic.found();
        let snapshot = self
            .admin_state
            .last_snapshot(&mut self.running, &stopped, found);
        Ok((Some(snapshot), begun + ERROR_BY))
    }

    fn drain_output(&self, begun: Instant) {
        let left = (begun + OUTPUT_BY).saturating_duration_since(Instant::now());
        if !line_writer::drain(&self.output, left.min(OUTPUT_MAX)) {
            log::error!(
                "standard output is blocked: lines that are not written yet count as in flight"
            );
        }
    }

    /// Ends this process after a takeover. Only the lines that its sinks still hold remain to be written.
    fn end_after_takeover(mut self) -> Instant {
        let begun = Instant::now();
        self.admin_state.close();
        self.takeover_server.close(true);
        self.drain_output(begun);
        begun + ERROR_BY
    }

    /// Sets the program that SIGUSR2 starts to take over. Without it, SIGUSR2 only logs an error.
    pub fn succeeded_by(mut self, successor: Successor) -> Supervisor {
        self.successor = Some(successor);
        self
    }

    fn start_successor(&self) {
        match &self.successor {
            Some(successor) => successor.start(),
            None => log::error!("SIGUSR2: this program cannot start a successor"),
        }
    }
}
