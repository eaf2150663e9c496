//! Looks every few seconds at what the host shows and no datagram tells: sockets of other programs that overlap ours, and
//! interfaces that are gone. On a thread of its own, since /proc can be long; it takes at most a hundredth of the time.

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

/// Time between two looks.
const STEP: Duration = Duration::from_secs(3);
/// The next look is put off by so many times what the last one took.
const REST: u32 = 100;

/// Somebody who looks.
pub struct HostWatch {
    found: Arc<Mutex<Vec<Alarm>>>,
    /// Gone where no thread could be had.
    orders: Option<Sender<Watched>>,
}

/// What is looked for.
#[derive(Debug, Default)]
struct Watched {
    addresses: Vec<Address>,
    memberships: Vec<Membership>,
}

impl HostWatch {
    /// Looks for nothing yet.
    pub fn start() -> HostWatch {
        let (orders, queue) = unbounded::<Watched>();
        let found = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&found);
        let look = move || {
            let (mut watched, mut looks, mut wait) = (Watched::default(), Looks::default(), STEP);
            loop {
                match queue.recv_timeout(wait) {
                    Ok(new) => (watched, wait) = (new, STEP),
                    Err(RecvTimeoutError::Timeout) => {
                        let begun = Instant::now();
                        let alarms = looks.look(&watched);
                        wait = STEP.max(begun.elapsed() * REST);
                        // What is found after a change is not told as of before it: that would name what is no more.
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
            .spawn(look);
        HostWatch {
            found,
            orders: told(started).map(|_| orders),
        }
    }

    /// From now on looks for what matters to this configuration.
    pub fn watch(&self, config: &Config, plan: &Plan) {
        let watched = Watched {
            addresses: overlap::addresses(plan),
            memberships: interface_gone::memberships(config, plan),
        };
        if let Some(orders) = &self.orders {
            let _ = orders.send(watched);
        }
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// What there was at the last look.
    pub fn found(&self) -> Vec<Alarm> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn told<T>(started: io::Result<T>) -> Option<T> {
    if let Err(error) = &started {
        log::warn!(
            "no thread can be had to look for sockets of others and for interfaces that go: {error}"
        );
    }
    started.ok()
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
struct Looks {
    overlaps: Overlaps,
    since: HashMap<(String, String), u64>,
}

impl Looks {
    fn look(&mut self, watched: &Watched) -> Vec<Alarm> {
        let now = unix_seconds();
        let mut alarms = self.overlaps.look(&watched.addresses);
        alarms.extend(interface_gone::look(&watched.memberships));
        let cause = |alarm: &Alarm| (alarm.name.clone(), alarm.about.clone());
        self.since
            .retain(|known, _| alarms.iter().any(|alarm| cause(alarm) == *known));
        for alarm in &mut alarms {
            alarm.since = *self.since.entry(cause(alarm)).or_insert(now);
        }
        alarms
    }
}
