//! The state that a forwarder exports to its replacement, and its import. It consists of sessions with their source
//! ports, ports in quarantine, the round-robin position, and the health of each upstream.

use super::stateful::Stateful;
use super::upstream_set::UpstreamSet;
use crate::dispatch::handler::Context;
use crate::dispatch::saved_state::{SavedPort, SavedSession, SavedState, SavedUpstream};
use crate::dispatch::sessions::{LegRecord, SessionId, prefix_of};
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
        for upstream in &saved.upstreams {
            let place = usize::from(upstream.place);
            if place < self.handles.len() {
                self.handles[place]
                    .admission
                    .restore_earned(upstream.earned);
                self.restore_health(place, upstream.passive_health);
                self.pool
                    .change(place, |member| member.alive = upstream.is_alive);
            }
        }
        self.pool.restore_turn(saved.turn);
    }
}

impl Stateful {
    /// Exports the state of a forwarder with sessions.
    pub(super) fn save_all(&self) -> SavedState {
        let sessions = self.table.iter().map(|(id, _)| self.save_session(id));
        // Sessions are evicted in this order, the one that was silent longest first.
        let mut sessions: Vec<SavedSession> = sessions.collect();
        sessions.sort_by_key(|session| session.record.seen);
        SavedState {
            sessions,
            ports: self.source_ports.save(),
            ..self.upstreams.save()
        }
    }

    fn save_session(&self, id: SessionId) -> SavedSession {
        let sockets = self.table.legs_of(id).iter().flatten();
        SavedSession {
            record: *self.table.get(id),
            legs: sockets
                .filter_map(|socket| self.source_ports.save_leg(*socket))
                .collect(),
        }
    }

    /// Imports the state of a forwarder with sessions.
    pub(super) fn inherit_all(&mut self, mut saved: SavedState, cx: &mut Context<'_>) {
        self.upstreams.inherit(&saved);
        for session in std::mem::take(&mut saved.sessions) {
            self.inherit_session(session, cx);
        }
        saved.ports.sort_by_key(|saved| saved.port.until);
        for port in saved.ports {
            self.source_ports.inherit_port(port, cx);
        }
    }

    /// Imports one session. If the limits of the new file have no room for it, it ends and is counted as evicted.
    fn inherit_session(&mut self, saved: SavedSession, cx: &mut Context<'_>) {
        let SavedSession { mut record, legs } = saved;
        let prefix = prefix_of(record.key.client.ip());
        let fits = legs.iter().any(|leg| self.leg_of(leg).is_some());
        if !fits || self.quota.take(prefix).is_err() {
            legs.iter()
                .filter_map(|leg| leg.socket)
                .for_each(|socket| cx.close(socket));
            self.counts.evicted += 1;
            return;
        }
        // Two workers may each have had a session of this client, from before the kernel redistributed its flows. The
        // client's datagrams go to the later one.
        let earlier = self.table.find(&record.key);
        let is_latest = earlier.is_none_or(|id| self.table.get(id).seen <= record.seen);
        record.is_bound &= record.key.route.is_some() && is_latest;
        if let Some(earlier) = earlier.filter(|_| record.is_bound) {
            self.table.unbind(earlier);
        }
        let upstreams = self.upstreams.handles.len();
        record.winner = record
            .winner
            .filter(|winner| usize::from(*winner) < upstreams);
        let id = self.table.restore(record, cx.now());
        for leg in legs {
            if let Some(at) = self.leg_of(&leg) {
                let socket = self.source_ports.inherit_leg(leg, id);
                self.table.legs(id)[at] = Some(socket);
            }
        }
        self.make_room_for_comparisons(id);
    }

    /// Returns the index of the socket to this upstream among a session's sockets; `None` if the session cannot have
    /// such a socket.
    fn leg_of(&self, leg: &LegRecord) -> Option<usize> {
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

impl super::source_ports::SourcePorts {
    /// Exports the ports that no session uses.
    fn save(&self) -> Vec<SavedPort> {
        let mut saved = Vec::new();
        for (place, ports) in self.ports().enumerate() {
            let place = number::to_u16(place);
            saved.extend(ports.iter().map(|port| SavedPort { place, port: *port }));
        }
        saved
    }
}
