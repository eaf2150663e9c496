//! The beginning of a session: its place in the quota, its upstream, and its source ports.

use super::{Cause, Stateful};
use crate::dispatch::handler::Context;
use crate::dispatch::sessions::{SessionId, SessionKey, prefix_of};
use crate::dispatch::verdict::DropReason;
use crate::handlers::forward::fanout::Fanout;
use crate::handlers::forward::outgoing::Outgoing;
use crate::handlers::forward::shadow::Comparison;

impl Stateful {
    pub(super) fn open(
        &mut self,
        key: SessionKey,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<SessionId, DropReason> {
        let prefix = prefix_of(key.client.ip());
        self.take_place(prefix, cx)?;
        if let Err(reason) = self.lease_legs(outgoing, cx) {
            self.quota.give_back(prefix);
            return Err(reason);
        }
        let interface = outgoing.train.envelope.interface;
        let id = self.table.insert(key, cx.listener(), interface, cx.now());
        for (leg, socket) in self.table.legs(id).iter_mut().zip(&mut self.opening) {
            *leg = socket.take();
            if let Some(socket) = leg {
                self.source_ports.assign(*socket, id);
            }
        }
        self.make_room_for_comparisons(id);
        self.counts.opened += 1;
        Ok(id)
    }

    pub(in super::super) fn make_room_for_comparisons(&mut self, id: SessionId) {
        let comparisons = (id.0 as usize + 1) * self.upstreams.shadows.len();
        if self.comparisons.len() < comparisons {
            self.comparisons
                .resize_with(comparisons, Comparison::default);
        }
    }

    /// Takes a place in the quota. If all are taken, this worker's oldest unreplied session is evicted.
    fn take_place(&mut self, prefix: u64, cx: &mut Context<'_>) -> Result<(), DropReason> {
        let taken = self.quota.take(prefix);
        if taken != Err(DropReason::SessionLimit) {
            return taken;
        }
        let oldest = self
            .table
            .oldest_unreplied()
            .ok_or(DropReason::SessionLimit)?;
        self.end(oldest, Cause::Evicted, cx);
        self.quota.take(prefix)
    }

    /// Leases the first sockets of a new session: to the picked upstream or to all of them, and to the shadows.
    fn lease_legs(
        &mut self,
        outgoing: &Outgoing<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        match self.upstreams.fanout {
            // Sockets to the others are leased when they are picked.
            Fanout::PerDatagram => {}
            Fanout::PerSession => {
                let place = self.pick(outgoing).ok_or(DropReason::NoUpstream)?;
                self.opening[0] = Some(self.source_ports.lease(place, cx)?);
            }
            Fanout::All => self.lease_all(cx)?,
        }
        let first_shadow = self.upstreams.fanout.first_shadow_leg();
        for (at, &shadow) in self.upstreams.shadows.iter().enumerate() {
            if self.upstreams.pool.is_fit_for_all(shadow) {
                let leg = first_shadow.map_or(shadow, |first| first + at);
                self.opening[leg] = self.source_ports.lease(shadow, cx).ok();
            }
        }
        Ok(())
    }

    /// Leases a socket to each upstream that is fit for it. It succeeds if at least one can be leased.
    fn lease_all(&mut self, cx: &mut Context<'_>) -> Result<(), DropReason> {
        let mut leased = Err(DropReason::NoUpstream);
        for place in 0..self.legs() {
            if !self.upstreams.pool.is_fit_for_all(place)
                || self.upstreams.settings.upstream_options[place].shadow
            {
                continue;
            }
            let socket = self.source_ports.lease(place, cx);
            self.opening[place] = socket.ok();
            leased = leased.or(socket.map(drop));
        }
        leased
    }
}
