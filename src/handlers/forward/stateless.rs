//! Forwarding without sessions: each datagram goes to a picked upstream, or to all of them, and no reply comes back.

use super::fanout::Fanout;
use super::outgoing::Outgoing;
use super::upstream_set::UpstreamSet;
use crate::dispatch::handler::{Batch, Context, Forwarding, Handler, Trouble, UpstreamId};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::ledger::{HandlerCount, UpstreamCount};
use crate::dispatch::saved_state::SavedState;
use crate::dispatch::time::Time;
use crate::dispatch::upstream_event::UpstreamEvent;

/// The handler that forwards without sessions.
pub struct Stateless {
    upstreams: UpstreamSet,
}

impl Stateless {
    /// Wraps the upstreams of a handler whose settings need no sessions.
    ///
    /// # Panics
    ///
    /// Panics in debug builds if the settings require sessions.
    pub fn new(upstreams: UpstreamSet) -> Stateless {
        debug_assert_ne!(upstreams.fanout, Fanout::PerSession);
        Stateless { upstreams }
    }
}

impl Handler for Stateless {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            match self.upstreams.decrement_ttl(&train.envelope) {
                Ok(ttl) => {
                    let outgoing = Outgoing {
                        train,
                        index,
                        batch,
                        ttl,
                    };
                    self.upstreams.pass_on(&outgoing, cx);
                }
                Err(reason) => cx.drop_run(index, train.datagrams(), reason),
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

impl Forwarding for Stateless {
    fn on_trouble(&mut self, socket: UpstreamSocketId, trouble: Trouble, cx: &mut Context<'_>) {
        if let Some(place) = self.upstreams.place_of(socket)
            && let Trouble::Reported(_) = trouble
        {
            self.upstreams.refused(place, cx.now());
        }
    }

    fn on_upstream_event(
        &mut self,
        upstream: UpstreamId,
        event: UpstreamEvent,
        _: &mut Context<'_>,
    ) {
        self.upstreams.apply(upstream, event);
    }

    fn on_time(&mut self, cx: &mut Context<'_>) {
        self.upstreams.pass_time(cx.now());
    }

    fn deadline(&self) -> Option<Time> {
        self.upstreams.deadline()
    }

    fn save(&self) -> SavedState {
        self.upstreams.save()
    }

    fn inherit(&mut self, saved: SavedState, cx: &mut Context<'_>) {
        self.upstreams.inherit(&saved);
        // A handler without sessions does not need the saved sockets of sessions, so it closes them.
        let legs = saved
            .sessions
            .iter()
            .flat_map(|session| &session.legs)
            .filter_map(|leg| leg.socket);
        legs.chain(saved.ports.iter().map(|saved| saved.port.socket))
            .for_each(|socket| cx.close(socket));
    }

    fn account(&self, _: &mut HandlerCount, upstreams: &mut [UpstreamCount]) {
        self.upstreams.account(upstreams);
    }
}
