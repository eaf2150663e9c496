//! Looks after the upstreams while the workers run, off the data path: resolves names again and probes who is alive, and
//! tells the workers what changed. A worker never waits for any of it.
//!
//! One thread polls all probes and keeps both schedules (`monitor_thread.rs`). Look-ups may block for as long as the system's
//! resolver likes, so each has a thread of its own that ends with it, or with the process: one that hangs delays nothing
//! but itself. `resolver.rs` and `prober.rs` decide, `schedule.rs` says when, `health.rs` counts, `probe.rs` is one
//! probe. They write down what is new as `News`; only the keeper tells anyone.

mod health;
mod monitor_thread;
mod monitored;
mod probe;
mod prober;
mod resolver;
mod schedule;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

pub use self::health::Failure;
use self::monitor_thread::{Keeper, Letter};
pub use self::monitored::{LookUp, Outside, State, Ward};
use crate::config::Config;
use crate::net::fib;
use crate::plan::Plan;
use crate::plan::forwarding_loops::Watch;
use crate::plan::upstreams::{Located, addresses};
use crate::worker::command::{Command, Handle};

/// Longest wait for the keeper at the end. It never blocks, so this is for a machine that has no time for it.
const STOP_MAX: Duration = Duration::from_millis(500);

/// The upkeep of all upstreams, running.
pub struct Upkeep {
    states: Arc<Mutex<Vec<State>>>,
    /// `None` where there is nothing to do.
    thread: Option<Thread>,
}

struct Thread {
    letters: Sender<Letter>,
    waker: Arc<Waker>,
    /// Nothing is ever sent: the thread's end closes it.
    ended: Receiver<()>,
}

impl Upkeep {
    /// Starts to look after the upstreams of a plan whose workers run.
    ///
    /// `known` is what was known before, by number. Where it cannot start, upstreams stay as they are, and the log says so.
    pub fn of_plan(
        config: &Config,
        plan: &Plan,
        workers: Vec<Handle>,
        known: &[Option<State>],
    ) -> Upkeep {
        let mut watch = Watch::new(
            config,
            &plan.table,
            &plan.names,
            &plan.upstreams,
            fib::look_up,
        );
        let tell = move |id, change| {
            for worker in &workers {
                // One that has ended is the supervisor's business.
                worker.send(Command::Change(id, change));
            }
        };
        let outside = Outside {
            tell: Box::new(tell),
            look_up: Arc::new(|name| addresses(name, 0)),
            permit: Box::new(move |id, address| watch.permit(id, address)),
        };
        let mut wards = wards(config, plan);
        for (ward, state) in wards.iter_mut().zip(known) {
            let Some(state) = state else { continue };
            ward.address = state.address.or(ward.address);
            ward.is_alive = state.alive || ward.probe.is_none();
        }
        let states = wards.iter().map(State::of).collect();
        Upkeep::start(wards, outside).unwrap_or_else(|error| {
            log::error!("nobody looks after the upstreams, which stay as they are now: {error}");
            Upkeep {
                states: Arc::new(Mutex::new(states)),
                thread: None,
            }
        })
    }

    /// Starts to look after these.
    pub fn start(wards: Vec<Ward>, outside: Outside) -> io::Result<Upkeep> {
        let states = Arc::new(Mutex::new(wards.iter().map(State::of).collect()));
        let (keeper, letters, waker) = Keeper::new(&wards, outside, Arc::clone(&states))?;
        if keeper.is_idle() {
            return Ok(Upkeep {
                states,
                thread: None,
            });
        }
        let (end, ended) = bounded(0);
        thread::Builder::new()
            .name("upkeep".to_owned())
            .spawn(move || {
                let _end = end;
                keeper.run();
            })?;
        Ok(Upkeep {
            states,
            thread: Some(Thread {
                letters,
                waker,
                ended,
            }),
        })
    }

    /// What is known of every upstream, by number.
    pub fn snapshot(&self) -> Vec<State> {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends it; workers hear nothing more. Look-ups that are under way end with the process.
    pub fn stop(&mut self) {
        let Some(Thread {
            letters,
            waker,
            ended,
        }) = self.thread.take()
        else {
            return;
        };
        // Either fails only where the thread has ended.
        let _ = letters.send(Letter::Stop);
        let _ = waker.wake();
        let _ = ended.recv_timeout(STOP_MAX);
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The upstreams of a plan.
fn wards(config: &Config, plan: &Plan) -> Vec<Ward> {
    let keep = |handler: &crate::config::NamedHandler| {
        let upkeep = handler.recipe.upkeep();
        (upkeep.probe.map(Arc::new), upkeep.resolve_interval)
    };
    let upkeeps: Vec<_> = config.handlers.iter().map(keep).collect();
    let ward = |located: &Located| {
        let (probe, resolve_interval) = upkeeps[located.handler.index()].clone();
        Ward {
            handler: config.handler(located.handler).name.clone(),
            upstream: located.upstream.clone(),
            address: located.address.as_ref().ok().copied(),
            interface: located.interface,
            is_alive: true,
            probe,
            resolve_interval,
        }
    };
    plan.upstreams
        .iter()
        .map(|(_, located)| ward(located))
        .collect()
}
