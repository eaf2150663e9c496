//! Reload: another configuration takes the place of the one that runs, in the same process. It is made ready on a thread of its
//! own, which may take as long as a resolver likes; the change itself happens between two turns.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;

use super::held::Held;
use super::prepare::{Prepared, Present, prepare};
use super::supervisor::{Failure, Supervisor};
use crate::config::{Config, LoadError};
use crate::dispatch::sink::Job;

/// Reads the configuration that a reload is to apply.
pub type Loader = dyn Fn() -> Result<Config, LoadError> + Send + Sync;

/// What came of a reload, or would come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether the new configuration runs now.
    pub is_applied: bool,
    /// What is new, a line each.
    pub changes: Vec<String>,
    /// Why it was refused, in full.
    pub refusal: Option<String>,
    /// How long no worker read its sockets.
    pub pause: Duration,
}

/// Who wants to know what came of it.
pub type Answer = Box<dyn FnOnce(&Report) + Send>;

/// A wish to reload.
pub struct Wish {
    /// Only say what would be done.
    pub is_dry: bool,
    /// Who is told.
    pub answer: Answer,
}

/// What was made ready, or why it could not be.
type Outcome = Result<Box<Prepared>, Failure>;

/// Reloads, one at a time.
pub struct Reloader {
    pub(super) loader: Option<Arc<Loader>>,
    sender: Sender<Outcome>,
    outcomes: Receiver<Outcome>,
    waker: Arc<Waker>,
    /// Those that the preparation under way is for.
    under_way: Vec<Wish>,
    /// Those that came later, and want what the file says now.
    waiting: Vec<Wish>,
    /// How many configurations have been applied, the first included.
    pub generation: u64,
    /// How many were refused.
    pub refused: u64,
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
            generation: 1,
            refused: 0,
        }
    }

    /// What has become of the preparation, once.
    fn outcome(&mut self) -> Option<(Outcome, Vec<Wish>)> {
        let outcome = self.outcomes.try_recv().ok()?;
        Some((outcome, std::mem::take(&mut self.under_way)))
    }

    fn begin(&mut self, present: Present, output: Sender<Job>, epoch: Instant, ended: Arc<Waker>) {
        let (loader, sender, waker) = (self.loader.clone(), self.sender.clone(), Arc::clone(&self.waker));
        let work = move || {
            let nothing = || Failure::File("there is no file to reload".to_owned());
            let prepared = loader.ok_or_else(nothing).and_then(|loader| loader().map_err(Failure::from));
            let prepared = prepared
                .and_then(|config| prepare(config, present, Held::default(), &output, epoch, &ended).map(Box::new));
            // The supervisor may have ended meanwhile.
            let _ = sender.send(prepared);
            let _ = waker.wake();
        };
        if let Err(error) = thread::Builder::new().name("reload".to_owned()).spawn(work) {
            let failure = Failure::System { what: "cannot start a thread for the reload", error };
            let _ = self.sender.send(Err(failure));
            let _ = self.waker.wake();
        }
    }
}

impl Supervisor {
    /// Reloads when what is under way is done. Many wishes at once are one reload.
    pub fn reload(&mut self, wish: Wish) {
        self.reloader.waiting.push(wish);
        self.begin_reload();
    }

    fn begin_reload(&mut self) {
        if !self.reloader.under_way.is_empty() || self.reloader.waiting.is_empty() {
            return;
        }
        self.reloader.under_way = std::mem::take(&mut self.reloader.waiting);
        match self.running.present(self.reloader.generation) {
            Ok(present) => {
                self.reloader.begin(present, self.output.clone(), self.epoch, Arc::clone(&self.ended));
            }
            Err(failure) => {
                let wishes = std::mem::take(&mut self.reloader.under_way);
                self.refuse(&failure, wishes);
            }
        }
    }

    /// Applies what was made ready, if anything was.
    pub(super) fn finish_reload(&mut self) -> Result<(), Failure> {
        while let Some((outcome, wishes)) = self.reloader.outcome() {
            match outcome {
                Err(failure) => self.refuse(&failure, wishes),
                Ok(prepared) => self.apply(*prepared, wishes)?,
            }
        }
        self.begin_reload();
        Ok(())
    }

    fn refuse(&mut self, failure: &Failure, wishes: Vec<Wish>) {
        self.reloader.refused += 1;
        let why = failure.to_string();
        log::error!("reload refused, everything goes on as before: {why}");
        tell(wishes, &Report { is_applied: false, changes: Vec::new(), refusal: Some(why), pause: Duration::ZERO });
    }

    fn apply(&mut self, prepared: Prepared, wishes: Vec<Wish>) -> Result<(), Failure> {
        let changes = prepared.difference.lines();
        let (dry, wet): (Vec<Wish>, Vec<Wish>) = wishes.into_iter().partition(|wish| wish.is_dry);
        let dry_report = Report { is_applied: false, changes: changes.clone(), refusal: None, pause: Duration::ZERO };
        tell(dry, &dry_report);
        if wet.is_empty() {
            return Ok(());
        }
        for note in prepared.plan.notes.iter().filter(|note| !self.running.plan.notes.contains(note)) {
            log::warn!("{note}");
        }
        changes.iter().for_each(|change| log::info!("reload: {change}"));
        let begun = Instant::now();
        let parked = self.running.park()?;
        self.running.take_place(prepared, parked);
        let pause = begun.elapsed();
        self.reloader.generation += 1;
        log::info!("reloaded: {}; {:.1} ms between two turns", self.summary(), pause.as_secs_f64() * 1e3);
        tell(wet, &Report { is_applied: true, changes, refusal: None, pause });
        Ok(())
    }
}

fn tell(wishes: Vec<Wish>, report: &Report) {
    wishes.into_iter().for_each(|wish| (wish.answer)(report));
}
