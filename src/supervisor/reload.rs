//! Reload: another configuration replaces the running one in the same process. It is prepared on a separate thread,
//! because the resolver may block for any time. The replacement itself happens between two turns.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::Level;
use mio::Waker;

use crate::build::error::DaemonError;
use crate::build::inherited_sockets::LentSockets;
use crate::config::diagnostics::listed;
use crate::config::{Config, Daemon, LoadError};
use crate::dispatch::sink::Job;
use crate::handover::prepare::{ConfigDraft, Prepared, Present, draft};
use crate::handover::running::Running;
use crate::plan::diff::Diff;
use crate::supervisor::admin_state::AdminState;
use crate::supervisor::log_level;
use crate::supervisor::reload_report::ReloadReport;
use crate::supervisor::responder::Responder;

/// The first character of a change that applies only to the next process.
const WAITS: char = '!';

/// Reads the configuration that a reload applies.
pub type Loader = dyn Fn() -> Result<Config, LoadError> + Send + Sync;

/// A request to reload.
pub struct ReloadRequest {
    /// Whether to report only what would change.
    pub is_dry_run: bool,
    /// The recipient of the report; `None` if it only goes to the log.
    pub responder: Option<Responder<ReloadReport>>,
}

impl ReloadRequest {
    /// Returns a request whose report only goes to the log.
    pub fn silent() -> ReloadRequest {
        ReloadRequest {
            is_dry_run: false,
            responder: None,
        }
    }

    fn is_silent(&self) -> bool {
        self.responder.is_none()
    }
}

/// The result of a successful preparation.
enum PreparedReload {
    /// A complete configuration, ready to run.
    Whole(Box<Prepared>),
    /// The changes only, for dry runs; nothing was opened.
    Draft(Box<ConfigDraft>),
}

/// The result of a preparation, or why it failed.
type PrepareResult = Result<PreparedReload, DaemonError>;

/// What the supervisor has to do next.
pub(crate) enum ReloadStep {
    /// Nothing, because no reload is ready.
    Nothing,
    /// Replace the running configuration by this one.
    Replace(Box<Replacement>),
}

/// Reloads, one at a time.
pub struct Reloader {
    pub(crate) loader: Option<Arc<Loader>>,
    sender: Sender<PrepareResult>,
    outcomes: Receiver<PrepareResult>,
    /// Wakes the supervisor; workers use it when they end.
    waker: Arc<Waker>,
    /// The queue of lines that handlers write to standard output.
    output: Sender<Job>,
    /// The moment from which the workers count time.
    epoch: Instant,
    /// The requests that the preparation in progress is for.
    under_way: Vec<ReloadRequest>,
    /// Later requests, for which the file must be read again.
    waiting: Vec<ReloadRequest>,
}

impl Reloader {
    /// Returns a reloader. Its workers write lines to `output` and count time from `epoch`. `waker` is woken when a
    /// configuration is ready, and by each worker that ends.
    pub fn new(waker: Arc<Waker>, output: Sender<Job>, epoch: Instant) -> Reloader {
        let (sender, outcomes) = unbounded();
        Reloader {
            loader: None,
            sender,
            outcomes,
            waker,
            output,
            epoch,
            under_way: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Returns whether a reload is in progress or waits.
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_empty() || !self.waiting.is_empty()
    }

    /// Requests a reload, which begins when the preparation in progress ends. Requests that wait together share one
    /// reload.
    pub fn request(&mut self, request: ReloadRequest) {
        // Signals may arrive at any rate. One waiting request without a recipient is enough for all of them.
        if !request.is_silent() || !self.waiting.iter().any(ReloadRequest::is_silent) {
            self.waiting.push(request);
        }
    }

    /// Returns whether a waiting reload could begin now.
    pub(crate) fn may_begin(&self) -> bool {
        self.under_way.is_empty() && !self.waiting.is_empty()
    }

    /// Checks for a prepared configuration. Refused reloads and dry runs are reported here.
    pub(crate) fn step(&mut self, running: &Running, admin_state: &mut AdminState) -> ReloadStep {
        while let Some((outcome, requests)) = self.outcome() {
            match outcome {
                Err(failure) => refuse(&failure, requests, running, admin_state),
                Ok(PreparedReload::Draft(draft)) => {
                    let changes = changes(running, &draft.diff, &draft.config.daemon);
                    report_to_all(requests, &ReloadReport::of(false, changes));
                }
                Ok(PreparedReload::Whole(prepared)) => {
                    return ReloadStep::Replace(Box::new(Replacement::new(
                        *prepared, requests, running,
                    )));
                }
            }
        }
        ReloadStep::Nothing
    }

    /// Takes the result of the preparation and its requests, if it is ready.
    fn outcome(&mut self) -> Option<(PrepareResult, Vec<ReloadRequest>)> {
        let outcome = self.outcomes.try_recv().ok()?;
        Some((outcome, std::mem::take(&mut self.under_way)))
    }

    /// Prepares a configuration beside `present` for the waiting requests, on a separate thread.
    pub(crate) fn begin(&mut self, present: Present) {
        self.under_way = std::mem::take(&mut self.waiting);
        let is_dry_run = self.under_way.iter().all(|request| request.is_dry_run);
        let loader = self.loader.clone();
        let sender = self.sender.clone();
        let waker = Arc::clone(&self.waker);
        let output = self.output.clone();
        let epoch = self.epoch;
        let work = move || {
            let nothing = || DaemonError::File("there is no file to reload".to_owned());
            let config = loader
                .ok_or_else(nothing)
                .and_then(|loader| loader().map_err(DaemonError::from));
            let outcome = config
                .and_then(|config| draft(config, present))
                .and_then(|draft| {
                    if is_dry_run {
                        return Ok(PreparedReload::Draft(Box::new(draft)));
                    }
                    let prepared = draft.prepare(LentSockets::default(), &output, epoch, &waker)?;
                    Ok(PreparedReload::Whole(Box::new(prepared)))
                });
            // The supervisor may have ended meanwhile.
            let _ = sender.send(outcome);
            let _ = waker.wake();
        };
        if let Err(error) = thread::Builder::new().name("reload".to_owned()).spawn(work) {
            let failure = DaemonError::System {
                what: "cannot start a thread for the reload",
                error,
            };
            let _ = self.sender.send(Err(failure));
            let _ = self.waker.wake();
        }
    }
}

fn refuse(
    failure: &DaemonError,
    requests: Vec<ReloadRequest>,
    running: &Running,
    admin_state: &mut AdminState,
) {
    let why = failure.to_string();
    if requests.iter().any(|request| !request.is_dry_run) {
        admin_state.accounts.on_refused_reload();
        // The preparation may have changed options of sockets that are in use; restore them.
        running.settle();
        log::error!("reload refused; the running configuration stays in use: {why}");
    }
    let is_wrong_file = matches!(failure, DaemonError::Configuration(_));
    report_to_all(
        requests,
        &ReloadReport {
            problems: Some(why),
            is_wrong_file,
            ..ReloadReport::default()
        },
    );
}

/// A configuration that is ready to replace the running one.
pub(crate) struct Replacement {
    prepared: Prepared,
    changes: Vec<String>,
    /// The requests whose recipients get the report.
    requests: Vec<ReloadRequest>,
}

impl Replacement {
    /// Sends the report to the dry runs, and keeps the other requests.
    fn new(prepared: Prepared, requests: Vec<ReloadRequest>, running: &Running) -> Replacement {
        let changes = changes(running, &prepared.diff, &prepared.config.daemon);
        let (dry, requests): (Vec<ReloadRequest>, Vec<ReloadRequest>) =
            requests.into_iter().partition(|request| request.is_dry_run);
        report_to_all(dry, &ReloadReport::of(false, changes.clone()));
        Replacement {
            prepared,
            changes,
            requests,
        }
    }

    /// Logs the changes, and applies those that concern no worker.
    pub(crate) fn announce(&self, running: &Running) {
        let known = &running.plan.notes;
        let notes = &self.prepared.plan.notes;
        for note in notes.iter().filter(|note| !known.contains(note)) {
            log::warn!("{note}");
        }
        for change in &self.changes {
            log::log!(level_of(change), "reload: {change}");
        }
        let log = self.prepared.config.daemon.log;
        if log != running.config.daemon.log {
            log::info!("{}", log_level::set(log));
        }
    }

    /// Replaces the running configuration, between two turns of the workers.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Worker`] if a worker panicked.
    pub(crate) fn take_place(
        self,
        running: &mut Running,
        admin_state: &mut AdminState,
    ) -> Result<Applied, DaemonError> {
        let begun = Instant::now();
        let parked = running.park()?;
        running.take_place(self.prepared, parked);
        let pause = begun.elapsed();
        admin_state
            .accounts
            .on_reload(&running.config, &running.plan);
        admin_state.drained.apply_again(running);
        admin_state.tap_readers.begin_again(running);
        Ok(Applied {
            pause,
            changes: self.changes,
            requests: self.requests,
        })
    }
}

/// A reload that is complete, but not yet reported.
pub(crate) struct Applied {
    /// How long no worker ran.
    pause: Duration,
    changes: Vec<String>,
    requests: Vec<ReloadRequest>,
}

impl Applied {
    /// Reports the reload to the log and to the requests.
    pub(crate) fn report(self, running: &Running) {
        log::info!(
            "reloaded: {}; the workers paused for {:.1} ms",
            running.summary(),
            self.pause.as_secs_f64() * 1e3
        );
        report_to_all(self.requests, &ReloadReport::of(true, self.changes));
    }
}

/// Returns one line for each change. A line about a part of `[daemon]` that applies only to the next process begins
/// with [`WAITS`].
fn changes(running: &Running, diff: &Diff, new: &Daemon) -> Vec<String> {
    let old = &running.config.daemon;
    let settings = [
        ("`control`", new.control != old.control),
        ("`http`", new.http != old.http),
        ("`http_hosts`", new.http_hosts != old.http_hosts),
    ];
    let waiting: Vec<&str> = settings
        .iter()
        .filter(|setting| setting.1)
        .map(|setting| setting.0)
        .collect();
    let mut changes = diff.lines();
    if !waiting.is_empty() {
        let waiting = listed(waiting, "and");
        changes.push(format!(
            "{WAITS} {waiting} below [daemon]: the old value stays in use until the next start or takeover"
        ));
    }
    changes
}

/// Returns the log level of a change; higher if the daemon does not run as the file says.
fn level_of(change: &str) -> Level {
    if change.starts_with(WAITS) {
        Level::Warn
    } else {
        Level::Info
    }
}

fn report_to_all(requests: Vec<ReloadRequest>, report: &ReloadReport) {
    requests
        .into_iter()
        .filter_map(|request| request.responder)
        .for_each(|responder| responder.send(report.clone()));
}
