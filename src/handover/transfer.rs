//! Moves the exported state of former workers to new ones: sockets, sessions, round-robin positions and counters. It
//! serves a reload, where the former workers belong to this process, and a takeover, where they belong to another.
//!
//! `plan/identity.rs` defines what the numbers mean, and `plan/row_map.rs` maps old rows to new ones. This file moves
//! the state of each row to the new workers. All of it happens between two turns; whatever can fail or take time was
//! done before.

use std::collections::HashMap;
use std::net::UdpSocket;

use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::{LocalListener, UpstreamId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::{SavedPort, SavedSession, SavedState, SavedUpstream};
use crate::handover::history::History;
use crate::plan::row_map::{HandlerMap, RowMap, RowMaps, SessionTarget};
use crate::worker::event_loop::Worker;
use crate::worker::worker_state::{SocketSlot, UpstreamSocketState, WorkerState};

/// Passes exported state to workers that do not run yet. Each session goes to the worker that has the socket on which
/// its client's datagrams arrive.
pub fn hand_over(
    workers: &mut [&mut Worker],
    worker_states: Vec<WorkerState>,
    row_maps: &RowMaps,
    history: &mut History,
) {
    let mut sockets: HashMap<SocketSlot, (usize, LocalListener)> = HashMap::new();
    for (number, worker) in workers.iter_mut().enumerate() {
        let listeners = worker.listeners().iter().enumerate();
        sockets.extend(
            listeners.map(|(index, listener)| (listener.slot, (number, LocalListener::new(index)))),
        );
    }
    let mut handover = Handover {
        workers,
        sockets,
        row_maps,
        history,
        moved: Vec::new(),
    };
    for (number, state) in worker_states.into_iter().enumerate() {
        handover.move_listeners(&state);
        handover.move_worker(number, state);
    }
}

/// One handler's saved state on its way to one worker.
type Transfer = (usize, HandlerId, SavedState);

struct Handover<'a, 'w> {
    /// The workers that take over.
    workers: &'a mut [&'w mut Worker],
    /// For each socket: the worker that has it, and its index among that worker's listeners.
    sockets: HashMap<SocketSlot, (usize, LocalListener)>,
    row_maps: &'a RowMaps,
    history: &'a mut History,
    moved: Vec<Transfer>,
}

impl Handover<'_, '_> {
    fn move_listeners(&mut self, state: &WorkerState) {
        for saved in &state.listeners {
            if let Some((worker, listener)) = self.slot(saved.slot) {
                self.workers[worker].listeners()[listener.index()].inherit(saved);
            }
        }
    }

    /// Returns the worker and the listener that now have an old socket.
    fn slot(&self, old: SocketSlot) -> Option<(usize, LocalListener)> {
        let listener = *self.row_maps.listeners.get(old.listener)?;
        self.sockets.get(&SocketSlot { listener, ..old }).copied()
    }

    fn move_worker(&mut self, number: usize, state: WorkerState) {
        let row_maps = self.row_maps;
        let WorkerState {
            listeners,
            upstream_sockets,
            saved_states,
            sockets,
            ..
        } = state;
        let mut former_sockets = FormerSockets::new(upstream_sockets, sockets);
        for (handler, saved) in saved_states.into_iter().enumerate() {
            let Some(map) = row_maps.handlers.get(HandlerId::new(handler)) else {
                self.history.end_sessions(None, saved.sessions.len() as u64);
                continue;
            };
            self.move_health(number, map, &saved);
            for mut session in saved.sessions {
                let slot = listeners
                    .get(session.record.listener.index())
                    .and_then(|saved| self.slot(saved.slot));
                let moved = slot.and_then(|(worker, listener)| {
                    session.record.listener = listener;
                    self.move_session(worker, map, session, &mut former_sockets)
                });
                let from = map.row().map(HandlerId::index);
                match (moved, from) {
                    (Some(to), Some(from)) => self.history.move_sessions(from, to.index(), 1),
                    (Some(to), None) => self.history.move_gone_sessions(to.index(), 1),
                    (None, from) => self.history.end_sessions(from, 1),
                }
            }
            let home = number % self.workers.len();
            for port in saved.ports {
                self.move_port(home, map, port, &mut former_sockets);
            }
        }
        if number < self.workers.len() {
            former_sockets.give_rest(self.workers[number], &row_maps.upstreams);
        }
        for (worker, handler, saved) in std::mem::take(&mut self.moved) {
            self.workers[worker].inherit(handler, saved);
        }
    }

    /// Passes the saved health of upstreams to the worker with the same number. The first worker's state also goes to
    /// all others, for those without a predecessor.
    fn move_health(&mut self, number: usize, map: &HandlerMap, saved: &SavedState) {
        let Some(replacement) = map.replacement else {
            return;
        };
        let place = |saved: &SavedUpstream| {
            let place = *map.places.get(saved.place)?;
            Some(SavedUpstream { place, ..*saved })
        };
        let upstreams: Vec<_> = saved.upstreams.iter().filter_map(place).collect();
        let workers = self.workers.len();
        let receivers = if number == 0 {
            0..workers
        } else {
            number..workers.min(number + 1)
        };
        for worker in receivers {
            let health = SavedState {
                turn: saved.turn,
                upstreams: upstreams.clone(),
                ..SavedState::default()
            };
            self.moved.push((worker, replacement, health));
        }
    }

    /// Moves a session to the replacement handler if that has all its upstreams, or else to the retired handler.
    /// Returns the handler; `None` if the session ends.
    fn move_session(
        &mut self,
        worker: usize,
        map: &HandlerMap,
        mut session: SavedSession,
        former_sockets: &mut FormerSockets,
    ) -> Option<HandlerId> {
        let SavedSession { record, legs } = &mut session;
        let target = map.target(legs.iter().map(|leg| leg.place))?;
        record.key.route = match (target, record.key.route) {
            (SessionTarget::Replacement(_), Some(route)) => {
                self.row_maps.routes.get(route).copied()
            }
            _ => None,
        };
        record.winner = record.winner.and_then(|winner| map.place(target, winner));
        for leg in legs {
            leg.place = map.place(target, leg.place)?;
            if let Some(socket) = leg.socket {
                let upstream = self.row_maps.upstream(target.handler(), leg.place);
                leg.socket = Some(former_sockets.give(socket, self.workers[worker], upstream)?);
            }
        }
        self.push(worker, target.handler()).sessions.push(session);
        Some(target.handler())
    }

    fn move_port(
        &mut self,
        worker: usize,
        map: &HandlerMap,
        mut saved: SavedPort,
        former_sockets: &mut FormerSockets,
    ) {
        let (Some(replacement), Some(place)) = (map.replacement, map.places.get(saved.place))
        else {
            return;
        };
        let upstream = self.row_maps.upstream(replacement, *place);
        if let Some(socket) = former_sockets.give(saved.port.socket, self.workers[worker], upstream)
        {
            saved.place = *place;
            saved.port.socket = socket;
            self.push(worker, replacement).ports.push(saved);
        }
    }

    fn push(&mut self, worker: usize, handler: HandlerId) -> &mut SavedState {
        // The search goes backwards, because the last entries belong to the current handler.
        let found = self
            .moved
            .iter()
            .rposition(|moved| (moved.0, moved.1) == (worker, handler));
        let at = found.unwrap_or_else(|| {
            self.moved.push((worker, handler, SavedState::default()));
            self.moved.len() - 1
        });
        &mut self.moved[at].2
    }
}

/// The upstream sockets of one former worker, which are taken out one by one.
struct FormerSockets {
    sockets: HashMap<UpstreamSocketId, (UpstreamSocketState, UdpSocket)>,
}

impl FormerSockets {
    fn new(states: Vec<UpstreamSocketState>, sockets: Vec<UdpSocket>) -> FormerSockets {
        FormerSockets {
            sockets: states
                .into_iter()
                .zip(sockets)
                .map(|(state, socket)| (state.socket, (state, socket)))
                .collect(),
        }
    }

    /// Passes a leased socket to a worker. Returns its id there; `None` if it can no longer be used.
    fn give(
        &mut self,
        id: UpstreamSocketId,
        worker: &mut Worker,
        upstream: UpstreamId,
    ) -> Option<UpstreamSocketId> {
        let (state, socket) = self.sockets.remove(&id)?;
        // If epoll cannot register the socket, the socket is closed and its session ends.
        worker
            .inherit_socket(&state, upstream, socket)
            .ok()
            .flatten()
    }

    /// Passes on the one-way sockets, so that they keep their source ports.
    fn give_rest(self, worker: &mut Worker, upstreams: &RowMap<UpstreamId>) {
        for (state, socket) in self
            .sockets
            .into_values()
            .filter(|(state, _)| !state.is_leased)
        {
            if let Some(upstream) = upstreams.get(state.upstream) {
                // On failure the worker keeps its own new socket, which only has another source port.
                let _ = worker.inherit_socket(&state, *upstream, socket);
            }
        }
    }
}
