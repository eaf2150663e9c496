//! Moves the exported state of former workers to new ones: sockets, sessions, round-robin positions and counters. It
//! serves a reload, where the former workers belong to this process, and a takeover, where they belong to another.
//!
//! `plan/identity.rs` defines what the numbers mean, and `plan/diff.rs` maps old rows to new ones. This file moves the
//! state of each row to the new workers. All of it happens between two turns; whatever can fail or take time was done
//! before.

use std::collections::HashMap;
use std::net::UdpSocket;

use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::{ListenerId, LocalListener, UpstreamId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::{SavedPort, SavedSession, SavedState, SavedUpstream};
use crate::dispatch::sessions::LegRecord;
use crate::handover::history::History;
use crate::plan::diff::{HandlerMap, RowMap};
use crate::worker::event_loop::Worker;
use crate::worker::worker_state::{SocketSlot, UpstreamSocketState, WorkerState};

/// Gives exported state to workers that do not run yet. Each session goes to the worker that has the socket on which
/// its client's datagrams arrive.
pub fn hand_over(
    workers: &mut [&mut Worker],
    worker_states: Vec<WorkerState>,
    row_map: &RowMap,
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
        sockets,
        row_map,
        history,
        moved: Vec::new(),
    };
    for (number, state) in worker_states.into_iter().enumerate() {
        handover.listeners(workers, &state);
        handover.worker(workers, number, state);
    }
}

/// One handler's saved state on its way to one worker.
type Transfer = (usize, HandlerId, SavedState);

struct Handover<'a> {
    /// For each socket: the worker that has it, and its index among that worker's listeners.
    sockets: HashMap<SocketSlot, (usize, LocalListener)>,
    row_map: &'a RowMap,
    history: &'a mut History,
    moved: Vec<Transfer>,
}

impl Handover<'_> {
    fn listeners(&self, workers: &mut [&mut Worker], state: &WorkerState) {
        for left in &state.listeners {
            if let Some((worker, listener)) = self.slot(left.slot) {
                workers[worker].listeners()[listener.index()].inherit(left);
            }
        }
    }

    /// Finds the worker and listener that have an old socket now.
    fn slot(&self, old: SocketSlot) -> Option<(usize, LocalListener)> {
        let listener = self
            .row_map
            .listeners
            .get(old.listener.index())
            .copied()
            .flatten()
            .map(ListenerId::new)?;
        self.sockets.get(&SocketSlot { listener, ..old }).copied()
    }

    fn worker(&mut self, workers: &mut [&mut Worker], number: usize, state: WorkerState) {
        let WorkerState {
            listeners,
            upstream_sockets,
            saved_states,
            sockets,
            ..
        } = state;
        let mut cargo = Cargo::new(upstream_sockets, sockets);
        let home = number % workers.len();
        for (handler, saved) in saved_states.into_iter().enumerate() {
            let Some(handler_map) = self.row_map.handlers.get(handler).cloned() else {
                continue;
            };
            self.opinions(workers.len(), number, &handler_map, &saved);
            let row = handler_map.row();
            for mut session in saved.sessions {
                let slot = listeners
                    .get(session.record.listener.index())
                    .and_then(|left| self.slot(left.slot));
                let moved = slot.and_then(|(worker, listener)| {
                    session.record.listener = listener;
                    self.session(
                        &mut *workers[worker],
                        worker,
                        &handler_map,
                        session,
                        &mut cargo,
                    )
                });
                match (moved, row) {
                    (Some(to), Some(from)) => {
                        self.history.move_sessions(from.index(), to.index(), 1)
                    }
                    (Some(to), None) => self.history.move_gone_sessions(to.index(), 1),
                    (None, row) => self.history.end_sessions(row.map(HandlerId::index), 1),
                }
            }
            for port in saved.ports {
                self.port(&mut *workers[home], home, &handler_map, port, &mut cargo);
            }
        }
        if number < workers.len() {
            cargo.rest(&mut *workers[number], &self.row_map.upstreams);
        }
        for (worker, handler, saved) in std::mem::take(&mut self.moved) {
            workers[worker].inherit(handler, saved);
        }
    }

    /// Passes the saved health of upstreams to the worker with the same number. The first worker's state also goes to
    /// all others, for those without a predecessor.
    fn opinions(
        &mut self,
        workers: usize,
        number: usize,
        handler_map: &HandlerMap,
        saved: &SavedState,
    ) {
        let Some(replacement) = handler_map.replacement else {
            return;
        };
        let place = |left: &SavedUpstream| {
            let place = handler_map
                .places
                .get(usize::from(left.place))
                .copied()
                .flatten()?;
            Some(SavedUpstream { place, ..*left })
        };
        let upstreams: Vec<_> = saved.upstreams.iter().filter_map(place).collect();
        let followers = if number == 0 {
            (0..workers).collect()
        } else {
            vec![number]
        };
        for worker in followers.into_iter().filter(|worker| *worker < workers) {
            let opinions = SavedState {
                turn: saved.turn,
                upstreams: upstreams.clone(),
                ..SavedState::default()
            };
            self.moved.push((worker, replacement, opinions));
        }
    }

    /// Moves a session to the replacement handler if that has all its upstreams, or else to the retired handler.
    /// Returns the handler; `None` if the session ends.
    fn session(
        &mut self,
        worker: &mut Worker,
        number: usize,
        handler_map: &HandlerMap,
        mut session: SavedSession,
        cargo: &mut Cargo,
    ) -> Option<HandlerId> {
        let place = |leg: &LegRecord| {
            handler_map
                .places
                .get(usize::from(leg.place))
                .copied()
                .flatten()
        };
        let fits = handler_map.is_like && session.legs.iter().all(|leg| place(leg).is_some());
        let to = handler_map
            .replacement
            .filter(|_| fits)
            .or(handler_map.retired)?;
        let is_replacement = handler_map.replacement == Some(to);
        let SavedSession { record, legs } = &mut session;
        let route = record
            .key
            .route
            .and_then(|route| self.row_map.routes.get(route.0 as usize).copied().flatten());
        record.key.route = route.filter(|_| is_replacement);
        if is_replacement {
            record.winner = record.winner.and_then(|winner| {
                handler_map
                    .places
                    .get(usize::from(winner))
                    .copied()
                    .flatten()
            });
        }
        for leg in legs {
            if is_replacement {
                leg.place = place(leg)?;
            }
            if let Some(socket) = leg.socket {
                let upstream = self.row_map.upstream(to, leg.place);
                leg.socket = Some(cargo.unload(socket, worker, upstream)?);
            }
        }
        self.push(number, to).sessions.push(session);
        Some(to)
    }

    fn port(
        &mut self,
        worker: &mut Worker,
        number: usize,
        handler_map: &HandlerMap,
        mut saved: SavedPort,
        cargo: &mut Cargo,
    ) {
        let place = handler_map
            .places
            .get(usize::from(saved.place))
            .copied()
            .flatten();
        let (Some(replacement), Some(place)) = (handler_map.replacement, place) else {
            return;
        };
        let upstream = self.row_map.upstream(replacement, place);
        if let Some(socket) = cargo.unload(saved.port.socket, worker, upstream) {
            saved.place = place;
            saved.port.socket = socket;
            self.push(number, replacement).ports.push(saved);
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
struct Cargo {
    sockets: HashMap<UpstreamSocketId, (UpstreamSocketState, UdpSocket)>,
}

impl Cargo {
    fn new(states: Vec<UpstreamSocketState>, sockets: Vec<UdpSocket>) -> Cargo {
        Cargo {
            sockets: states
                .into_iter()
                .zip(sockets)
                .map(|(state, socket)| (state.socket, (state, socket)))
                .collect(),
        }
    }

    /// Gives a leased socket to a worker. Returns its id there; `None` if it cannot be used any more.
    fn unload(
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
    fn rest(self, worker: &mut Worker, upstreams: &[Option<usize>]) {
        for (state, socket) in self
            .sockets
            .into_values()
            .filter(|(state, _)| !state.is_leased)
        {
            if let Some(upstream) = upstreams.get(state.upstream.index()).copied().flatten() {
                // On failure the worker keeps its own new socket, which only has another source port.
                let _ = worker.inherit_socket(&state, UpstreamId::new(upstream), socket);
            }
        }
    }
}
