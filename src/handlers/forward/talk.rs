//! Forwarding with sessions: one for each client address and port, listener and route. Each has a source port of its own
//! at its upstream, so what comes back there is the client's.

use std::sync::Arc;

use super::common::Common;
use super::leases::Leases;
use super::settings::{Choice, Replies, Spread};
use super::shadow::{Comparison, Outcomes};
use crate::datagram::{Datagram, Envelope, Train};
use crate::dispatch::change::Change;
use crate::dispatch::guard::Answering;
use crate::dispatch::handler::{Batch, Cx, Handler, HandlerId, Trouble, UpstreamId, as_batch};
use crate::dispatch::ledger::{HandlerCount, SessionCount, UpstreamCount};
use crate::dispatch::legacy::Legacy;
use crate::dispatch::outbox::Lane;
use crate::dispatch::sessions::page::Page;
use crate::dispatch::sessions::quota::Quota;
use crate::dispatch::sessions::{Key, Lifetimes, SessionId, Sessions, prefix_of};
use crate::dispatch::time::Time;
use crate::dispatch::verdict::{DropReason, Verdict};
use crate::number;

/// Sessions that end in one call for the sake of time; the rest follows a moment later.
const ENDS_MAX: usize = 512;

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Idle,
    Complete,
    Displaced,
    Broken,
}

/// The handler.
pub struct Talk {
    pub(super) common: Common,
    pub(super) table: Sessions,
    pub(super) quota: Arc<Quota>,
    pub(super) leases: Leases,
    /// Of each session, one for each shadow; none where there are no shadows.
    comparisons: Vec<Comparison>,
    /// By upstream.
    outcomes: Vec<Outcomes>,
    pub(super) counts: SessionCount,
    /// Lanes of the session that is being opened.
    opening: Vec<Option<Lane>>,
}

impl Talk {
    /// Of what every forwarder has, with a table that may hold what the quota, which all workers share, allows.
    pub fn new(common: Common, quota: Arc<Quota>, seed: u64) -> Talk {
        let limits = common.settings.limits;
        let is_sticky = common.settings.replies == Replies::None;
        // Nobody is on probation where nobody is to answer.
        let probation = if is_sticky {
            limits.idle
        } else {
            limits.probation
        };
        let legs = match (common.settings.choice, common.settings.spread) {
            (Choice::One(_), Spread::Session) => 1 + common.shadows.len(),
            _ => common.outlets.len(),
        };
        let lifetimes = Lifetimes {
            idle: limits.idle,
            probation,
        };
        Talk {
            table: Sessions::new(quota.max(), legs, lifetimes, seed),
            quota,
            leases: Leases::new(
                common.outlets.iter().map(|outlet| (outlet.id, outlet.lane)),
                !is_sticky,
            ),
            comparisons: Vec::new(),
            outcomes: vec![Outcomes::default(); common.outlets.len()],
            counts: SessionCount::default(),
            opening: vec![None; legs],
            common,
        }
    }

    fn on_request(&mut self, train: &Train, index: u32, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        if let Err(reason) = self.request(train, index, batch, cx) {
            cx.drop_run(index, train.datagrams(), reason);
        }
    }

    fn request(
        &mut self,
        train: &Train,
        index: u32,
        batch: &Batch<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        let envelope = &train.envelope;
        let ttl = self.common.damp(envelope)?;
        let key = Key {
            client: envelope.src,
            local: envelope.local,
            route: cx.route_id(),
        };
        let id = match self.table.find(&key) {
            Some(id) => id,
            None if !self.may_answer(envelope, cx) => {
                self.counts.one_way += u64::from(train.datagrams());
                self.common.pass_on(train, index, batch, ttl, cx);
                return Ok(());
            }
            None => self.open(key, train, batch, cx)?,
        };
        let session = self.table.get_mut(id);
        session.seen = cx.now();
        // The kernel spreads flows anew where sockets join those of an address; a session goes where its client asks.
        session.ear = cx.ear();
        session.requests = session.requests.saturating_add(train.datagrams());
        session.winner = None;
        session.ttl = ttl;
        let is_last = self
            .common
            .settings
            .limits
            .requests_max
            .is_some_and(|max| session.requests >= max);
        let passed = self.pass_on(id, train, index, batch, ttl, cx);
        if is_last {
            self.table.unbind(id);
        }
        passed
    }

    /// Whether the guard lets answers go to who sent this. Its TTL has been looked at.
    fn may_answer(&self, envelope: &Envelope, cx: &Cx<'_>) -> bool {
        let answering = Answering {
            ttl: Some(1),
            ..self.common.settings.answering
        };
        self.common.settings.replies == Replies::None
            || (cx.permit(envelope, &answering).is_ok() && !self.common.is_upstream(envelope.src))
    }

    /// Passes a train of a session on, whole where nothing counts its datagrams.
    fn pass_on(
        &mut self,
        id: SessionId,
        train: &Train,
        index: u32,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        if self.common.is_plain && self.common.settings.spread == Spread::Session {
            return self.pass_piece(id, train, batch, ttl, cx);
        }
        for (at, datagram) in (index..).zip(train.pieces()) {
            if let Err(reason) = self.pass_piece(id, &datagram, batch, ttl, cx) {
                cx.verdict(at, Verdict::Dropped(reason));
            }
        }
        Ok(())
    }

    fn pass_piece(
        &mut self,
        id: SessionId,
        train: &Train,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        match (self.common.settings.choice, self.common.settings.spread) {
            (Choice::One(_), Spread::Session) if self.common.pool.is_all_alive() => {}
            (Choice::One(_), Spread::Session) => self.renew_choice(id, train, batch, cx)?,
            (Choice::One(_), Spread::Datagram) => {
                let leases = &self.leases;
                let place = self
                    .common
                    .pick(train, batch, |place| leases.sessions(place))
                    .ok_or(DropReason::NoUpstream)?;
                let lane = self.leg(id, place, cx)?;
                for shadow in 0..self.common.shadows.len() {
                    let shadow = self.common.shadows[shadow];
                    if let Some(lane) = self.table.legs(id)[shadow] {
                        // What a shadow does not get is counted there.
                        let _ = self.pass_leg(lane, shadow, train, batch, ttl, cx);
                    }
                }
                return self.pass_leg(lane, place, train, batch, ttl, cx);
            }
            (Choice::All, _) => {}
        }
        let mut passed = Err(DropReason::NoUpstream);
        for leg in 0..self.opening.len() {
            let Some(lane) = self.table.legs(id)[leg] else {
                continue;
            };
            let Some(place) = self.leases.place(lane) else {
                continue;
            };
            let got = self.pass_leg(lane, place, train, batch, ttl, cx);
            // What a shadow gets or not is counted there.
            if !self.common.settings.receivers[place].shadow {
                passed = passed.or(got);
            }
        }
        passed
    }

    fn pass_leg(
        &mut self,
        lane: Lane,
        place: usize,
        train: &Train,
        batch: &Batch<'_>,
        ttl: Option<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        self.common.outlets[place].pass(lane, train, batch, ttl, cx)?;
        self.leases.asked(lane, train.datagrams());
        self.common.asked(place, train.datagrams(), cx.now());
        Ok(())
    }

    /// The session's lane to an upstream that it may not have used yet.
    fn leg(&mut self, id: SessionId, place: usize, cx: &mut Cx<'_>) -> Result<Lane, DropReason> {
        if let Some(lane) = self.table.legs(id)[place] {
            return Ok(lane);
        }
        let lane = self.leases.lease(place, cx)?;
        self.leases.assign(lane, id);
        self.table.legs(id)[place] = Some(lane);
        Ok(lane)
    }

    /// A session whose upstream has died goes on with another, if there is one.
    fn renew_choice(
        &mut self,
        id: SessionId,
        train: &Train,
        batch: &Batch<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        let Some(lane) = self.table.legs(id)[0] else {
            return Err(DropReason::NoUpstream);
        };
        let Some(place) = self.leases.place(lane) else {
            return Err(DropReason::NoUpstream);
        };
        // Where nobody seems alive, a dead one is as fit as any, and to pick again would take another's turn.
        if self.common.pool.members()[place].alive || self.common.pool.is_fit(place) {
            return Ok(());
        }
        let leases = &self.leases;
        let Some(other) = self
            .common
            .pick(train, batch, |place| leases.sessions(place))
        else {
            return Ok(());
        };
        if other == place || !self.common.pool.members()[other].alive {
            return Ok(());
        }
        let new = self.leases.lease(other, cx)?;
        self.leases.assign(new, id);
        self.table.legs(id)[0] = Some(new);
        let seen = self.table.get(id).seen;
        // Thousands may go at once, and the ports that they leave are of use to nobody but where they go.
        self.leases.spoil(lane);
        self.leases.release(lane, seen, cx);
        Ok(())
    }

    fn open(
        &mut self,
        key: Key,
        train: &Train,
        batch: &Batch<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<SessionId, DropReason> {
        let prefix = prefix_of(key.client.ip());
        self.take_place(prefix, cx)?;
        if let Err(reason) = self.lease_legs(train, batch, cx) {
            self.quota.give_back(prefix);
            return Err(reason);
        }
        let id = self
            .table
            .insert(key, cx.ear(), train.envelope.interface, cx.now());
        for (leg, lane) in self.table.legs(id).iter_mut().zip(&mut self.opening) {
            *leg = lane.take();
            if let Some(lane) = leg {
                self.leases.assign(*lane, id);
            }
        }
        self.make_room_for_comparisons(id);
        self.counts.opened += 1;
        Ok(id)
    }

    pub(super) fn make_room_for_comparisons(&mut self, id: SessionId) {
        let comparisons = (id.0 as usize + 1) * self.common.shadows.len();
        if self.comparisons.len() < comparisons {
            self.comparisons
                .resize_with(comparisons, Comparison::default);
        }
    }

    /// Takes a place in the quota; where all are taken, that of the one that has been on probation longest here.
    fn take_place(&mut self, prefix: u64, cx: &mut Cx<'_>) -> Result<(), DropReason> {
        let taken = self.quota.take(prefix);
        if taken != Err(DropReason::SessionLimit) {
            return taken;
        }
        let oldest = self
            .table
            .oldest_on_probation()
            .ok_or(DropReason::SessionLimit)?;
        self.end(oldest, Cause::Displaced, cx);
        self.quota.take(prefix)
    }

    /// Leases the lanes that a new session begins with: to whom is picked or to all, and then to the shadows.
    fn lease_legs(
        &mut self,
        train: &Train,
        batch: &Batch<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        let first_shadow = match (self.common.settings.choice, self.common.settings.spread) {
            // The others as they are picked.
            (Choice::One(_), Spread::Datagram) => None,
            (Choice::One(_), Spread::Session) => {
                let leases = &self.leases;
                let place = self
                    .common
                    .pick(train, batch, |place| leases.sessions(place))
                    .ok_or(DropReason::NoUpstream)?;
                self.opening[0] = Some(self.leases.lease(place, cx)?);
                Some(1)
            }
            (Choice::All, _) => {
                let mut leased = Err(DropReason::NoUpstream);
                for place in 0..self.opening.len() {
                    if !self.common.pool.is_fit_for_all(place)
                        || self.common.settings.receivers[place].shadow
                    {
                        continue;
                    }
                    let lane = self.leases.lease(place, cx);
                    self.opening[place] = lane.ok();
                    leased = leased.or(lane.map(drop));
                }
                leased?;
                None
            }
        };
        for (at, &shadow) in self.common.shadows.iter().enumerate() {
            if self.common.pool.is_fit_for_all(shadow) {
                // Where there is no leg for each upstream, the shadows' come last.
                let leg = first_shadow.map_or(shadow, |first| first + at);
                self.opening[leg] = self.leases.lease(shadow, cx).ok();
            }
        }
        Ok(())
    }

    fn end(&mut self, id: SessionId, cause: Cause, cx: &mut Cx<'_>) {
        let session = self.table.get(id);
        let (seen, is_answered, prefix) = (
            session.seen,
            session.is_answered,
            prefix_of(session.key.client.ip()),
        );
        for leg in 0..self.opening.len() {
            if let Some(lane) = self.table.legs(id)[leg].take() {
                self.leases.release(lane, seen, cx);
            }
        }
        for (at, shadow) in self.common.shadows.iter().enumerate() {
            self.comparisons[id.0 as usize * self.common.shadows.len() + at]
                .end(&mut self.outcomes[*shadow]);
        }
        self.table.remove(id);
        self.quota.give_back(prefix);
        *match cause {
            Cause::Idle if is_answered || self.common.settings.replies == Replies::None => {
                &mut self.counts.idle
            }
            Cause::Idle => &mut self.counts.unanswered,
            Cause::Complete => &mut self.counts.complete,
            Cause::Displaced => &mut self.counts.displaced,
            Cause::Broken => &mut self.counts.broken,
        } += 1;
    }

    /// What one upstream answered goes to the client, unless that is not wanted.
    fn answer(
        &mut self,
        lane: Lane,
        train: &Train,
        batch: &Batch<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        let (id, place) = self.leases.session(lane).ok_or(DropReason::LateReply)?;
        self.leases.answered(lane, train.datagrams());
        self.common.answered(place);
        if self.common.settings.receivers[place].shadow {
            self.compare(id, Some(place), train, batch);
            return Err(DropReason::Shadow);
        }
        let session = self.table.get_mut(id);
        let place = number::to_u16(place);
        if self.common.settings.is_first_alone() && *session.winner.get_or_insert(place) != place {
            return Err(DropReason::NotFirst);
        }
        session.seen = cx.now();
        session.replies = session.replies.saturating_add(train.datagrams());
        let (ear, key, interface) = (session.ear, session.key, session.interface);
        // As echo does: where what we answer is answered again, it ends. A TTL that the file sets is for the upstreams.
        let ttl = session
            .ttl
            .filter(|_| self.common.settings.answering.ttl.is_none());
        cx.pass_back(ear, train, key.client, key.local, interface, ttl);
        self.table.answered(id);
        if !self.common.shadows.is_empty() {
            self.compare(id, None, train, batch);
        }
        if self.is_complete(id) {
            self.end(id, Cause::Complete, cx);
        }
        Ok(())
    }

    /// Whether each request that went out has as many answers as it is to have: of every upstream that it went to, or, where
    /// the first one's are enough, as many as the client was to get.
    fn is_complete(&mut self, id: SessionId) -> bool {
        let Some(each) = self.common.settings.limits.replies_max else {
            return false;
        };
        let (leases, receivers) = (&self.leases, &self.common.settings.receivers);
        let held = self
            .table
            .legs(id)
            .iter()
            .flatten()
            .filter_map(|lane| leases.debt(*lane));
        let mut held = held.filter(|debt| !receivers[debt.place].shadow);
        if self.common.settings.is_first_alone() {
            let asked = held.map(|debt| debt.asked).max().unwrap_or(0);
            return u64::from(self.table.get(id).replies) >= u64::from(each) * u64::from(asked);
        }
        held.all(|debt| u64::from(debt.answered) >= u64::from(each) * u64::from(debt.asked))
    }

    /// Compares answers: those of a shadow, or (`None`) those that the client gets.
    fn compare(&mut self, id: SessionId, of: Option<usize>, train: &Train, batch: &Batch<'_>) {
        let shadows = self.common.shadows.len();
        for (at, shadow) in self.common.shadows.iter().enumerate() {
            if of.is_some_and(|of| of != *shadow) {
                continue;
            }
            let comparison = &mut self.comparisons[id.0 as usize * shadows + at];
            for datagram in train.pieces() {
                comparison.answer(
                    of.is_some(),
                    batch.bytes(datagram.span),
                    &mut self.outcomes[*shadow],
                );
            }
        }
    }
}

/// The quota is all workers': a table that goes gives back what it has taken.
impl Drop for Talk {
    fn drop(&mut self) {
        for (_, session) in self.table.iter() {
            self.quota.give_back(prefix_of(session.key.client.ip()));
        }
    }
}

impl Handler for Talk {
    fn on_datagram(&mut self, datagram: &Datagram<'_>, cx: &mut Cx<'_>) -> Verdict {
        as_batch(self, datagram, cx)
    }

    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            // A train may hold the last request of one session and the first of the next.
            if self.common.settings.limits.requests_max.is_some() {
                for (at, datagram) in (index..).zip(train.pieces()) {
                    self.on_request(&datagram, at, batch, cx);
                }
            } else {
                self.on_request(train, index, batch, cx);
            }
            index += train.datagrams();
        }
    }

    fn on_reply(&mut self, lane: Lane, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            let datagrams = train.datagrams();
            if let Some(place) = self.leases.place(lane) {
                self.leases.count_replies(place, datagrams);
            }
            if let Err(reason) = self.answer(lane, train, batch, cx) {
                cx.drop_run(index, datagrams, reason);
            }
            index += datagrams;
        }
    }

    fn on_trouble(&mut self, lane: Lane, trouble: Trouble, cx: &mut Cx<'_>) {
        let Some(place) = self.leases.place(lane) else {
            return;
        };
        match trouble {
            Trouble::Reported(_) => self.common.refused(place, cx.now()),
            Trouble::Broken => {
                if let Some((id, _)) = self.leases.session(lane) {
                    self.leases.spoil(lane);
                    self.end(id, Cause::Broken, cx);
                }
            }
        }
    }

    fn on_change(&mut self, upstream: UpstreamId, change: Change, cx: &mut Cx<'_>) {
        self.common.change(upstream, change);
        if let (Change::Moved(_), Some(place)) = (change, self.common.place(upstream)) {
            self.leases.moved(place, cx);
        }
    }

    fn on_time(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.common.pass_time(now);
        for _ in 0..ENDS_MAX {
            let Some(id) = self.table.expired(now) else {
                break;
            };
            self.end(id, Cause::Idle, cx);
        }
        self.leases.shrink(now, cx);
    }

    fn leave(&self) -> Legacy {
        self.leave_all()
    }

    fn inherit(&mut self, legacy: Legacy, cx: &mut Cx<'_>) {
        self.inherit_all(legacy, cx);
    }

    fn due(&self) -> Option<Time> {
        [self.table.due(), self.leases.due(), self.common.due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_owed(&self) -> bool {
        self.leases.is_owed()
    }

    fn look_at_sessions(&self, handler: HandlerId, from: u32, page: &mut Page) -> Option<u32> {
        let upstream = |lane| {
            self.leases
                .place(lane)
                .map(|place| self.common.outlets[place].id)
        };
        self.table.look(handler, from, page, upstream)
    }

    fn account(&self, handler: &mut HandlerCount, upstreams: &mut [UpstreamCount]) {
        self.common.account(upstreams);
        let on_probation = match self.common.settings.replies {
            Replies::None => 0,
            _ => u64::from(self.table.on_probation()),
        };
        let ports = self.leases.open();
        handler.sessions = SessionCount {
            open: u64::from(self.table.len()),
            on_probation,
            ports,
            ..self.counts
        };
        for (place, outlet) in self.common.outlets.iter().enumerate() {
            let count = &mut upstreams[outlet.id.index()];
            count.sessions += self.leases.sessions(place);
            count.replies += self.leases.replies(place);
            let Outcomes {
                same,
                different,
                missing,
            } = self.outcomes[place];
            count
                .shadow
                .iter_mut()
                .zip([same, different, missing])
                .for_each(|(sum, more)| *sum += more);
        }
    }
}
