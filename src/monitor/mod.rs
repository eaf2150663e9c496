//! Looks after the upstreams while the workers run, off the data path: resolves names again and probes who is alive, and
//! tells the workers what changed. A worker never waits for any of it.
//!
//! One thread polls all probes and keeps both schedules (`keeper.rs`). Look-ups may block for as long as the system's
//! resolver likes, so each has a thread of its own that ends with it, or with the process: one that hangs delays nothing
//! but itself. `resolver.rs` and `prober.rs` decide, `schedule.rs` says when, `health.rs` counts, `attempt.rs` is one
//! probe. They write down what is new as `News`; only the keeper tells anyone.

mod health;
mod monitor_thread;
mod probe;
mod prober;
mod resolver;
mod schedule;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

pub use self::health::Failure;
use self::monitor_thread::{Keeper, Letter};
use crate::config::Config;
use crate::config::upstream::{Host, Probe, Upstream};
use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;
use crate::net::fib;
use crate::plan::Plan;
use crate::plan::forwarding_loops::Watch;
use crate::plan::upstreams::{Located, addresses};
use crate::worker::command::{Command, Handle};

/// Longest wait for the keeper at the end. It never blocks, so this is for a machine that has no time for it.
const STOP_MAX: Duration = Duration::from_millis(500);

/// An upstream to be looked after; its number is its place in the list.
#[derive(Debug, Clone)]
pub struct Ward {
    /// The handler's name.
    pub handler: String,
    /// What the file says of it.
    pub upstream: Upstream,
    /// Where it is, if that is known.
    pub address: Option<SocketAddr>,
    /// Index of the interface that datagrams leave through; 0: the kernel's choice.
    pub interface: u32,
    /// Whether it is thought to live when its upkeep begins.
    pub is_alive: bool,
    /// How it is asked whether it lives.
    pub probe: Option<Arc<Probe>>,
    /// How often its name is resolved again; zero: never, once it has an address.
    pub resolve_interval: Duration,
}

impl Ward {
    /// The name that may come to mean another address. An upstream that misses its interface is not helped by one.
    fn name(&self) -> Option<&str> {
        let misses_interface = self.upstream.leave.interface.is_some() && self.interface == 0;
        match &self.upstream.host {
            Host::Name(name) if !misses_interface => Some(name),
            _ => None,
        }
    }
}

/// Looks a name up.
pub type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The outside world, which a test replaces.
pub struct Outside {
    /// Tells every worker.
    pub tell: Box<dyn FnMut(UpstreamId, Change) + Send>,
    /// May block. The ports of the answers mean nothing.
    pub look_up: Arc<LookUp>,
    /// Says whether an upstream may move there, or what would come of it, as in "which would close …".
    pub permit: Box<dyn FnMut(UpstreamId, SocketAddr) -> Result<(), String> + Send>,
}

/// What is known of one upstream, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Whether it is thought to answer. Those that are not probed are.
    pub alive: bool,
    /// When one of the two last changed.
    pub changed: Option<Instant>,
    /// When a probe last failed, and why.
    pub failed: Option<(Instant, Failure)>,
}

impl State {
    /// As it begins.
    fn of(ward: &Ward) -> State {
        State {
            address: ward.address,
            alive: ward.is_alive,
            changed: None,
            failed: None,
        }
    }
}

/// Something new.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    /// For the workers.
    Change(UpstreamId, Change),
    /// For the views.
    Failed(UpstreamId, Failure),
    /// For the log.
    Say(log::Level, String),
}

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
