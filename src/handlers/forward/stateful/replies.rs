//! The replies of upstreams: the choice of those that go to the client, and the completion of sessions.

use super::{Cause, Stateful};
use crate::datagram::Train;
use crate::dispatch::handler::{Batch, Context, ReplyPath};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::sessions::SessionId;
use crate::dispatch::verdict::DropReason;
use crate::number;

impl Stateful {
    /// Sends a reply of an upstream to the client.
    ///
    /// # Errors
    ///
    /// Returns the drop reason if the session has ended, if the upstream is a shadow, or if another upstream's reply
    /// won.
    pub(super) fn reply(
        &mut self,
        socket: UpstreamSocketId,
        train: &Train,
        batch: &Batch<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let (id, place) = self
            .source_ports
            .session(socket)
            .ok_or(DropReason::LateReply)?;
        self.source_ports.replied(socket, train.datagrams());
        self.upstreams.replied(place);
        if self.upstreams.settings.upstream_options[place].shadow {
            self.compare(id, Some(place), train, batch);
            return Err(DropReason::Shadow);
        }
        let session = self.table.get_mut(id);
        let place = number::to_u16(place);
        if self.upstreams.settings.is_first_alone() && *session.winner.get_or_insert(place) != place
        {
            return Err(DropReason::NotFirst);
        }
        session.seen = cx.now();
        session.replies = session.replies.saturating_add(train.datagrams());
        let path = ReplyPath {
            listener: session.listener,
            to: session.key.client,
            from: session.key.local,
            interface: session.interface,
        };
        // As for `echo`, the TTL of a reply is the request's less one, so that a loop of replies ends. A TTL from the
        // file applies to upstreams only.
        let ttl = session
            .ttl
            .filter(|_| self.upstreams.settings.reply_policy.ttl.is_none());
        cx.pass_back(&path, train, ttl);
        self.table.assure(id);
        if !self.upstreams.shadows.is_empty() {
            self.compare(id, None, train, batch);
        }
        if self.is_complete(id) {
            self.end(id, Cause::Complete, cx);
        }
        Ok(())
    }

    /// Returns whether each request has all its replies (`replies_max`). Normally every upstream that received the
    /// request must have replied. With `replies = "first"`, the number of replies to the client decides.
    fn is_complete(&self, id: SessionId) -> bool {
        let Some(each) = self.upstreams.settings.limits.replies_max else {
            return false;
        };
        let source_ports = &self.source_ports;
        let upstream_options = &self.upstreams.settings.upstream_options;
        let sockets = self.table.legs_of(id).iter().flatten();
        let mut legs = sockets
            .filter_map(|socket| source_ports.leg(*socket))
            .filter(|leg| !upstream_options[usize::from(leg.place)].shadow);
        if self.upstreams.settings.is_first_alone() {
            let requests = legs.map(|leg| leg.requests).max().unwrap_or(0);
            return u64::from(self.table.get(id).replies) >= u64::from(each) * u64::from(requests);
        }
        legs.all(|leg| u64::from(leg.replies) >= u64::from(each) * u64::from(leg.requests))
    }

    /// Compares replies: those of a shadow, or, if `of` is `None`, those that the client receives.
    fn compare(&mut self, id: SessionId, of: Option<usize>, train: &Train, batch: &Batch<'_>) {
        let shadows = self.upstreams.shadows.len();
        for (at, shadow) in self.upstreams.shadows.iter().enumerate() {
            if of.is_some_and(|of| of != *shadow) {
                continue;
            }
            let comparison = &mut self.comparisons[id.0 as usize * shadows + at];
            for datagram in train.pieces() {
                comparison.reply(
                    of.is_some(),
                    batch.bytes(datagram.span),
                    &mut self.outcomes[*shadow],
                );
            }
        }
    }
}
