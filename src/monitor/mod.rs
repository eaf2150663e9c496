//! Monitors the upstreams while the workers run, off the data path. It resolves names again, probes the upstreams, and
//! notifies the workers of changes. A worker never waits for any of it.
//!
//! One thread polls all probes and runs both schedules (`monitor_thread.rs`). A look-up may block for as long as the
//! system's resolver does. Each therefore has its own thread, so that a look-up that hangs delays no other.
//! `resolver.rs` and `prober.rs` decide what to do, `schedule.rs` decides when, `health.rs` counts results, and
//! `probe.rs` performs one probe. They return `News`; only the monitor thread publishes it.

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

#[cfg(any(test, feature = "internals"))]
pub use self::health::ProbeFailure;
use self::monitor_thread::{MonitorMessage, MonitorThread};
pub use self::monitored::{MonitoredUpstream, Outside, UpstreamState};
use crate::config::Config;
use crate::net::fib;
use crate::plan::Plan;
use crate::plan::forwarding_loops::{LoopInputs, LoopWatch};
use crate::plan::upstreams::{PlannedUpstream, addresses};
use crate::worker::command::{Command, Handle};

/// Longest wait for the monitor thread to end. It never blocks, so this limit matters only on an overloaded machine.
const STOP_MAX: Duration = Duration::from_millis(500);

/// The running monitor of all upstreams.
pub struct Monitor {
    states: Arc<Mutex<Vec<UpstreamState>>>,
    /// `None` if there is nothing to monitor.
    thread: Option<Thread>,
}

struct Thread {
    messages: Sender<MonitorMessage>,
    waker: Arc<Waker>,
    /// No message is ever sent; the channel closes when the thread ends.
    ended: Receiver<()>,
}

impl Monitor {
    /// Starts the monitor for the upstreams of a plan whose workers run.
    ///
    /// `known` holds the previous states, by index. If the monitor cannot start, an error is logged and the
    /// upstreams keep their states.
    pub fn of_plan(
        config: &Config,
        plan: &Plan,
        workers: Vec<Handle>,
        known: &[Option<UpstreamState>],
    ) -> Monitor {
        let mut loop_watch = LoopWatch::new(
            LoopInputs {
                config,
                table: &plan.table,
                upstreams: &plan.upstreams,
            },
            &plan.names,
            fib::look_up,
        );
        let notify = move |id, event| {
            for worker in &workers {
                // The supervisor handles a worker that has ended.
                worker.send(Command::UpstreamEvent(id, event));
            }
        };
        let outside = Outside {
            notify: Box::new(notify),
            look_up: Arc::new(|name| addresses(name, 0)),
            permit: Box::new(move |id, address| loop_watch.permit(id, address)),
        };
        let mut monitored_upstreams = monitored_upstreams(config, plan);
        for (monitored, state) in monitored_upstreams.iter_mut().zip(known) {
            let Some(state) = state else { continue };
            let at_start = &mut monitored.state;
            at_start.address = state.address.or(at_start.address);
            at_start.alive = state.alive || monitored.probe.is_none();
        }
        let states = states(&monitored_upstreams);
        Monitor::start(monitored_upstreams, outside).unwrap_or_else(|error| {
            log::error!("cannot start the monitor of upstreams: {error}; their addresses and health no longer change; restart the daemon");
            Monitor {
                states: Arc::new(Mutex::new(states)),
                thread: None,
            }
        })
    }

    /// Starts the monitor for these upstreams.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the poll cannot be created or the thread cannot be started.
    pub fn start(
        monitored_upstreams: Vec<MonitoredUpstream>,
        outside: Outside,
    ) -> io::Result<Monitor> {
        let states = Arc::new(Mutex::new(states(&monitored_upstreams)));
        let monitored_upstreams: Vec<_> = monitored_upstreams.into_iter().map(Arc::new).collect();
        let (monitor_thread, messages, waker) =
            MonitorThread::new(&monitored_upstreams, outside, Arc::clone(&states))?;
        if monitor_thread.is_idle() {
            return Ok(Monitor {
                states,
                thread: None,
            });
        }
        let (end, ended) = bounded(0);
        thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || {
                let _end = end;
                monitor_thread.run();
            })?;
        Ok(Monitor {
            states,
            thread: Some(Thread {
                messages,
                waker,
                ended,
            }),
        })
    }

    /// Returns the state of every upstream, by index.
    pub fn snapshot(&self) -> Vec<UpstreamState> {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops the monitor; workers receive no further events. Look-ups in progress end with the process.
    pub fn stop(&mut self) {
        let Some(Thread {
            messages,
            waker,
            ended,
        }) = self.thread.take()
        else {
            return;
        };
        // Either call fails only if the thread has ended.
        let _ = messages.send(MonitorMessage::Stop);
        let _ = waker.wake();
        let _ = ended.recv_timeout(STOP_MAX);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn states(monitored_upstreams: &[MonitoredUpstream]) -> Vec<UpstreamState> {
    let states = monitored_upstreams.iter();
    states.map(|monitored| monitored.state.clone()).collect()
}

/// Returns the monitored upstreams of a plan.
fn monitored_upstreams(config: &Config, plan: &Plan) -> Vec<MonitoredUpstream> {
    let settings = |handler: &crate::config::NamedHandler| {
        let settings = handler.spec.monitor_settings();
        (settings.probe.map(Arc::new), settings.resolve_interval)
    };
    let settings: Vec<_> = config.handlers.iter().map(settings).collect();
    let monitored = |planned: &PlannedUpstream| {
        let (probe, resolve_interval) = settings[planned.handler.index()].clone();
        MonitoredUpstream {
            handler: config.handler(planned.handler).name.clone(),
            upstream: planned.upstream.clone(),
            interface: planned.interface,
            state: UpstreamState::new(planned.address.as_ref().ok().copied()),
            probe,
            resolve_interval,
        }
    };
    plan.upstreams
        .iter()
        .map(|(_, planned)| monitored(planned))
        .collect()
}
