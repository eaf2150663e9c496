//! Checks every few seconds what only the host shows: sockets of other programs that overlap ours, and interfaces that
//! are gone. It runs on its own thread because reading /proc can take long, and uses at most a hundredth of the time.

mod interface_gone;
mod overlap;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

use self::interface_gone::Membership;
use self::overlap::{Address, Overlaps};
use crate::config::Config;
use crate::observe::snapshot::{Alarm, unix_seconds};
use crate::plan::Plan;

/// Time between two checks.
const STEP: Duration = Duration::from_secs(3);
/// The time until the next check is at least this multiple of the duration of the last one.
const PAUSE_FACTOR: u32 = 100;

/// The handle of the watching thread.
pub struct HostWatch {
    found: Arc<Mutex<Vec<Alarm>>>,
    /// The channel to the thread; `None` if it could not be started.
    sender: Option<Sender<Watched>>,
}

/// The addresses and interfaces to check.
#[derive(Debug, Default)]
struct Watched {
    addresses: Vec<Address>,
    memberships: Vec<Membership>,
}

impl HostWatch {
    /// Starts the thread, which checks nothing until [`HostWatch::watch`] is called.
    pub fn start() -> HostWatch {
        let (sender, queue) = unbounded::<Watched>();
        let found = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&found);
        let work = move || {
            let mut watched = Watched::default();
            let mut checks = HostChecks::default();
            let mut wait = STEP;
            loop {
                match queue.recv_timeout(wait) {
                    Ok(new) => (watched, wait) = (new, STEP),
                    Err(RecvTimeoutError::Timeout) => {
                        let begun = Instant::now();
                        let alarms = checks.run(&watched);
                        wait = STEP.max(begun.elapsed() * PAUSE_FACTOR);
                        // Do not publish results that were found before a change of configuration; they may name
                        // removed objects.
                        if queue.is_empty() {
                            *shared.lock().unwrap_or_else(PoisonError::into_inner) = alarms;
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let started = thread::Builder::new()
            .name("host_watch".to_owned())
            .spawn(work);
        HostWatch {
            found,
            sender: logged(started).map(|_| sender),
        }
    }

    /// Replaces the objects to check by those of this configuration.
    pub fn watch(&self, config: &Config, plan: &Plan) {
        let watched = Watched {
            addresses: overlap::addresses(plan),
            memberships: interface_gone::memberships(config, plan),
        };
        if let Some(sender) = &self.sender {
            let _ = sender.send(watched);
        }
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Returns the alarms of the last check.
    pub fn found(&self) -> Vec<Alarm> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Logs the error, if the thread could not be started.
fn logged<T>(started: io::Result<T>) -> Option<T> {
    if let Err(error) = &started {
        log::warn!(
            "cannot start the thread that checks for overlapping sockets and missing interfaces: {error}"
        );
    }
    started.ok()
}

/// The state that is kept between two checks.
#[derive(Debug, Default)]
struct HostChecks {
    overlaps: Overlaps,
    since: HashMap<(String, String), u64>,
}

impl HostChecks {
    fn run(&mut self, watched: &Watched) -> Vec<Alarm> {
        let now = unix_seconds();
        let mut alarms = self.overlaps.check(&watched.addresses);
        alarms.extend(interface_gone::check(&watched.memberships));
        let cause = |alarm: &Alarm| (alarm.name.clone(), alarm.about.clone());
        self.since
            .retain(|known, _| alarms.iter().any(|alarm| cause(alarm) == *known));
        for alarm in &mut alarms {
            alarm.since = *self.since.entry(cause(alarm)).or_insert(now);
        }
        alarms
    }
}
