//! The server's side of the switchover, on the supervisor's thread: performs what the protocol decides while the workers are
//! parked.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::build::error::DaemonError;
use crate::build::service_manager::ServiceManager;
use crate::build::worker_threads::WorkerThreads;
use crate::dispatch::id::ListenerId;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::saved_state::SavedState;
use crate::handover::history::{as_written, difference};
use crate::handover::running::{Parked, Running};
use crate::net::process;
use crate::takeover::conversation::ServerConversation;
use crate::takeover::error::WireError;
use crate::takeover::messages::{FinalCounts, MessageKind, Released, Started};
use crate::takeover::protocol::Message;
use crate::takeover::protocol::server::{
    ServerSwitchover, ServerSwitchoverAction, ServerSwitchoverEvent, SwitchoverConditions,
};
use crate::takeover::time_until;
use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;

/// The parts of the supervisor that handle the requests of takeovers.
pub struct Serving<'a> {
    /// The workers.
    pub running: &'a mut Running,
    /// Number of configurations that were served so far, this one included.
    pub generation: u64,
    /// Upstreams that an operator has drained: handler and upstream.
    pub drained: &'a BTreeSet<(String, String)>,
    /// Whether a reload is in progress or waits.
    pub is_reloading: bool,
    /// The service manager, which is notified which process is the main one.
    pub service: &'a ServiceManager,
}

/// Performs the switchover to one client.
pub(super) struct Switchover<'s, 'a> {
    conversation: ServerConversation,
    serving: &'s mut Serving<'a>,
    /// The handle through which each worker that ends wakes the supervisor.
    worker_ended: Arc<Waker>,
    handles: Vec<Handle>,
    /// The threads that would resume serving.
    threads: Option<WorkerThreads>,
    /// The workers that were parked.
    parked: Option<Parked>,
    /// The exported state.
    released: Option<Released>,
    /// The server's numbers of the listeners that the client does not have.
    removed: Vec<ListenerId>,
    final_counts: Vec<Ledger>,
    /// The time since which no process serves.
    begun: Option<Instant>,
}

impl<'s, 'a> Switchover<'s, 'a> {
    /// Returns a switchover that has not begun. Each worker that ends wakes `worker_ended`.
    pub(super) fn new(
        conversation: ServerConversation,
        serving: &'s mut Serving<'a>,
        worker_ended: Arc<Waker>,
    ) -> Switchover<'s, 'a> {
        Switchover {
            handles: serving.running.handles().cloned().collect(),
            conversation,
            serving,
            worker_ended,
            threads: None,
            parked: None,
            released: None,
            removed: Vec::new(),
            final_counts: Vec::new(),
            begun: None,
        }
    }

    /// Performs the switchover. Returns whether the client serves now.
    ///
    /// # Errors
    ///
    /// `DaemonError::Worker`, if a worker has panicked.
    pub(super) fn run(mut self, conditions: SwitchoverConditions) -> Result<bool, DaemonError> {
        let mut protocol = ServerSwitchover::default();
        let begun = ServerSwitchoverEvent::Begun(conditions);
        let mut actions = VecDeque::from(protocol.step(begun, Instant::now()));
        while let Some(action) = actions.pop_front() {
            if let Some(event) = self.perform(action)? {
                actions.extend(protocol.step(event, Instant::now()));
            }
        }
        Ok(protocol.is_taken_over())
    }

    fn perform(
        &mut self,
        action: ServerSwitchoverAction,
    ) -> Result<Option<ServerSwitchoverEvent>, DaemonError> {
        use ServerSwitchoverAction as Action;
        use ServerSwitchoverEvent as Event;
        let event = match action {
            Action::PrepareThreads => Event::Prepared(self.prepare_threads()),
            Action::ParkWorkers => {
                let sessions = self.park()?;
                Event::Parked { sessions }
            }
            Action::SendState { deadline } => Event::Sent(self.send_state(deadline)),
            Action::Receive { deadline } => Event::Received(self.receive(deadline)),
            Action::KillPeer { deadline } => Event::Killed(self.kill_peer(deadline)),
            Action::SendFinalCounts { deadline } => Event::Sent(self.send_final_counts(deadline)),
            other => {
                self.perform_at_once(other);
                return Ok(None);
            }
        };
        Ok(Some(event))
    }

    /// Performs an action that has no outcome.
    fn perform_at_once(&mut self, action: ServerSwitchoverAction) {
        use ServerSwitchoverAction as Action;
        let pid = self.conversation.peer.pid;
        match action {
            Action::ResumeServing => self.resume(),
            Action::RestoreListeners => self.serving.running.settle(),
            Action::AnnounceMainPid => self.announce_main_pid(),
            Action::CloseSockets => self.close_sockets(),
            Action::Refuse(reason) => self.conversation.refuse(reason),
            Action::ReportSurvivor(reason) => log::error!(
                "cannot end process {pid}: {reason}. Both processes may serve now; end process {pid}"
            ),
            Action::ReportFailure(error) => {
                self.conversation.allow_other_clients();
                log::error!(
                    "process {pid} has not taken over: {error}. This process continues to serve, after a pause of {:.1} ms",
                    self.pause_ms()
                );
            }
            Action::ReportTakenOver => log::info!(
                "process {pid} has taken over; the workers paused for {:.1} ms",
                self.pause_ms()
            ),
            Action::ReportLostCounts(error) => {
                log::warn!("cannot send the final counts to the process that took over: {error}");
            }
            // `perform` handles these actions, because they have an outcome.
            Action::PrepareThreads
            | Action::ParkWorkers
            | Action::SendState { .. }
            | Action::Receive { .. }
            | Action::KillPeer { .. }
            | Action::SendFinalCounts { .. } => {}
        }
    }

    /// Returns the time for which no process has served, in milliseconds.
    fn pause_ms(&self) -> f64 {
        self.begun
            .map_or(0.0, |begun| begun.elapsed().as_secs_f64() * 1e3)
    }

    fn prepare_threads(&mut self) -> Result<(), String> {
        let threads = WorkerThreads::new(self.handles.len(), &self.worker_ended)
            .map_err(|error| format!("cannot start worker threads: {error}"))?;
        self.threads = Some(threads);
        Ok(())
    }

    /// Stops the workers and exports their state. Returns the number of sessions and of source ports in use.
    fn park(&mut self) -> Result<u64, DaemonError> {
        self.begun = Some(Instant::now());
        let mut parked = self.serving.running.park()?;
        let released = Released {
            workers: parked.workers.iter().map(Worker::save).collect(),
            history: parked.history.ledgers().iter().map(as_written).collect(),
            upstreams: parked.states.clone(),
            drained: self.serving.drained.iter().cloned().collect(),
        };
        let saved_states = released
            .workers
            .iter()
            .flat_map(|worker_state| &worker_state.saved_states);
        let sessions = saved_states.map(sessions_of).sum();
        self.parked = Some(parked);
        self.released = Some(released);
        Ok(sessions)
    }

    fn send_state(&mut self, deadline: Instant) -> Result<(), WireError> {
        let (Some(parked), Some(released)) = (&self.parked, &self.released) else {
            return Err(WireError::Malformed("there is no state".to_owned()));
        };
        let sockets = parked.workers.iter().flat_map(Worker::upstream_sockets);
        let fds: Vec<BorrowedFd<'_>> = sockets.map(AsFd::as_fd).collect();
        let timeout = time_until(deadline);
        self.conversation
            .wire
            .send(MessageKind::Released, released, &fds, timeout)
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, WireError> {
        let frame = self.conversation.wire.receive(time_until(deadline))?;
        if frame.kind == MessageKind::Started {
            self.removed = frame.read::<Started>()?.removed;
        }
        frame.message()
    }

    fn kill_peer(&mut self, deadline: Instant) -> Result<(), String> {
        process::kill(self.conversation.peer.pid).map_err(|error| error.to_string())?;
        let closed = self.conversation.wire.wait_until_closed(deadline);
        closed
            .map_err(|error| format!("SIGKILL was sent, but its connection is still open: {error}"))
    }

    fn resume(&mut self) {
        if let (Some(parked), Some(threads)) = (self.parked.take(), self.threads.take()) {
            let handles = std::mem::take(&mut self.handles);
            self.serving.running.resume(parked, handles, threads);
        }
    }

    /// Notifies the service manager of the new main process. This must happen before this process ends, or systemd treats that as
    /// the end of the service. systemd reads its notifications before it checks which processes have ended (src/core/manager.c,
    /// the priorities of its events).
    fn announce_main_pid(&self) {
        let pid = self.conversation.peer.pid;
        if let Err(error) = self.serving.service.main_process(pid) {
            log::debug!(
                "cannot notify the service manager that process {pid} is the main process: {error}"
            );
        }
    }

    fn close_sockets(&mut self) {
        let (Some(parked), Some(released)) = (self.parked.take(), &self.released) else {
            return;
        };
        for (mut worker, worker_state) in parked.workers.into_iter().zip(&released.workers) {
            worker.read_out(&self.removed);
            let late = difference(&worker.save().ledger, &worker_state.ledger);
            self.final_counts.push(late);
        }
    }

    fn send_final_counts(&mut self, deadline: Instant) -> Result<(), WireError> {
        let ledgers = std::mem::take(&mut self.final_counts);
        let timeout = time_until(deadline);
        let counts = FinalCounts { ledgers };
        self.conversation
            .wire
            .send(MessageKind::FinalCounts, &counts, &[], timeout)
    }
}

fn sessions_of(saved: &SavedState) -> u64 {
    (saved.sessions.len() + saved.ports.len()) as u64
}
