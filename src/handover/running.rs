//! A running configuration: its workers, the monitor of its upstreams, and the ledgers of all workers that ran before.

use std::collections::HashSet;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::build::error::DaemonError;
use crate::build::worker_threads::WorkerThreads;
use crate::config::Config;
use crate::config::diagnostics::counted;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::handover::history::{History, Rows};
use crate::handover::prepare::{Prepared, Present};
use crate::handover::transfer::hand_over;
use crate::monitor::{Monitor, UpstreamState};
use crate::plan::Plan;
use crate::plan::identity::Identity;
use crate::worker::command::{Command, Handle};
use crate::worker::event_loop::Worker;
use crate::worker::listener::Listener;
use crate::worker::worker_state::WorkerState;

/// Longest wait for a worker's copy of its ledger. A turn takes far less than a thousandth of it.
const SNAPSHOT_MAX: Duration = Duration::from_secs(1);

/// A worker's contribution to the counters.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The worker's ledger, as it last returned it.
    pub ledger: Ledger,
    /// Whether the worker returned its ledger in time for this call.
    pub responsive: bool,
}

/// The running configuration with its workers and its history.
pub struct Running {
    /// The parsed file, and retired handlers that only serve sessions of older files.
    pub config: Config,
    /// Sockets, lookups and upstreams that the configuration needs on this host.
    pub plan: Plan,
    /// Identity of the configuration, for comparison with the next one.
    pub identity: Identity,
    workers: Vec<(Handle, JoinHandle<Option<Worker>>)>,
    monitor: Monitor,
    history: History,
    /// The smallest receive buffer of each listener's sockets, in bytes, as the kernel granted it.
    receive_buffers: Vec<usize>,
}

/// Parked workers and everything else that a successor needs to continue.
pub struct Parked {
    /// The parked workers, with their sockets and state.
    pub workers: Vec<Worker>,
    /// Monitored states of the upstreams, by number.
    pub states: Vec<UpstreamState>,
    /// Ledgers of all workers that ran before.
    pub history: History,
    /// Number of rows in the ledgers.
    pub rows: Rows,
}

impl Running {
    /// Starts a prepared configuration when none ran before.
    pub fn start(prepared: Prepared) -> Running {
        Running::go_on(prepared, Vec::new(), History::default(), Vec::new())
    }

    /// Replaces this configuration, which has been parked, by a prepared one.
    pub fn take_place(&mut self, prepared: Prepared, parked: Parked) {
        *self = Running::succeed(prepared, parked);
    }

    /// Starts a prepared configuration in place of a parked one.
    fn succeed(prepared: Prepared, parked: Parked) -> Running {
        let Parked {
            mut workers,
            states,
            mut history,
            rows,
        } = parked;
        let removed: Vec<_> = prepared.row_maps.listeners.gone().collect();
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
        Running::go_on(prepared, worker_states, history, states)
    }

    /// Starts a prepared configuration with the state that other workers exported. `states` are the monitored states
    /// of the former upstreams, by their former numbers.
    pub fn go_on(
        prepared: Prepared,
        worker_states: Vec<WorkerState>,
        history: History,
        states: Vec<UpstreamState>,
    ) -> Running {
        let Prepared {
            config,
            plan,
            identity,
            mut workers,
            worker_threads,
            row_maps,
            ..
        } = prepared;
        settle(&mut workers, &plan);
        let mut history = history.carry(&row_maps, rows(&config, &plan));
        hand_over(
            &mut workers
                .iter_mut()
                .map(|(worker, _)| worker)
                .collect::<Vec<_>>(),
            worker_states,
            &row_maps,
            &mut history,
        );
        let known = row_maps.upstreams.carry(states, plan.upstreams.count());
        for (_, handle) in &workers {
            send_moves(handle, &plan, &known);
        }
        let receive_buffers = smallest_buffers(&mut workers, plan.listeners.len());
        let workers = worker_threads.start(workers);
        let handles = workers.iter().map(|(handle, _)| handle.clone()).collect();
        let monitor = Monitor::of_plan(&config, &plan, handles, &known);
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

    /// Stops all workers between two turns. Meanwhile their sockets queue the arriving datagrams.
    ///
    /// # Errors
    ///
    /// Returns [`DaemonError::Worker`] if a worker thread ended without its worker, for example by a panic.
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

    /// Continues as before with the parked workers, because no successor took them over.
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

    /// Restores all options of the listeners' sockets, after a process that was to take them over has failed.
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
                log::error!("cannot restore the socket options of a listener: {error}");
            }
        }
    }

    /// Adds the counts that another process made after it exported its state, by worker.
    pub fn add_late(&mut self, ledgers: &[Ledger]) {
        self.history.add_late(ledgers);
    }

    /// Returns the numbers of listeners, routes and workers, in one line for the log.
    pub fn summary(&self) -> String {
        format!(
            "{}, {}, {}",
            counted(self.plan.listeners.len(), "listener"),
            counted(self.config.routes.len(), "route"),
            counted(self.workers(), "worker")
        )
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns the handles of the workers.
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.workers.iter().map(|(handle, _)| handle)
    }

    /// Returns whether a worker thread has ended without a command.
    pub fn has_lost_a_worker(&self) -> bool {
        self.workers.iter().any(|(_, thread)| thread.is_finished())
    }

    /// Returns the states of the upstreams as the monitor last published them, by number.
    pub fn upstream_states(&self) -> Vec<UpstreamState> {
        self.monitor.snapshot()
    }

    /// Returns the smallest receive buffer of each listener's sockets, in bytes, as the kernel granted it.
    pub fn receive_buffers(&self) -> &[usize] {
        &self.receive_buffers
    }

    /// Returns the number of rows in the ledgers.
    pub fn rows(&self) -> Rows {
        rows(&self.config, &self.plan)
    }

    /// Returns the state that a new configuration may continue with.
    pub fn present(&self, generation: u64) -> Present {
        let mut sum = self.rows().ledger();
        self.ledgers()
            .iter()
            .flatten()
            .for_each(|ledger| sum.add(ledger));
        let states = self.monitor.snapshot();
        let planned = self.plan.upstreams.iter().map(|(_, planned)| planned);
        let addresses = planned
            .zip(states)
            .filter_map(|(planned, state)| Some((planned.upstream.to_string(), state.address?)));
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

    /// Returns the ledger of each worker since it started, taken between two turns; `None` for a worker that does not
    /// respond.
    pub fn ledgers(&self) -> Vec<Option<Ledger>> {
        let deadline = Instant::now() + SNAPSHOT_MAX;
        let request = |(handle, _): &(Handle, _)| {
            let (reply, response) = bounded(1);
            handle.send(Command::Snapshot(reply)).then_some(response)
        };
        let queries: Vec<_> = self.workers.iter().map(request).collect();
        queries
            .into_iter()
            .map(|response| response?.recv_deadline(deadline).ok())
            .collect()
    }

    /// Returns the counts of the running workers together with those of earlier ones.
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

    /// Handles the datagrams that the sockets hold, and ends the workers. With `has_successor`, the sockets stay open
    /// for the next process, and later datagrams wait in them. Otherwise the kernel filter rejects new datagrams.
    ///
    /// # Errors
    ///
    /// Returns [`DaemonError::Worker`] if a worker thread ended without its worker, for example by a panic.
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
    /// Returns the current ledgers of the workers.
    pub fn ledgers(&self) -> impl Iterator<Item = Ledger> {
        self.workers.iter().map(Worker::accounts)
    }
}

fn rows(config: &Config, plan: &Plan) -> Rows {
    Rows::new(
        plan.listeners.len(),
        config.routes.len(),
        config.handlers.len(),
        plan.upstreams.count(),
    )
}

/// Binds late listener sockets beside the others of their address, and restores all socket options. This is the last
/// step, when no other process reads the sockets and the handover can no longer be cancelled.
fn settle(workers: &mut [(Worker, Handle)], plan: &Plan) {
    let mut listeners: Vec<&mut Listener> = workers
        .iter_mut()
        .flat_map(|(worker, _)| worker.listeners())
        .collect();
    let name = |listener: &Listener| plan.listeners[listener.slot.listener.index()].label.clone();
    let late: HashSet<u16> = listeners
        .iter()
        .filter(|listener| listener.is_late())
        .map(|listener| listener.address.port())
        .collect();
    for listener in listeners
        .iter()
        .filter(|listener| late.contains(&listener.address.port()))
    {
        // If that fails, the bind fails too and is reported.
        let _ = listener.unlock();
    }
    for listener in listeners.iter_mut().filter(|listener| listener.is_late()) {
        if let Err(error) = listener.bind_late() {
            log::error!(
                "cannot add a worker socket for {}: {error}; the existing workers keep serving it",
                name(listener)
            );
        }
    }
    for listener in &listeners {
        if let Err(error) = listener.settle() {
            log::error!(
                "cannot set the socket options of {}: {error}",
                name(listener)
            );
        }
    }
}

fn smallest_buffers(workers: &mut [(Worker, Handle)], listeners: usize) -> Vec<usize> {
    let mut smallest = vec![usize::MAX; listeners];
    for listener in workers
        .iter_mut()
        .flat_map(|(worker, _)| worker.listeners())
    {
        let granted = &mut smallest[listener.slot.listener.index()];
        *granted = listener.receive_buffer().min(*granted);
    }
    smallest
}

/// Notifies a worker of upstreams whose address has changed since the plan was made.
fn send_moves(handle: &Handle, plan: &Plan, known: &[Option<UpstreamState>]) {
    for ((id, planned), state) in plan.upstreams.iter().zip(known) {
        if let Some(now) = state.as_ref().and_then(|state| state.address)
            && planned.address.as_ref().ok() != Some(&now)
        {
            handle.send(Command::UpstreamEvent(id, UpstreamEvent::Moved(now)));
        }
    }
}
