//! The state that a forwarder exports to its replacement, and its import. It consists of sessions with their source
//! ports, ports in quarantine, the round-robin position, and the health of each upstream.

use super::stateful::Stateful;
use super::upstream_set::UpstreamSet;
use crate::dispatch::handler::Context;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::{SavedLeg, SavedPort, SavedSession, SavedState, SavedUpstream};
use crate::dispatch::sessions::{SessionId, SessionKey, prefix_of};
use crate::number;

impl UpstreamSet {
    /// Exports the state that every forwarder has, with or without sessions.
    pub fn save(&self) -> SavedState {
        let upstream =
            |(place, handle): (usize, &super::upstream_handle::UpstreamHandle)| SavedUpstream {
                place: number::to_u16(place),
                is_alive: self.pool.members()[place].alive,
                passive_health: self.health_of(place),
                earned: handle.admission.earned(),
            };
        let upstreams = self.handles.iter().enumerate().map(upstream).collect();
        SavedState {
            turn: self.pool.turn(),
            upstreams,
            ..SavedState::default()
        }
    }

    /// Imports the state that every forwarder has.
    pub fn inherit(&mut self, saved: &SavedState) {
        for left in &saved.upstreams {
            let place = usize::from(left.place);
            if place < self.handles.len() {
                self.handles[place].admission.restore_earned(left.earned);
                self.restore_health(place, left.passive_health);
                self.pool
                    .change(place, |member| member.alive = left.is_alive);
            }
        }
        self.pool.restore_turn(saved.turn);
    }
}

impl Stateful {
    /// Exports the state of a forwarder with sessions.
    pub(super) fn save_all(&self) -> SavedState {
        let sessions = self.table.iter().map(|(id, _)| self.save_session(id));
        // Sessions are evicted in this order, the longest silent one first.
        let mut sessions: Vec<SavedSession> = sessions.collect();
        sessions.sort_by_key(|session| session.seen);
        SavedState {
            sessions,
            ports: self.source_ports.save(),
            ..self.upstreams.save()
        }
    }

    fn save_session(&self, id: SessionId) -> SavedSession {
        let session = self.table.get(id);
        let legs = self
            .table
            .legs_of(id)
            .iter()
            .flatten()
            .filter_map(|socket| self.source_ports.save_leg(*socket));
        SavedSession {
            client: session.key.client,
            local: session.key.local,
            route: Some(session.key.route),
            listener: session.listener,
            interface: session.interface,
            seen: session.seen,
            ttl: session.ttl,
            requests: session.requests,
            replies: session.replies,
            winner: session.winner,
            is_assured: session.is_assured,
            is_bound: self.table.is_bound(id),
            legs: legs.collect(),
        }
    }

    /// Imports the state of a forwarder with sessions.
    pub(super) fn inherit_all(&mut self, mut saved: SavedState, cx: &mut Context<'_>) {
        self.upstreams.inherit(&saved);
        for session in std::mem::take(&mut saved.sessions) {
            self.inherit_session(&session, cx);
        }
        saved.ports.sort_by_key(|port| port.until);
        for port in saved.ports {
            self.source_ports.inherit_port(&port, cx);
        }
    }

    /// Imports one session. If the limits of the new file have no room for it, it ends and is counted as evicted.
    fn inherit_session(&mut self, left: &SavedSession, cx: &mut Context<'_>) {
        let prefix = prefix_of(left.client.ip());
        // A session without a route only waits for replies, so its key gets a route number that does not exist.
        let key = SessionKey {
            client: left.client,
            local: left.local,
            route: left.route.unwrap_or(NO_ROUTE),
        };
        let legs: Vec<_> = left
            .legs
            .iter()
            .filter_map(|leg| Some((self.leg_of(leg)?, leg)))
            .collect();
        if legs.is_empty() || self.quota.take(prefix).is_err() {
            left.legs
                .iter()
                .filter_map(|leg| leg.socket)
                .for_each(|socket| cx.close(socket));
            self.counts.evicted += 1;
            return;
        }
        // Two workers may each have had a session of this client, from before the kernel redistributed its flows. The
        // client's datagrams go to the later one.
        let earlier = self.table.find(&key);
        let is_latest = earlier.is_none_or(|id| self.table.get(id).seen <= left.seen);
        let is_bound = left.is_bound && left.route.is_some() && is_latest;
        earlier
            .filter(|_| is_bound)
            .into_iter()
            .for_each(|id| self.table.unbind(id));
        let winner = left
            .winner
            .filter(|winner| usize::from(*winner) < self.upstreams.handles.len());
        let left = SavedSession {
            is_bound,
            winner,
            ..left.clone()
        };
        let id = self.table.restore(key, left.listener, &left, cx.now());
        for (at, leg) in legs {
            let socket = self.source_ports.inherit_leg(leg, id);
            self.table.legs(id)[at] = Some(socket);
        }
        self.make_room_for_comparisons(id);
    }

    /// Index of the socket to this upstream among a session's sockets; `None` if the session cannot have such a socket.
    fn leg_of(&self, leg: &SavedLeg) -> Option<usize> {
        let place = usize::from(leg.place);
        // Sessions either lease their own sockets or share the one-way ones. A saved leg of the other form does not
        // fit.
        if place >= self.upstreams.handles.len()
            || leg.socket.is_some() != self.source_ports.is_leasing()
        {
            return None;
        }
        Some(self.upstreams.fanout.leg_of(place, &self.upstreams.shadows))
    }
}

/// Stands for the route of a session whose route is gone. No datagram arrives by it.
const NO_ROUTE: crate::dispatch::route_table::RouteId =
    crate::dispatch::route_table::RouteId(u32::MAX);

impl super::source_ports::SourcePorts {
    /// Exports the ports that no session uses.
    fn save(&self) -> Vec<SavedPort> {
        let mut left = Vec::new();
        for (place, ports) in self.ports().enumerate() {
            let port = |(socket, until, released, has_outstanding)| SavedPort {
                place: number::to_u16(place),
                socket,
                until,
                released,
                has_outstanding,
            };
            left.extend(ports.iter().map(port));
        }
        left
    }

    fn save_leg(&self, socket: UpstreamSocketId) -> Option<SavedLeg> {
        let outstanding = self.outstanding(socket)?;
        let own = self.is_leasing().then_some(socket);
        let is_spoilt = self.is_spoilt(socket);
        let (place, requests, replies) = (
            number::to_u16(outstanding.place),
            outstanding.requests,
            outstanding.replies,
        );
        Some(SavedLeg {
            place,
            socket: own,
            requests,
            replies,
            is_spoilt,
        })
    }
}
