//! What happens to the datagram of a client.

use std::collections::BTreeMap;

use udispatch::dispatch::verdict::DropReason;

use super::ports::Way;
use super::{Cause, Key, Leg, Session, Shared, Step, Talker, Train, number_of, prefix};
use crate::scenario::{HashOn, Pick, Replies, SECOND};

/// One train, or a part of it, and its route.
struct Unit<'a> {
    train: &'a Train,
    payloads: &'a [Vec<u8>],
    ttl: Option<u8>,
    route: usize,
    listener: usize,
}

impl Unit<'_> {
    fn len(&self) -> usize {
        self.payloads.len()
    }
}

impl Talker {
    /// Processes a train of a route that came to a listener.
    pub fn request(
        &mut self,
        train: &Train,
        route: usize,
        listener: usize,
        shared: &mut Shared,
        step: &mut Step,
    ) {
        let ttl = match (self.spec.ttl, train.ttl) {
            (fixed, 1) if train.dst.ip().is_multicast() => fixed,
            (Some(fixed), _) => Some(fixed),
            (None, 1) => return self.tally.drop(DropReason::TtlSpent, train.payloads.len()),
            (None, ttl) => Some(ttl - 1),
        };
        // If sessions end after a number of requests, each datagram counts.
        let step_by = if self.spec.requests_max.is_some() {
            1
        } else {
            train.payloads.len()
        };
        for payloads in train.payloads.chunks(step_by) {
            self.unit(
                &Unit {
                    train,
                    payloads,
                    ttl,
                    route,
                    listener,
                },
                shared,
                step,
            );
        }
    }

    fn unit(&mut self, unit: &Unit<'_>, shared: &mut Shared, step: &mut Step) {
        if !self.spec.has_sessions() {
            return self.pass_one_way(unit, shared, step);
        }
        let Train { src, local, .. } = *unit.train;
        let key = Key {
            client: src,
            local,
            route: unit.route,
        };
        let at = match self
            .sessions
            .iter()
            .position(|session| session.is_bound && session.key == key)
        {
            Some(at) => at,
            None if self.spec.replies != Replies::No && !self.may_answer(unit.train) => {
                self.ends.one_way += unit.len() as u64;
                return self.pass_one_way(unit, shared, step);
            }
            None => match self.open(key, unit, shared, step) {
                Ok(()) => self.sessions.len() - 1,
                Err(reason) => return self.tally.drop(reason, unit.len()),
            },
        };
        let session = &mut self.sessions[at];
        session.seen = step.now;
        session.listener = unit.listener;
        session.requests += unit.len() as u64;
        session.winner = None;
        session.ttl = unit.ttl;
        if self
            .spec
            .requests_max
            .is_some_and(|max| session.requests >= max)
        {
            session.is_bound = false;
            step.met.push("unbound");
        }
        match (self.spec.pick, self.spec.by_session) {
            (Pick::All, _) => self.pass_legs(at, unit, step),
            (_, true) => match self.renew(at, unit, shared, step) {
                Ok(()) => self.pass_legs(at, unit, step),
                Err(reason) => self.tally.drop(reason, unit.len()),
            },
            (_, false) => unit
                .payloads
                .iter()
                .for_each(|payload| self.pass_picked(at, unit, payload, shared, step)),
        }
    }

    /// Whether the sender may get replies.
    fn may_answer(&self, train: &Train) -> bool {
        let port = train.src.port();
        let ip = train.src.ip().to_string();
        let is_own = ip.starts_with("192.0.2.") || ip.starts_with("2001:db8::");
        port != 0
            && !is_own
            && (port >= 1024 || self.spec.allow_low_ports)
            && (!train.dst.ip().is_multicast() || self.spec.reply_to_groups)
    }

    fn open(
        &mut self,
        key: Key,
        unit: &Unit<'_>,
        shared: &mut Shared,
        step: &mut Step,
    ) -> Result<(), DropReason> {
        let prefix = prefix(key.client.ip());
        if shared
            .held
            .get(&prefix)
            .is_some_and(|held| *held >= self.spec.share)
            && self.spec.share < self.spec.max
        {
            return Err(DropReason::SessionShare);
        }
        if shared.held.values().sum::<usize>() >= self.spec.max {
            let oldest = self.sessions.iter().position(|session| !session.is_assured);
            let oldest = oldest.ok_or(DropReason::SessionLimit)?;
            self.end(
                oldest,
                Cause::Evicted,
                (step.now, step.now),
                None,
                shared,
                step,
            );
        }
        let legs = self.open_legs(unit, shared, step)?;
        *shared.held.entry(prefix).or_default() += 1;
        self.ends.opened += 1;
        shared.sessions += 1;
        self.sessions.push(Session {
            number: shared.sessions,
            key,
            listener: unit.listener,
            interface: unit.train.interface,
            ttl: None,
            seen: step.now,
            requests: 0,
            replies: 0,
            winner: None,
            is_assured: false,
            is_bound: true,
            legs,
            unmatched: BTreeMap::new(),
        });
        Ok(())
    }

    /// The sockets with which a session begins.
    fn open_legs(
        &mut self,
        unit: &Unit<'_>,
        shared: &mut Shared,
        step: &mut Step,
    ) -> Result<Vec<Leg>, DropReason> {
        let sockets = self.sockets_of(&unit.payloads[0], step);
        let lane_to = |place: usize| {
            sockets
                .iter()
                .find(|(_, to, _)| *to == place)
                .map(|(socket, _, _)| *socket)
        };
        let mut legs = Vec::new();
        match (self.spec.pick, self.spec.by_session) {
            (Pick::All, _) => {
                let mut lacks = DropReason::NoUpstream;
                for place in 0..self.spec.receivers.len() {
                    match lane_to(place) {
                        _ if self.is_shadow(place) => {}
                        _ if !self.picks.gets_copies(place) => {}
                        Some(socket) => legs.push(self.leg(place, socket, step)),
                        None => lacks = self.lease_failed(place, step),
                    }
                }
                if legs.is_empty() {
                    return Err(lacks);
                }
            }
            (_, true) => legs.push(self.open_picked(unit, shared, step)?),
            (_, false) => {}
        }
        for shadow in self.shadows() {
            match lane_to(shadow) {
                _ if !self.picks.gets_copies(shadow) => {}
                Some(socket) => legs.push(self.leg(shadow, socket, step)),
                None => drop(self.lease_failed(shadow, step)),
            }
        }
        Ok(legs)
    }

    fn leg(&mut self, place: usize, socket: u32, step: &mut Step) -> Leg {
        self.lease(place, socket, step);
        Leg {
            place,
            socket,
            asked: 0,
            answered: 0,
        }
    }

    /// A socket to an upstream that is picked, found by where the datagram was sent.
    fn open_picked(
        &mut self,
        unit: &Unit<'_>,
        shared: &mut Shared,
        step: &mut Step,
    ) -> Result<Leg, DropReason> {
        match self.main_of(&unit.payloads[0], step) {
            Some((socket, place)) => {
                self.see(
                    place,
                    unit.train,
                    &unit.payloads[0],
                    &self.loads(),
                    shared,
                    step,
                );
                Ok(self.leg(place, socket, step))
            }
            None => Err(self.pick_failed(step)),
        }
    }

    /// No upstream could be picked, or no socket to the picked one could be leased.
    fn pick_failed(&mut self, step: &Step) -> DropReason {
        let fit = self.picks.fit();
        if fit.is_empty() {
            return DropReason::NoUpstream;
        }
        self.picks.unseen();
        let failed: Vec<usize> = fit
            .into_iter()
            .filter(|place| self.may_have_failed(*place, step))
            .collect();
        assert!(!failed.is_empty(), "no socket for no reason");
        let tried = failed
            .iter()
            .find(|place| step.failed.contains_key(&(self.handler, **place)));
        self.why_failed(*tried.unwrap_or(&failed[0]), step)
    }

    /// A session with a dead upstream continues with another one that is alive.
    fn renew(
        &mut self,
        at: usize,
        unit: &Unit<'_>,
        shared: &mut Shared,
        step: &mut Step,
    ) -> Result<(), DropReason> {
        let old = self.sessions[at].legs[0];
        if self.picks.members[old.place].alive {
            return Ok(());
        }
        let fit = self.picks.fit();
        let is_any_alive = fit.iter().any(|place| self.picks.members[*place].alive);
        match self.main_of(&unit.payloads[0], step) {
            Some((socket, _)) if socket == old.socket => {
                assert!(
                    !is_any_alive,
                    "it stays with a dead one though others are alive"
                );
                self.picks.unseen();
            }
            Some((socket, place)) => {
                self.see(
                    place,
                    unit.train,
                    &unit.payloads[0],
                    &self.loads(),
                    shared,
                    step,
                );
                assert!(
                    self.picks.members[place].alive,
                    "from a dead one to a dead one"
                );
                self.sessions[at].legs[0] = self.leg(place, socket, step);
                let session = &self.sessions[at];
                let number = session.number;
                let seen = session.seen;
                self.release(number, &old, seen, (step.now, step.now), true, step);
                step.met.push("renewed");
            }
            None => return Err(self.pick_failed(step)),
        }
        Ok(())
    }

    /// Forwards by all sockets that a session has, and by no others.
    fn pass_legs(&mut self, at: usize, unit: &Unit<'_>, step: &mut Step) {
        let mut legs: Vec<u32> = self.sessions[at]
            .legs
            .iter()
            .map(|leg| leg.socket)
            .collect();
        legs.sort_unstable();
        for payload in unit.payloads {
            let mut out = self.take(payload, unit.ttl, step);
            out.sort_unstable();
            assert_eq!(
                out,
                legs,
                "the sockets that datagram {} leaves on",
                number_of(payload)
            );
        }
        for leg in 0..legs.len() {
            self.asked(at, leg, unit.len(), step);
        }
        self.tally.handle(unit.len());
    }

    /// Forwards one datagram to the upstream that is picked for it, and to the shadows.
    fn pass_picked(
        &mut self,
        at: usize,
        unit: &Unit<'_>,
        payload: &[u8],
        shared: &mut Shared,
        step: &mut Step,
    ) {
        let Some((socket, place)) = self.main_of(payload, step) else {
            assert!(
                self.take(payload, unit.ttl, step).is_empty(),
                "a copy of what nobody got"
            );
            let reason = self.pick_failed(step);
            return self.tally.drop(reason, 1);
        };
        self.see(place, unit.train, payload, &self.loads(), shared, step);
        let mut legs: Vec<usize> = (0..self.sessions[at].legs.len()).collect();
        legs.retain(|leg| self.is_shadow(self.sessions[at].legs[*leg].place));
        let main = self.sessions[at]
            .legs
            .iter()
            .position(|leg| leg.place == place);
        legs.push(if let Some(leg) = main {
            leg
        } else {
            let leg = self.leg(place, socket, step);
            self.sessions[at].legs.push(leg);
            self.sessions[at].legs.len() - 1
        });
        let mut expected: Vec<u32> = legs
            .iter()
            .map(|leg| self.sessions[at].legs[*leg].socket)
            .collect();
        let mut out = self.take(payload, unit.ttl, step);
        expected.sort_unstable();
        out.sort_unstable();
        assert_eq!(
            out,
            expected,
            "the sockets that datagram {} leaves on",
            number_of(payload)
        );
        legs.into_iter()
            .for_each(|leg| self.asked(at, leg, 1, step));
        self.tally.handle(1);
    }

    fn asked(&mut self, at: usize, leg: usize, datagrams: usize, step: &mut Step) {
        let leg = &mut self.sessions[at].legs[leg];
        leg.asked += datagrams as u64;
        let place = leg.place;
        let now = step.now;
        self.update_health(place, |health| health.asked(datagrams, now), step);
    }

    /// Forwards without replies.
    fn pass_one_way(&mut self, unit: &Unit<'_>, shared: &mut Shared, step: &mut Step) {
        for payload in unit.payloads {
            let main = self.main_of(payload, step);
            let mut out = self.take(payload, unit.ttl, step);
            let mut expected = Vec::new();
            let mut verdict = Err(DropReason::NoUpstream);
            if self.spec.pick == Pick::All {
                for place in 0..self.spec.receivers.len() {
                    if !self.picks.gets_copies(place) {
                        continue;
                    }
                    let passed =
                        self.limit(place, out.contains(&self.one_way[place]), shared, step);
                    if passed.is_ok() {
                        expected.push(self.one_way[place]);
                    }
                    if !self.is_shadow(place) {
                        verdict = if verdict.is_ok() { verdict } else { passed };
                    }
                }
            } else if let Some((socket, place)) = main {
                // There are no sessions to count.
                self.see(
                    place,
                    unit.train,
                    payload,
                    &vec![0; self.spec.receivers.len()],
                    shared,
                    step,
                );
                let shadows = self
                    .shadows()
                    .into_iter()
                    .filter(|place| self.picks.gets_copies(*place));
                expected = shadows.map(|place| self.one_way[place]).collect();
                expected.push(socket);
                assert_eq!(socket, self.one_way[place]);
                verdict = Ok(());
            } else {
                assert!(self.picks.fit().is_empty(), "nobody was picked");
            }
            out.sort_unstable();
            expected.sort_unstable();
            assert_eq!(
                out,
                expected,
                "the sockets that datagram {} leaves on, one way",
                number_of(payload)
            );
            match verdict {
                Ok(()) => self.tally.handle(1),
                Err(reason) => self.tally.drop(reason, 1),
            }
        }
    }

    /// Checks whether an upstream's sample and rate allowed a datagram to pass, or not to pass.
    fn limit(
        &mut self,
        place: usize,
        passed: bool,
        shared: &mut Shared,
        step: &Step,
    ) -> Result<(), DropReason> {
        let receiver = self.spec.receivers[place];
        self.skipped[place] += u64::from(!passed);
        if let Some((taken, each)) = receiver.sample {
            let (of, took) = &mut self.sampled[place];
            *of += 1;
            *took += u64::from(passed);
            let least = *of * taken / each;
            assert!(
                (least..=least + 1).contains(took),
                "{took} of {of} at {taken}/{each}"
            );
            return if passed {
                Ok(())
            } else {
                Err(DropReason::SampledOut)
            };
        }
        if let Some(rate) = receiver.rate {
            // The size is a tenth of a second's worth, and at least one.
            let size = (rate as f64 / 10.0).max(1.0);
            let (room, at) = shared.buckets.entry(place).or_insert((size, step.now));
            *room = (*room + (step.now - *at) as f64 / SECOND as f64 * rate as f64).min(size);
            *at = step.now;
            assert!(
                if passed { *room > 0.99 } else { *room < 1.01 },
                "{room} of {rate} a second, passed: {passed}"
            );
            *room -= if passed { 1.0 } else { 0.0 };
            return if passed {
                Ok(())
            } else {
                Err(DropReason::RateLimit)
            };
        }
        assert!(passed, "nothing keeps it from {place}");
        Ok(())
    }

    /// Notes a pick that was seen.
    fn see(
        &mut self,
        place: usize,
        train: &Train,
        payload: &[u8],
        loads: &[u64],
        shared: &mut Shared,
        step: &mut Step,
    ) {
        let key = match self.spec.hash_on {
            HashOn::Source => train.src.to_string(),
            HashOn::SourceAddress => train.src.ip().to_string(),
            HashOn::Destination => train.dst.to_string(),
            HashOn::Payload => format!("{:?}", &payload[8..12]),
        };
        let has_moved = self.picks.seen(place, &key, loads, &mut shared.homes);
        step.met.extend(has_moved.then_some("key away from home"));
        step.met.push(match self.spec.pick {
            Pick::All => "all",
            Pick::RoundRobin => "round_robin",
            Pick::Random => "random",
            Pick::Hash => "hash",
            Pick::LeastSessions => "least_sessions",
            Pick::FirstAlive => "first_alive",
        });
        step.met
            .extend(self.spec.receivers[place].backup.then_some("backup"));
    }

    fn sockets_of(&self, payload: &[u8], step: &Step) -> Vec<Way> {
        step.out
            .get(&(self.handler, number_of(payload)))
            .cloned()
            .unwrap_or_default()
    }

    /// The socket to an upstream that is not a shadow. Where one is picked, there is at most one.
    fn main_of(&self, payload: &[u8], step: &Step) -> Option<(u32, usize)> {
        let sockets = self.sockets_of(payload, step);
        let mut main = sockets
            .iter()
            .filter(|(_, place, _)| !self.is_shadow(*place));
        let first = main.next().map(|(socket, place, _)| (*socket, *place));
        assert!(
            self.spec.pick == Pick::All || main.next().is_none(),
            "one is picked: {sockets:?}"
        );
        first
    }

    /// Takes all sockets that a datagram was sent on, as explained.
    fn take(&self, payload: &[u8], ttl: Option<u8>, step: &mut Step) -> Vec<u32> {
        let sockets = step
            .out
            .remove(&(self.handler, number_of(payload)))
            .unwrap_or_default();
        assert!(
            sockets.iter().all(|(_, _, found)| *found == ttl),
            "sent with {ttl:?}: {sockets:?}"
        );
        sockets.into_iter().map(|(socket, _, _)| socket).collect()
    }
}
