//! What happens to the replies of upstreams, to errors, and to changes of upstreams.

use std::net::SocketAddr;

use udispatch::dispatch::verdict::DropReason;

use super::picks::PassiveHealth;
use super::{Cause, Key, Shared, Step, Talker};
use crate::scenario::{Pick, Replies};

/// A reply on its way.
#[derive(Debug, Clone)]
pub struct Flight {
    /// The time at which it arrives at the socket.
    pub at: u64,
    pub worker: usize,
    pub socket: u32,
    /// The incarnation of the socket, so that replies to a closed socket are told apart.
    pub incarnation: u64,
    pub payload: Vec<u8>,
    /// The session that sent the request, and its key.
    pub asker: u64,
    pub key: Key,
}

/// A datagram that must be sent back to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    pub listener: usize,
    pub to: SocketAddr,
    pub from: SocketAddr,
    pub interface: u32,
    pub ttl: Option<u8>,
    pub payload: Vec<u8>,
}

/// Largest number of replies by which one side may be ahead of the other in a comparison.
const AHEAD_MAX: usize = 16;

impl Talker {
    /// The session that has a socket, and the index of its connection.
    pub fn holder(&self, socket: u32) -> Option<(usize, usize)> {
        if self.spec.is_sticky() {
            return None;
        }
        let leg_of = |at: usize| {
            self.sessions[at]
                .legs
                .iter()
                .position(|leg| leg.socket == socket)
        };
        (0..self.sessions.len()).find_map(|at| Some((at, leg_of(at)?)))
    }

    /// A train of replies on a socket.
    pub fn reply(
        &mut self,
        socket: u32,
        train: &[Flight],
        shared: &mut Shared,
        step: &mut Step,
    ) -> Vec<Pass> {
        let count = train.len();
        if let Some(held) = self.ports.sockets.get(&socket) {
            self.answers[held.place] += count as u64;
        }
        let Some((at, leg)) = self.holder(socket) else {
            self.replies.drop(DropReason::LateReply, count);
            return Vec::new();
        };
        self.sessions[at].legs[leg].answered += count as u64;
        let place = self.sessions[at].legs[leg].place;
        self.update_health(place, PassiveHealth::answered, step);
        if self.is_shadow(place) {
            train
                .iter()
                .for_each(|flight| self.compare(at, place, true, &flight.payload));
            self.replies.drop(DropReason::Shadow, count);
            return Vec::new();
        }
        let is_first = self.spec.replies == Replies::First && self.spec.pick == Pick::All;
        if is_first && *self.sessions[at].winner.get_or_insert(place) != place {
            self.replies.drop(DropReason::NotFirst, count);
            return Vec::new();
        }
        let session = &mut self.sessions[at];
        session.seen = step.now;
        session.replies += count as u64;
        session.is_assured = true;
        let listener = session.listener;
        let interface = session.interface;
        let key = session.key;
        let number = session.number;
        let ttl = session.ttl.filter(|_| self.spec.ttl.is_none());
        let mut passed = Vec::new();
        for flight in train {
            if flight.asker != number && flight.key.client != key.client {
                self.check_stray(flight.asker, socket, step);
            }
            let payload = flight.payload.clone();
            passed.push(Pass {
                listener,
                to: key.client,
                from: key.local,
                interface,
                ttl,
                payload,
            });
        }
        for shadow in self.shadows() {
            train
                .iter()
                .for_each(|flight| self.compare(at, shadow, false, &flight.payload));
        }
        self.replies.handle(count);
        if self.is_complete(at) {
            self.end(
                at,
                Cause::Complete,
                (step.now, step.now),
                None,
                shared,
                step,
            );
        }
        passed
    }

    /// Whether each request that was sent has all its replies, from each upstream that it was sent to. If the first
    /// one's are enough, the client has them.
    fn is_complete(&self, at: usize) -> bool {
        let Some(each) = self.spec.replies_max else {
            return false;
        };
        let session = &self.sessions[at];
        let mut legs = session.legs.iter().filter(|leg| !self.is_shadow(leg.place));
        if self.spec.pick == Pick::All && self.spec.replies == Replies::First {
            session.replies >= each * legs.map(|leg| leg.asked).max().unwrap_or(0)
        } else {
            legs.all(|leg| leg.answered >= each * leg.asked)
        }
    }

    fn compare(&mut self, at: usize, shadow: usize, is_shadows: bool, payload: &[u8]) {
        let (side, answers) = self.sessions[at].unmatched.entry(shadow).or_default();
        let [same, different, missing] = &mut self.compared[shadow];
        if answers.is_empty() {
            *side = is_shadows;
        }
        if *side == is_shadows {
            if answers.len() == AHEAD_MAX {
                answers.remove(0);
                *missing += u64::from(!is_shadows);
            }
            answers.push(payload.to_vec());
            return;
        }
        *(if answers.remove(0) == payload {
            same
        } else {
            different
        }) += 1;
    }

    /// A refusal came back: the port is closed.
    pub fn refused(&mut self, place: usize, step: &mut Step) {
        let now = step.now;
        self.update_health(place, |health| health.refused(now), step);
    }

    /// A socket can no longer send.
    pub fn broken(&mut self, socket: u32, shared: &mut Shared, step: &mut Step) {
        if let Some((at, _)) = self.holder(socket) {
            self.end(
                at,
                Cause::Broken,
                (step.now, step.now),
                Some(socket),
                shared,
                step,
            );
        }
    }

    pub fn set_alive(&mut self, place: usize, alive: bool) {
        self.picks.change(place, |member| member.alive = alive);
    }

    pub fn set_drain(&mut self, place: usize, drain: bool) {
        self.picks.change(place, |member| member.drain = drain);
    }

    /// The upstream has another address. Nothing is known about it there.
    pub fn moved(&mut self, place: usize, step: &mut Step) {
        self.picks.change(place, |member| member.resolved = true);
        if let Some(passive_health) = &mut self.passive_health {
            passive_health[place] = PassiveHealth::default();
            self.picks.change(place, |member| member.alive = true);
        }
        self.forget_free(place, step);
    }
}
