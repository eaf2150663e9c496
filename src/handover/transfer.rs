//! Going on with what other workers have left: sockets, sessions, whose turn it is, accounts. The same for a reload, where the
//! others were this process's own, and for a takeover, where they were another's.
//!
//! `outline.rs` says what the numbers mean, `difference.rs` where each row goes on, this file moves what hangs on the rows to
//! the workers that will run. All of it happens between two turns: whatever can fail or take time was done before.

use std::collections::HashMap;
use std::net::UdpSocket;

use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::{EarId, UpstreamId};
use crate::dispatch::legacy::{LegLegacy, Legacy, PortLegacy, SessionLegacy, UpstreamLegacy};
use crate::dispatch::outbox::Lane;
use crate::handover::history::History;
use crate::plan::diff::{Heirs, Successors};
use crate::worker::estate::{Estate, LaneEstate, Seat};
use crate::worker::event_loop::Worker;

/// Gives the workers, which do not run yet, what others have left. Sessions go where the socket is that their clients ask.
pub fn hand_over(
    workers: &mut [&mut Worker],
    estates: Vec<Estate>,
    successors: &Successors,
    history: &mut History,
) {
    let mut ears: HashMap<Seat, (usize, EarId)> = HashMap::new();
    for (number, worker) in workers.iter_mut().enumerate() {
        let listeners = worker.listeners().iter().enumerate();
        ears.extend(listeners.map(|(ear, listener)| (listener.seat, (number, EarId::new(ear)))));
    }
    let mut handover = Handover {
        ears,
        successors,
        history,
        moved: Vec::new(),
    };
    for (number, estate) in estates.into_iter().enumerate() {
        handover.listeners(workers, &estate);
        handover.worker(workers, number, estate);
    }
}

/// One handler's legacy on its way to one worker.
type Parcel = (usize, HandlerId, Legacy);

struct Handover<'a> {
    /// Which worker has which socket, and as which of its listeners.
    ears: HashMap<Seat, (usize, EarId)>,
    successors: &'a Successors,
    history: &'a mut History,
    moved: Vec<Parcel>,
}

impl Handover<'_> {
    fn listeners(&self, workers: &mut [&mut Worker], estate: &Estate) {
        for left in &estate.ears {
            if let Some((worker, ear)) = self.seat(left.seat) {
                workers[worker].listeners()[ear.index()].inherit(left);
            }
        }
    }

    /// Where a socket is now.
    fn seat(&self, old: Seat) -> Option<(usize, EarId)> {
        let listener = self
            .successors
            .listeners
            .get(old.listener)
            .copied()
            .flatten()?;
        self.ears.get(&Seat { listener, ..old }).copied()
    }

    fn worker(&mut self, workers: &mut [&mut Worker], number: usize, estate: Estate) {
        let Estate {
            ears,
            lanes,
            legacies,
            sockets,
            ..
        } = estate;
        let mut cargo = Cargo::new(lanes, sockets);
        let home = number % workers.len();
        for (handler, legacy) in legacies.into_iter().enumerate() {
            let Some(heirs) = self.successors.handlers.get(handler).cloned() else {
                continue;
            };
            self.opinions(workers.len(), number, &heirs, &legacy);
            let row = heirs.row();
            for session in legacy.sessions {
                let seat = ears
                    .get(session.ear.index())
                    .and_then(|ear| self.seat(ear.seat));
                let moved = seat.and_then(|(worker, ear)| {
                    let session = SessionLegacy { ear, ..session };
                    self.session(&mut *workers[worker], worker, &heirs, session, &mut cargo)
                });
                match (moved, row) {
                    (Some(to), Some(from)) => {
                        self.history.move_sessions(from.index(), to.index(), 1)
                    }
                    (Some(to), None) => self.history.move_gone_sessions(to.index(), 1),
                    (None, row) => self.history.end_sessions(row.map(HandlerId::index), 1),
                }
            }
            for port in legacy.ports {
                self.port(&mut *workers[home], home, &heirs, port, &mut cargo);
            }
        }
        if number < workers.len() {
            cargo.rest(&mut *workers[number], &self.successors.upstreams);
        }
        for (worker, handler, legacy) in std::mem::take(&mut self.moved) {
            workers[worker].inherit(handler, legacy);
        }
    }

    /// What is thought of upstreams goes to every worker that had no predecessor, too.
    fn opinions(&mut self, workers: usize, number: usize, heirs: &Heirs, legacy: &Legacy) {
        let Some(heir) = heirs.heir else { return };
        let place = |left: &UpstreamLegacy| {
            let place = heirs
                .places
                .get(usize::from(left.place))
                .copied()
                .flatten()?;
            Some(UpstreamLegacy { place, ..*left })
        };
        let upstreams: Vec<_> = legacy.upstreams.iter().filter_map(place).collect();
        let followers = if number == 0 {
            (0..workers).collect()
        } else {
            vec![number]
        };
        for worker in followers.into_iter().filter(|worker| *worker < workers) {
            let opinions = Legacy {
                turn: legacy.turn,
                upstreams: upstreams.clone(),
                ..Legacy::default()
            };
            self.moved.push((worker, heir, opinions));
        }
    }

    /// Moves a session to the heir, if that has all its upstreams, or else to what is left of its own handler.
    fn session(
        &mut self,
        worker: &mut Worker,
        number: usize,
        heirs: &Heirs,
        session: SessionLegacy,
        cargo: &mut Cargo,
    ) -> Option<HandlerId> {
        let place = |leg: &LegLegacy| heirs.places.get(usize::from(leg.place)).copied().flatten();
        let fits = heirs.is_like && session.legs.iter().all(|leg| place(leg).is_some());
        let to = heirs.heir.filter(|_| fits).or(heirs.retired)?;
        let is_heir = heirs.heir == Some(to);
        let route = session.route.and_then(|route| {
            self.successors
                .routes
                .get(route.0 as usize)
                .copied()
                .flatten()
        });
        let route = route.filter(|_| is_heir);
        let winner = session.winner.and_then(|winner| match is_heir {
            true => heirs.places.get(usize::from(winner)).copied().flatten(),
            false => Some(winner),
        });
        let mut legs = Vec::with_capacity(session.legs.len());
        for leg in &session.legs {
            let new = if is_heir { place(leg)? } else { leg.place };
            let lane = match leg.lane {
                Some(lane) => {
                    Some(cargo.unload(lane, worker, self.successors.upstream(to, new))?)
                }
                None => None,
            };
            legs.push(LegLegacy {
                place: new,
                lane,
                ..*leg
            });
        }
        self.push(number, to).sessions.push(SessionLegacy {
            route,
            winner,
            legs,
            ..session
        });
        Some(to)
    }

    fn port(
        &mut self,
        worker: &mut Worker,
        number: usize,
        heirs: &Heirs,
        port: PortLegacy,
        cargo: &mut Cargo,
    ) {
        let place = heirs.places.get(usize::from(port.place)).copied().flatten();
        let (Some(heir), Some(place)) = (heirs.heir, place) else {
            return;
        };
        if let Some(lane) = cargo.unload(port.lane, worker, self.successors.upstream(heir, place)) {
            self.push(number, heir).ports.push(PortLegacy {
                place,
                lane,
                ..port
            });
        }
    }

    fn push(&mut self, worker: usize, handler: HandlerId) -> &mut Legacy {
        // The last ones are those of the handler that is at hand.
        let found = self
            .moved
            .iter()
            .rposition(|moved| (moved.0, moved.1) == (worker, handler));
        let at = found.unwrap_or_else(|| {
            self.moved.push((worker, handler, Legacy::default()));
            self.moved.len() - 1
        });
        &mut self.moved[at].2
    }
}

/// The lanes of one worker, which go one by one.
struct Cargo {
    lanes: HashMap<Lane, (LaneEstate, UdpSocket)>,
}

impl Cargo {
    fn new(lanes: Vec<LaneEstate>, sockets: Vec<UdpSocket>) -> Cargo {
        Cargo {
            lanes: lanes
                .into_iter()
                .zip(sockets)
                .map(|(estate, socket)| (estate.lane, (estate, socket)))
                .collect(),
        }
    }

    /// Gives a leased lane to a worker. Its number there; `None` where it leads nowhere any more.
    fn unload(&mut self, lane: Lane, worker: &mut Worker, upstream: UpstreamId) -> Option<Lane> {
        let (estate, socket) = self.lanes.remove(&lane)?;
        // Where the poll takes no more, the way is lost, and its session with it.
        worker
            .inherit_lane(&estate, upstream, socket)
            .ok()
            .flatten()
    }

    /// The ways that are there from the start keep their source ports.
    fn rest(self, worker: &mut Worker, upstreams: &[Option<usize>]) {
        for (estate, socket) in self
            .lanes
            .into_values()
            .filter(|(estate, _)| !estate.is_leased)
        {
            if let Some(upstream) = upstreams.get(estate.upstream.index()).copied().flatten() {
                // It has one already, which is as good.
                let _ = worker.inherit_lane(&estate, UpstreamId::new(upstream), socket);
            }
        }
    }
}
