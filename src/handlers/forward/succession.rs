//! What a forwarder leaves to the one that takes its place, and how that one goes on: sessions with their source ports, ports
//! that rest, whose turn it is, and what is thought of each upstream.

use super::common::Common;
use super::settings::{Choice, Spread};
use super::talk::Talk;
use crate::dispatch::handler::Cx;
use crate::dispatch::legacy::{LegLegacy, Legacy, PortLegacy, SessionLegacy, UpstreamLegacy};
use crate::dispatch::outbox::Lane;
use crate::dispatch::sessions::{Key, SessionId, prefix_of};
use crate::number;

impl Common {
    /// What every forwarder leaves.
    pub fn leave(&self) -> Legacy {
        let upstream = |(place, outlet): (usize, &super::outlet::Outlet)| UpstreamLegacy {
            place: number::to_u16(place),
            is_alive: self.pool.members()[place].alive,
            judge: self.judge_of(place),
            earned: outlet.earned(),
        };
        let upstreams = self.outlets.iter().enumerate().map(upstream).collect();
        Legacy {
            turn: self.pool.turn(),
            upstreams,
            ..Legacy::default()
        }
    }

    /// Goes on with that.
    pub fn inherit(&mut self, legacy: &Legacy) {
        for left in &legacy.upstreams {
            let place = usize::from(left.place);
            if place < self.outlets.len() {
                self.outlets[place].restore_earned(left.earned);
                self.restore_judge(place, left.judge);
                self.pool
                    .change(place, |member| member.alive = left.is_alive);
            }
        }
        self.pool.restore_turn(legacy.turn);
    }
}

impl Talk {
    /// What a forwarder with sessions leaves.
    pub(super) fn leave_all(&self) -> Legacy {
        let sessions = self.table.iter().map(|(id, _)| self.leave_session(id));
        // In this order they make room for others.
        let mut sessions: Vec<SessionLegacy> = sessions.collect();
        sessions.sort_by_key(|session| session.seen);
        Legacy {
            sessions,
            ports: self.leases.leave(),
            ..self.common.leave()
        }
    }

    fn leave_session(&self, id: SessionId) -> SessionLegacy {
        let session = self.table.get(id);
        let legs = self
            .table
            .legs_of(id)
            .iter()
            .flatten()
            .filter_map(|lane| self.leases.leave_leg(*lane));
        SessionLegacy {
            client: session.key.client,
            local: session.key.local,
            route: Some(session.key.route),
            ear: session.ear,
            interface: session.interface,
            seen: session.seen,
            ttl: session.ttl,
            requests: session.requests,
            replies: session.replies,
            winner: session.winner,
            is_answered: session.is_answered,
            is_bound: self.table.is_bound(id),
            legs: legs.collect(),
        }
    }

    /// Goes on with that.
    pub(super) fn inherit_all(&mut self, mut legacy: Legacy, cx: &mut Cx<'_>) {
        self.common.inherit(&legacy);
        for session in std::mem::take(&mut legacy.sessions) {
            self.inherit_session(&session, cx);
        }
        legacy.ports.sort_by_key(|port| port.until);
        for port in legacy.ports {
            self.leases.inherit_port(&port, cx);
        }
    }

    /// Where there is no place for it any more, since the file now allows fewer, it ends as if it had made room.
    fn inherit_session(&mut self, left: &SessionLegacy, cx: &mut Cx<'_>) {
        let prefix = prefix_of(left.client.ip());
        // Without a route of its own it only waits for answers: the number stands for no route.
        let key = Key {
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
                .filter_map(|leg| leg.lane)
                .for_each(|lane| cx.close(lane));
            self.counts.displaced += 1;
            return;
        }
        // Two workers may each have had one of this client, before the kernel spread its flows anew. It talks by the later one.
        let earlier = self.table.find(&key);
        let is_latest = earlier.is_none_or(|id| self.table.get(id).seen <= left.seen);
        let is_bound = left.is_bound && left.route.is_some() && is_latest;
        earlier
            .filter(|_| is_bound)
            .into_iter()
            .for_each(|id| self.table.unbind(id));
        let winner = left
            .winner
            .filter(|winner| usize::from(*winner) < self.common.outlets.len());
        let left = SessionLegacy {
            is_bound,
            winner,
            ..left.clone()
        };
        let id = self.table.restore(key, left.ear, &left, cx.now());
        for (at, leg) in legs {
            let lane = self.leases.inherit_leg(leg, id);
            self.table.legs(id)[at] = Some(lane);
        }
        self.make_room_for_comparisons(id);
    }

    /// Where among a session's lanes one to this upstream stands.
    fn leg_of(&self, leg: &LegLegacy) -> Option<usize> {
        let place = usize::from(leg.place);
        // A session leases lanes of its own where its handler's do, and shares them where they share.
        if place >= self.common.outlets.len() || leg.lane.is_some() != self.leases.is_leasing() {
            return None;
        }
        match (self.common.settings.choice, self.common.settings.spread) {
            (Choice::One(_), Spread::Session) => {
                let shadow = self
                    .common
                    .shadows
                    .iter()
                    .position(|shadow| *shadow == place);
                Some(shadow.map_or(0, |at| 1 + at))
            }
            _ => Some(place),
        }
    }
}

/// The route of a session whose route is gone. No datagram comes by it.
const NO_ROUTE: crate::dispatch::route_table::RouteId =
    crate::dispatch::route_table::RouteId(u32::MAX);

impl super::leases::Leases {
    /// The free ports.
    fn leave(&self) -> Vec<PortLegacy> {
        let mut left = Vec::new();
        for (place, ports) in self.ports().enumerate() {
            let port = |(lane, until, released, is_owed)| PortLegacy {
                place: number::to_u16(place),
                lane,
                until,
                released,
                is_owed,
            };
            left.extend(ports.iter().map(port));
        }
        left
    }

    fn leave_leg(&self, lane: Lane) -> Option<LegLegacy> {
        let debt = self.debt(lane)?;
        let own = self.is_leasing().then_some(lane);
        let is_spoilt = self.is_spoilt(lane);
        let (place, asked, answered) = (number::to_u16(debt.place), debt.asked, debt.answered);
        Some(LegLegacy {
            place,
            lane: own,
            asked,
            answered,
            is_spoilt,
        })
    }
}
