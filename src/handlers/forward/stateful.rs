//! Forwarding with sessions. Each client address and port, listener and route has its own session. A session has its
//! own source port at its upstream, so replies that arrive there belong to its client.

mod opening;
mod passing;
mod replies;

use std::sync::Arc;

use super::config::Replies;
use super::outgoing::Outgoing;
use super::shadow::Comparison;
use super::source_ports::SourcePorts;
use super::upstream_set::UpstreamSet;
use crate::datagram::{Envelope, Train};
use crate::dispatch::handler::{
    Batch, Context, Forwarding, Handler, HandlerId, Trouble, UpstreamId,
};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::ledger::{HandlerCount, SessionCount, ShadowCounts, UpstreamCount};
use crate::dispatch::reply_policy::ReplyPolicy;
use crate::dispatch::saved_state::SavedState;
use crate::dispatch::sessions::page::SessionPage;
use crate::dispatch::sessions::quota::Quota;
use crate::dispatch::sessions::{Lifetimes, SessionId, SessionKey, Sessions, prefix_of};
use crate::dispatch::time::Time;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::dispatch::verdict::DropReason;

/// The most sessions that one call of `on_time` ends; the rest follows in the next calls.
const ENDS_MAX: usize = 512;

/// The reason why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Idle,
    Complete,
    Evicted,
    Broken,
}

/// The handler that forwards with sessions.
pub struct Stateful {
    pub(super) upstreams: UpstreamSet,
    pub(super) table: Sessions,
    pub(super) quota: Arc<Quota>,
    pub(super) source_ports: SourcePorts,
    /// One comparison for each session and shadow; empty without shadows.
    comparisons: Vec<Comparison>,
    /// The results of the comparisons, by upstream.
    outcomes: Vec<ShadowCounts>,
    pub(super) counts: SessionCount,
    /// The sockets of the session that is being opened; reused for every session.
    opening: Vec<Option<UpstreamSocketId>>,
}

impl Stateful {
    /// Builds the handler. Its session table holds as many sessions as the quota allows, which all workers share.
    pub fn new(upstreams: UpstreamSet, quota: Arc<Quota>, seed: u64) -> Stateful {
        let limits = upstreams.settings.limits;
        let is_sticky = upstreams.settings.replies == Replies::None;
        // If no replies are expected, a session without a reply is not `unreplied`.
        let unreplied = if is_sticky {
            limits.idle
        } else {
            limits.unreplied
        };
        let legs = upstreams
            .fanout
            .legs(upstreams.handles.len(), upstreams.shadows.len());
        let lifetimes = Lifetimes {
            idle: limits.idle,
            unreplied,
        };
        Stateful {
            table: Sessions::new(quota.max(), legs, lifetimes, seed),
            quota,
            source_ports: SourcePorts::new(
                upstreams
                    .handles
                    .iter()
                    .map(|handle| (handle.id, handle.socket)),
                !is_sticky,
            ),
            comparisons: Vec::new(),
            outcomes: vec![ShadowCounts::default(); upstreams.handles.len()],
            counts: SessionCount::default(),
            opening: vec![None; legs],
            upstreams,
        }
    }

    /// Returns the number of sockets that a session may have.
    fn legs(&self) -> usize {
        self.opening.len()
    }

    fn on_request(&mut self, train: &Train, index: u32, batch: &Batch<'_>, cx: &mut Context<'_>) {
        if let Err(reason) = self.request(train, index, batch, cx) {
            cx.drop_run(index, train.datagrams(), reason);
        }
    }

    fn request(
        &mut self,
        train: &Train,
        index: u32,
        batch: &Batch<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let envelope = &train.envelope;
        let outgoing = Outgoing {
            train,
            index,
            batch,
            ttl: self.upstreams.decrement_ttl(envelope)?,
        };
        let key = SessionKey {
            client: envelope.src,
            local: envelope.local,
            route: Some(cx.route_id()),
        };
        let id = match self.table.find(&key) {
            Some(id) => id,
            None if !self.may_reply(envelope, cx) => {
                self.counts.one_way += u64::from(train.datagrams());
                self.upstreams.pass_on(&outgoing, cx);
                return Ok(());
            }
            None => self.open(key, &outgoing, cx)?,
        };
        let session = self.table.get_mut(id);
        session.seen = cx.now();
        // The kernel redistributes flows when further sockets bind to an address. Therefore replies leave through the
        // listener that received the last request.
        session.listener = cx.listener();
        session.requests = session.requests.saturating_add(train.datagrams());
        session.winner = None;
        session.ttl = outgoing.ttl;
        let is_last = self
            .upstreams
            .settings
            .limits
            .requests_max
            .is_some_and(|max| session.requests >= max);
        let passed = self.pass_on(id, &outgoing, cx);
        if is_last {
            self.table.unbind(id);
        }
        passed
    }

    /// Returns whether the reply policy permits replies to the sender. The TTL has been checked before.
    fn may_reply(&self, envelope: &Envelope, cx: &Context<'_>) -> bool {
        let reply_policy = ReplyPolicy {
            ttl: Some(1),
            ..self.upstreams.settings.reply_policy
        };
        self.upstreams.settings.replies == Replies::None
            || (cx.permit(envelope, &reply_policy).is_ok()
                && !self.upstreams.is_upstream(envelope.src))
    }

    fn end(&mut self, id: SessionId, cause: Cause, cx: &mut Context<'_>) {
        let session = self.table.get(id);
        let seen = session.seen;
        let is_assured = session.is_assured;
        let prefix = prefix_of(session.key.client.ip());
        for leg in 0..self.legs() {
            if let Some(socket) = self.table.legs(id)[leg].take() {
                self.source_ports.release(socket, seen, cx);
            }
        }
        for (at, shadow) in self.upstreams.shadows.iter().enumerate() {
            self.comparisons[id.0 as usize * self.upstreams.shadows.len() + at]
                .end(&mut self.outcomes[*shadow]);
        }
        self.table.remove(id);
        self.quota.give_back(prefix);
        *match cause {
            Cause::Idle if is_assured || self.upstreams.settings.replies == Replies::None => {
                &mut self.counts.idle
            }
            Cause::Idle => &mut self.counts.unanswered,
            Cause::Complete => &mut self.counts.complete,
            Cause::Evicted => &mut self.counts.evicted,
            Cause::Broken => &mut self.counts.broken,
        } += 1;
    }
}

/// All workers share the quota, so a table that is dropped returns its places.
impl Drop for Stateful {
    fn drop(&mut self) {
        for (_, session) in self.table.iter() {
            self.quota.give_back(prefix_of(session.key.client.ip()));
        }
    }
}

impl Handler for Stateful {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            // A train may hold the last request of one session and the first of the next one.
            if self.upstreams.settings.limits.requests_max.is_some() {
                for (at, datagram) in (index..).zip(train.pieces()) {
                    self.on_request(&datagram, at, batch, cx);
                }
            } else {
                self.on_request(train, index, batch, cx);
            }
            index += train.datagrams();
        }
    }

    fn forwarding(&self) -> Option<&dyn Forwarding> {
        Some(self)
    }

    fn forwarding_mut(&mut self) -> Option<&mut dyn Forwarding> {
        Some(self)
    }
}

impl Forwarding for Stateful {
    fn on_reply(&mut self, socket: UpstreamSocketId, batch: &Batch<'_>, cx: &mut Context<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            let datagrams = train.datagrams();
            if let Some(place) = self.source_ports.place(socket) {
                self.source_ports.count_replies(place, datagrams);
            }
            if let Err(reason) = self.reply(socket, train, batch, cx) {
                cx.drop_run(index, datagrams, reason);
            }
            index += datagrams;
        }
    }

    fn on_trouble(&mut self, socket: UpstreamSocketId, trouble: Trouble, cx: &mut Context<'_>) {
        let Some(place) = self.source_ports.place(socket) else {
            return;
        };
        match trouble {
            Trouble::Reported(_) => self.upstreams.refused(place, cx.now()),
            Trouble::Broken => {
                if let Some((id, _)) = self.source_ports.session(socket) {
                    self.source_ports.spoil(socket);
                    self.end(id, Cause::Broken, cx);
                }
            }
        }
    }

    fn on_upstream_event(
        &mut self,
        upstream: UpstreamId,
        event: UpstreamEvent,
        cx: &mut Context<'_>,
    ) {
        self.upstreams.apply(upstream, event);
        if let (UpstreamEvent::Moved(_), Some(place)) = (event, self.upstreams.place(upstream)) {
            self.source_ports.moved(place, cx);
        }
    }

    fn on_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        self.upstreams.pass_time(now);
        for _ in 0..ENDS_MAX {
            let Some(id) = self.table.expired(now) else {
                break;
            };
            self.end(id, Cause::Idle, cx);
        }
        self.source_ports.shrink(now, cx);
    }

    fn save(&self) -> SavedState {
        self.save_all()
    }

    fn inherit(&mut self, saved: SavedState, cx: &mut Context<'_>) {
        self.inherit_all(saved, cx);
    }

    fn deadline(&self) -> Option<Time> {
        [
            self.table.deadline(),
            self.source_ports.deadline(),
            self.upstreams.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn has_outstanding(&self) -> bool {
        self.source_ports.has_outstanding()
    }

    fn list_sessions(&self, handler: HandlerId, from: u32, page: &mut SessionPage) -> Option<u32> {
        let upstream = |socket| {
            self.source_ports
                .place(socket)
                .map(|place| self.upstreams.handles[place].id)
        };
        self.table.list(handler, from, page, upstream)
    }

    fn account(&self, handler: &mut HandlerCount, upstreams: &mut [UpstreamCount]) {
        self.upstreams.account(upstreams);
        let unreplied = match self.upstreams.settings.replies {
            Replies::None => 0,
            _ => u64::from(self.table.unreplied()),
        };
        let ports = self.source_ports.open();
        handler.sessions = SessionCount {
            open: u64::from(self.table.len()),
            unreplied,
            ports,
            ..self.counts
        };
        for (place, handle) in self.upstreams.handles.iter().enumerate() {
            let count = &mut upstreams[handle.id.index()];
            count.counters.sessions += self.source_ports.sessions(place);
            count.counters.replies += self.source_ports.replies(place);
            count.shadow.add(&self.outcomes[place]);
        }
    }
}
