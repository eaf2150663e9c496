//! A configuration at work: its workers, who looks after its upstreams, and the accounts of all that ran before it.

use std::collections::{HashMap, HashSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::build::error::DaemonError;
use crate::build::worker_threads::WorkerThreads;
use crate::config::Config;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::handover::history::{History, Rows};
use crate::handover::prepare::{Prepared, Present};
use crate::handover::transfer::hand_over;
use crate::monitor::{Monitor, UpstreamState};
use crate::plan::Plan;
use crate::plan::identity::Identity;
use crate::plan::upstreams::Located;
use crate::worker::command::{Command, Handle};
use crate::worker::event_loop::Worker;
use crate::worker::listener::Listener;
use crate::worker::worker_state::WorkerState;

/// Longest wait for a worker's copy of its accounts; a turn takes far less than a thousandth of it.
const SNAPSHOT_MAX: Duration = Duration::from_secs(1);

/// One worker's part.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Its accounts, as it last gave them.
    pub ledger: Ledger,
    /// Whether it gave them now.
    pub responsive: bool,
}

/// What runs.
pub struct Running {
    /// What the file says.
    pub config: Config,
    /// What that means on this machine.
    pub plan: Plan,
    /// What it amounts to.
    pub identity: Identity,
    workers: Vec<(Handle, JoinHandle<Option<Worker>>)>,
    monitor: Monitor,
    history: History,
    /// The smallest receive buffer of each listener's sockets, in bytes, as the kernel granted it.
    receive_buffers: Vec<usize>,
}

/// What has stopped so that something else can go on with it.
pub struct Parked {
    /// The workers, with everything that they had.
    pub workers: Vec<Worker>,
    /// What is known of the upstreams, by number.
    pub states: Vec<UpstreamState>,
    /// The accounts of all that ran before.
    pub history: History,
    /// How many rows they have.
    pub rows: Rows,
}

impl Running {
    /// Starts what was prepared, where nothing ran before.
    pub fn start(prepared: Prepared) -> Running {
        Running::go_on(prepared, Vec::new(), History::default(), HashMap::new())
    }

    /// Starts what was prepared in its own place, with what was parked.
    pub fn take_place(&mut self, prepared: Prepared, parked: Parked) {
        *self = Running::succeed(prepared, parked, &self.identity);
    }

    /// Starts what was prepared, in place of what has been parked, whose names are these.
    fn succeed(prepared: Prepared, parked: Parked, names: &Identity) -> Running {
        let Parked {
            mut workers,
            states,
            mut history,
            rows,
        } = parked;
        let removed: Vec<usize> = gone(&prepared.row_map.listeners);
        let mut worker_states = Vec::new();
        for (number, mut worker) in workers.drain(..).enumerate() {
            if !removed.is_empty() {
                worker.read_out(&removed);
            }
            let mut worker_state = worker.save();
            history.add(
                number,
                rows,
                &worker_state.ledger,
                std::mem::take(&mut worker_state.sink_counts),
            );
            worker_state.sockets = worker.into_upstream_sockets();
            worker_states.push(worker_state);
        }
        Running::go_on(
            prepared,
            worker_states,
            history,
            named_states(names, states),
        )
    }

    /// Starts what was prepared, with what others have left.
    pub fn go_on(
        prepared: Prepared,
        worker_states: Vec<WorkerState>,
        history: History,
        states: HashMap<(String, String), UpstreamState>,
    ) -> Running {
        let Prepared {
            config,
            plan,
            identity,
            mut workers,
            worker_threads,
            row_map,
            ..
        } = prepared;
        settle(&mut workers, &plan);
        let mut history = history.carry(&row_map, rows(&config, &plan));
        hand_over(
            &mut workers
                .iter_mut()
                .map(|(worker, _)| worker)
                .collect::<Vec<_>>(),
            worker_states,
            &row_map,
            &mut history,
        );
        for (_, handle) in &workers {
            tell_of_moves(handle, &plan, &identity, &states);
        }
        let receive_buffers = smallest_buffers(&mut workers, plan.listeners.len());
        let workers = worker_threads.start(workers);
        let handles = workers.iter().map(|(handle, _)| handle.clone()).collect();
        let monitor = Monitor::of_plan(
            &config,
            &plan,
            handles,
            &by_number(&plan, &identity, &states),
        );
        Running {
            config,
            plan,
            identity,
            workers,
            monitor,
            history,
            receive_buffers,
        }
    }

    /// Stops all workers between two turns. Their sockets hold what comes meanwhile.
    pub fn park(&mut self) -> Result<Parked, DaemonError> {
        self.monitor.stop();
        let states = self.monitor.snapshot();
        for (handle, _) in &self.workers {
            handle.send(Command::Park);
        }
        let workers = self.join()?;
        Ok(Parked {
            workers,
            states,
            history: std::mem::take(&mut self.history),
            rows: self.rows(),
        })
    }

    /// Goes on as before with what was parked: nobody has taken it.
    pub fn resume(&mut self, parked: Parked, handles: Vec<Handle>, worker_threads: WorkerThreads) {
        let Parked {
            workers,
            states,
            history,
            ..
        } = parked;
        self.history = history;
        self.workers = worker_threads.resume(workers, handles.clone());
        let known: Vec<Option<UpstreamState>> = states.into_iter().map(Some).collect();
        self.monitor = Monitor::of_plan(&self.config, &self.plan, handles, &known);
    }

    /// Sets everything on the listeners' sockets as it is meant to be, after somebody who was to go on with them has not.
    pub fn settle(&self) {
        let queries: Vec<_> = self
            .handles()
            .filter_map(|handle| {
                let (reply, response) = bounded(1);
                handle.send(Command::Settle(reply)).then_some(response)
            })
            .collect();
        let deadline = Instant::now() + SNAPSHOT_MAX;
        for response in queries {
            if let Ok(Err(error)) = response.recv_deadline(deadline) {
                log::error!("cannot set up a listener as it was before: {error}");
            }
        }
    }

    /// Adds what another process has counted after it gave everything, by worker.
    pub fn add_late(&mut self, ledgers: &[Ledger]) {
        self.history.add_late(ledgers);
    }

    /// Returns one line for the log: how many listeners, routes and workers there are.
    pub fn summary(&self) -> String {
        let counted = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        format!(
            "{}, {}, {}",
            counted(self.plan.listeners.len(), "listener"),
            counted(self.config.routes.len(), "route"),
            counted(self.workers(), "worker")
        )
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Their handles.
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.workers.iter().map(|(handle, _)| handle)
    }

    /// Whether a worker has ended that nobody told to.
    pub fn has_lost_a_worker(&self) -> bool {
        self.workers.iter().any(|(_, thread)| thread.is_finished())
    }

    /// What the monitor knows of the upstreams, by number.
    pub fn upstream_states(&self) -> Vec<UpstreamState> {
        self.monitor.snapshot()
    }

    /// The smallest receive buffer of each listener's sockets, in bytes, as the kernel granted it.
    pub fn receive_buffers(&self) -> &[usize] {
        &self.receive_buffers
    }

    /// How many rows the accounts have.
    pub fn rows(&self) -> Rows {
        rows(&self.config, &self.plan)
    }

    /// What a new configuration may go on with.
    pub fn present(&self, generation: u64) -> Present {
        let mut sum = self.rows().ledger();
        self.ledgers()
            .iter()
            .flatten()
            .for_each(|ledger| sum.add(ledger));
        let states = self.monitor.snapshot();
        let located = self.plan.upstreams.iter().map(|(_, located)| located);
        let addresses = located
            .zip(states)
            .filter_map(|(located, state)| Some((located.upstream.to_string(), state.address?)));
        Present {
            identity: self.identity.clone(),
            handlers: self.config.handlers.iter().cloned().map(Some).collect(),
            sessions: sum
                .handlers
                .iter()
                .map(|count| count.sessions.open)
                .collect(),
            addresses: addresses.collect(),
            workers: self.handles().cloned().collect(),
            generation,
        }
    }

    /// The accounts of each worker since it runs, each as of one of its turns' ends; `None` of one that does not answer.
    pub fn ledgers(&self) -> Vec<Option<Ledger>> {
        let deadline = Instant::now() + SNAPSHOT_MAX;
        let ask = |(handle, _): &(Handle, _)| {
            let (reply, response) = bounded(1);
            handle.send(Command::Snapshot(reply)).then_some(response)
        };
        let queries: Vec<_> = self.workers.iter().map(ask).collect();
        queries
            .into_iter()
            .map(|response| response?.recv_deadline(deadline).ok())
            .collect()
    }

    /// The same with what was counted before by workers that are gone.
    pub fn with_history(&mut self, now: &[Part]) -> Vec<Part> {
        let rows = self.rows();
        let past = self.history.ledgers();
        let sum = |number: usize| {
            let mut ledger = rows.ledger();
            past.get(number)
                .into_iter()
                .for_each(|past| ledger.add(past));
            now.get(number)
                .into_iter()
                .for_each(|now| ledger.add(&now.ledger));
            Part {
                ledger,
                responsive: now.get(number).is_none_or(|now| now.responsive),
            }
        };
        (0..past.len().max(now.len())).map(sum).collect()
    }

    /// Handles what the sockets hold, and ends the workers. `has_successor`: the sockets are kept for the next process, and so is
    /// what comes from now on; otherwise nothing new is let in.
    pub fn stop(&mut self, has_successor: bool) -> Result<Stopped, DaemonError> {
        self.monitor.stop();
        for (handle, _) in &self.workers {
            handle.send(Command::Stop { has_successor });
        }
        Ok(Stopped {
            workers: self.join()?,
        })
    }

    fn join(&mut self) -> Result<Vec<Worker>, DaemonError> {
        self.workers
            .drain(..)
            .map(|(_, thread)| thread.join().ok().flatten().ok_or(DaemonError::Worker))
            .collect()
    }
}

/// Workers that have ended for good; their sinks may still be at work.
pub struct Stopped {
    workers: Vec<Worker>,
}

impl Stopped {
    /// Their accounts, as of now.
    pub fn ledgers(&self) -> impl Iterator<Item = Ledger> {
        self.workers.iter().map(Worker::accounts)
    }
}

fn rows(config: &Config, plan: &Plan) -> Rows {
    Rows::new(
        plan.listeners.len(),
        config.routes.len(),
        config.handlers.len(),
        plan.upstreams.iter().len(),
    )
}

/// The last that is done to listeners' sockets, when nobody else reads them and nothing can be called off any more: those
/// that are late are bound beside the others of their address, and all are set as they are meant to be.
fn settle(workers: &mut [(Worker, Handle)], plan: &Plan) {
    let mut listeners: Vec<&mut Listener> = workers
        .iter_mut()
        .flat_map(|(worker, _)| worker.listeners())
        .collect();
    let name = |listener: &Listener| plan.listeners[listener.slot.listener].label.clone();
    let late: HashSet<u16> = listeners
        .iter()
        .filter(|listener| listener.is_late())
        .map(|listener| listener.address.port())
        .collect();
    for listener in listeners
        .iter()
        .filter(|listener| late.contains(&listener.address.port()))
    {
        // Where that fails, so does the bind.
        let _ = listener.unlock();
    }
    for listener in listeners.iter_mut().filter(|listener| listener.is_late()) {
        if let Err(error) = listener.bind_late() {
            log::error!(
                "a worker more cannot be had for {}: {error}; the others serve it",
                name(listener)
            );
        }
    }
    for listener in &listeners {
        if let Err(error) = listener.settle() {
            log::error!("cannot set up {} as it should be: {error}", name(listener));
        }
    }
}

fn smallest_buffers(workers: &mut [(Worker, Handle)], listeners: usize) -> Vec<usize> {
    let mut smallest = vec![usize::MAX; listeners];
    for listener in workers
        .iter_mut()
        .flat_map(|(worker, _)| worker.listeners())
    {
        let granted = &mut smallest[listener.slot.listener];
        *granted = listener.receive_buffer().min(*granted);
    }
    smallest
}

/// The numbers of those that nobody goes on with.
fn gone(row_map: &[Option<usize>]) -> Vec<usize> {
    (0..row_map.len())
        .filter(|old| row_map[*old].is_none())
        .collect()
}

/// What is known of upstreams, by the names of their handlers and their own.
pub fn named_states(
    identity: &Identity,
    states: Vec<UpstreamState>,
) -> HashMap<(String, String), UpstreamState> {
    let names = identity.handlers.iter().flat_map(|handler| {
        handler
            .upstreams
            .iter()
            .map(|upstream| (handler.name.clone(), upstream.clone()))
    });
    names.zip(states).collect()
}

/// The same by the numbers of a plan.
fn by_number(
    plan: &Plan,
    identity: &Identity,
    states: &HashMap<(String, String), UpstreamState>,
) -> Vec<Option<UpstreamState>> {
    let names = identity.handlers.iter().flat_map(|handler| {
        handler
            .upstreams
            .iter()
            .map(|upstream| (handler.name.clone(), upstream.clone()))
    });
    names
        .zip(plan.upstreams.iter())
        .map(|(name, _)| states.get(&name).cloned())
        .collect()
}

/// Upstreams that have moved since the plan was made.
fn tell_of_moves(
    handle: &Handle,
    plan: &Plan,
    identity: &Identity,
    states: &HashMap<(String, String), UpstreamState>,
) {
    let known = by_number(plan, identity, states);
    for ((id, located), state) in plan.upstreams.iter().zip(known) {
        let Located { address, .. } = located;
        if let Some(UpstreamState {
            address: Some(now), ..
        }) = state
            && address.as_ref().ok() != Some(&now)
        {
            handle.send(Command::UpstreamEvent(id, UpstreamEvent::Moved(now)));
        }
    }
}
