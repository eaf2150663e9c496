//! Reload: another configuration takes the place of the one that runs, in the same process. It is made ready on a thread of its
//! own, which may take as long as a resolver likes; the change itself happens between two turns.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::Level;
use mio::Waker;
use serde::{Deserialize, Serialize};

use crate::build::error::Failure;
use crate::build::inherited_sockets::Held;
use crate::config::words::listed;
use crate::config::{Config, Daemon, LoadError};
use crate::dispatch::sink::Job;
use crate::handover::prepare::{Draft, Prepared, Present, draft};
use crate::observe::snapshot::unix_seconds;
use crate::plan::diff::Difference;
use crate::supervisor::Supervisor;
use crate::supervisor::log_level;
use crate::supervisor::reply::Reply;

/// Begins a line about what waits for the next process.
const WAITS: char = '!';

/// What became of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Whether the new configuration is the running one now.
    pub is_applied: bool,
    /// What changed, or would, a sentence each.
    pub changes: Vec<String>,
    /// Why nothing was changed, in the words of `check`.
    pub problems: Option<String>,
    /// Whether that is the file's fault; otherwise something was lacking here.
    pub is_wrong_file: bool,
}

/// Reads the configuration that a reload is to apply.
pub type Loader = dyn Fn() -> Result<Config, LoadError> + Send + Sync;

/// A wish to reload.
pub struct Wish {
    /// Only say what would be done.
    pub is_dry_run: bool,
    /// Who is told; `None` reads the log.
    pub reply: Option<Reply<ReloadReport>>,
}

impl Wish {
    /// Of somebody who reads the log.
    pub fn silent() -> Wish {
        Wish {
            is_dry_run: false,
            reply: None,
        }
    }

    fn is_silent(&self) -> bool {
        self.reply.is_none()
    }
}

/// What was made ready.
enum Ready {
    /// All of it.
    Whole(Box<Prepared>),
    /// Only what would change: nothing was opened.
    Draft(Box<Draft>),
}

/// What was made ready, or why it could not be.
type Outcome = Result<Ready, Failure>;

/// Reloads, one at a time.
pub struct Reloader {
    pub(crate) loader: Option<Arc<Loader>>,
    sender: Sender<Outcome>,
    outcomes: Receiver<Outcome>,
    waker: Arc<Waker>,
    /// Those that the preparation under way is for.
    under_way: Vec<Wish>,
    /// Those that came later, and want what the file says now.
    waiting: Vec<Wish>,
}

impl Reloader {
    /// Wakes the supervisor when a configuration is ready.
    pub fn new(waker: Arc<Waker>) -> Reloader {
        let (sender, outcomes) = unbounded();
        Reloader {
            loader: None,
            sender,
            outcomes,
            waker,
            under_way: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether anything is under way.
    pub fn is_at_work(&self) -> bool {
        !self.under_way.is_empty() || !self.waiting.is_empty()
    }

    /// What has become of the preparation, once.
    fn outcome(&mut self) -> Option<(Outcome, Vec<Wish>)> {
        let outcome = self.outcomes.try_recv().ok()?;
        Some((outcome, std::mem::take(&mut self.under_way)))
    }

    fn begin(&mut self, present: Present, output: Sender<Job>, epoch: Instant, ended: Arc<Waker>) {
        let is_dry_run = self.under_way.iter().all(|wish| wish.is_dry_run);
        let (loader, sender, waker) = (
            self.loader.clone(),
            self.sender.clone(),
            Arc::clone(&self.waker),
        );
        let work = move || {
            let nothing = || Failure::File("there is no file to reload".to_owned());
            let config = loader
                .ok_or_else(nothing)
                .and_then(|loader| loader().map_err(Failure::from));
            let outcome = config
                .and_then(|config| draft(config, present))
                .and_then(|draft| match is_dry_run {
                    true => Ok(Ready::Draft(Box::new(draft))),
                    false => draft
                        .prepare(Held::default(), &output, epoch, &ended)
                        .map(Box::new)
                        .map(Ready::Whole),
                });
            // The supervisor may have ended meanwhile.
            let _ = sender.send(outcome);
            let _ = waker.wake();
        };
        if let Err(error) = thread::Builder::new().name("reload".to_owned()).spawn(work) {
            let failure = Failure::System {
                what: "cannot start a thread for the reload",
                error,
            };
            let _ = self.sender.send(Err(failure));
            let _ = self.waker.wake();
        }
    }
}

impl Supervisor {
    /// Reloads when what is under way is done. Many wishes at once are one reload.
    pub fn reload(&mut self, wish: Wish) {
        let waiting = &mut self.reloader.waiting;
        // Signals come as often as they like; one of them that waits is as good as all.
        if !wish.is_silent() || !waiting.iter().any(Wish::is_silent) {
            waiting.push(wish);
        }
        self.begin_reload();
    }

    /// Begins what waits, unless something else has to be over first.
    pub(crate) fn begin_reload(&mut self) {
        let Reloader {
            under_way, waiting, ..
        } = &self.reloader;
        if !under_way.is_empty() || waiting.is_empty() || self.gate.is_farewell_due {
            return;
        }
        self.reloader.under_way = std::mem::take(&mut self.reloader.waiting);
        let present = self.running.present(self.office.life.generation);
        self.reloader.begin(
            present,
            self.output.clone(),
            self.epoch,
            Arc::clone(&self.ended),
        );
    }

    /// Applies what was made ready, if anything was.
    pub(crate) fn finish_reload(&mut self) -> Result<(), Failure> {
        while let Some((outcome, wishes)) = self.reloader.outcome() {
            match outcome {
                Err(failure) => self.refuse(&failure, wishes),
                Ok(Ready::Draft(draft)) => {
                    let changes = self.changes(&draft.difference, &draft.config.daemon);
                    tell(
                        wishes,
                        &ReloadReport {
                            changes,
                            ..ReloadReport::default()
                        },
                    );
                }
                Ok(Ready::Whole(prepared)) => self.apply(*prepared, wishes)?,
            }
        }
        self.begin_reload();
        Ok(())
    }

    fn refuse(&mut self, failure: &Failure, wishes: Vec<Wish>) {
        let why = failure.to_string();
        if wishes.iter().any(|wish| !wish.is_dry_run) {
            self.office.life.reloads.refused += 1;
            self.office.life.reloads.last_refused = Some(unix_seconds());
            // Some of it may have been ready, on sockets that are ours.
            self.running.settle();
            log::error!("reload refused, everything goes on as before: {why}");
        }
        let is_wrong_file = matches!(failure, Failure::Configuration(_));
        tell(
            wishes,
            &ReloadReport {
                problems: Some(why),
                is_wrong_file,
                ..ReloadReport::default()
            },
        );
    }

    fn apply(&mut self, prepared: Prepared, wishes: Vec<Wish>) -> Result<(), Failure> {
        let changes = self.changes(&prepared.difference, &prepared.config.daemon);
        let (dry, wet): (Vec<Wish>, Vec<Wish>) =
            wishes.into_iter().partition(|wish| wish.is_dry_run);
        tell(
            dry,
            &ReloadReport {
                changes: changes.clone(),
                ..ReloadReport::default()
            },
        );
        for note in prepared
            .plan
            .notes
            .iter()
            .filter(|note| !self.running.plan.notes.contains(note))
        {
            log::warn!("{note}");
        }
        changes
            .iter()
            .for_each(|change| log::log!(level_of(change), "reload: {change}"));
        self.heed_daemon(&prepared.config.daemon);
        self.tell_reloading();
        let begun = Instant::now();
        let parked = self.running.park()?;
        self.running.take_place(prepared, parked);
        let pause = begun.elapsed();
        self.office
            .on_reload(&self.running.config, &self.running.plan);
        self.drain_again();
        self.tell_ready();
        self.tap_again();
        log::info!(
            "reloaded: {}; {:.1} ms between two turns",
            self.summary(),
            pause.as_secs_f64() * 1e3
        );
        tell(
            wet,
            &ReloadReport {
                is_applied: true,
                changes,
                ..ReloadReport::default()
            },
        );
        Ok(())
    }
}

impl Supervisor {
    /// What changes, a line each, and what of `[daemon]` has to wait (`!`).
    fn changes(&self, difference: &Difference, new: &Daemon) -> Vec<String> {
        let old = &self.running.config.daemon;
        let doors = [
            ("`control`", new.control != old.control),
            ("`http`", new.http != old.http),
            ("`http_hosts`", new.http_hosts != old.http_hosts),
        ];
        let waiting: Vec<&str> = doors
            .iter()
            .filter(|door| door.1)
            .map(|door| door.0)
            .collect();
        let mut changes = difference.lines();
        if !waiting.is_empty() {
            let waiting = listed(waiting, "and");
            changes.push(format!(
                "{WAITS} {waiting} below [daemon]: as before until the next start or takeover"
            ));
        }
        changes
    }

    /// Applies what of `[daemon]` is no matter of workers.
    fn heed_daemon(&self, new: &Daemon) {
        let old = &self.running.config.daemon;
        if new.log != old.log {
            log::info!("{}", log_level::set(new.log));
        }
    }
}

/// What is not as the file says deserves more attention.
fn level_of(change: &str) -> Level {
    if change.starts_with(WAITS) {
        Level::Warn
    } else {
        Level::Info
    }
}

fn tell(wishes: Vec<Wish>, report: &ReloadReport) {
    wishes
        .into_iter()
        .filter_map(|wish| wish.reply)
        .for_each(|reply| reply.send(report.clone()));
}
