//! Forwarding without a way back: each datagram for itself, or for all.

use super::common::Common;
use super::config::{Choice, Spread};
use crate::dispatch::change::Change;
use crate::dispatch::handler::{Batch, Cx, Forwarding, Handler, Trouble, UpstreamId};
use crate::dispatch::ledger::{HandlerCount, UpstreamCount};
use crate::dispatch::legacy::Legacy;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::time::Time;

/// The handler.
pub struct OneWay {
    common: Common,
}

impl OneWay {
    /// Of what every forwarder has.
    pub fn new(common: Common) -> OneWay {
        debug_assert!(
            common.settings.spread == Spread::Datagram || common.settings.choice == Choice::All
        );
        OneWay { common }
    }
}

impl Handler for OneWay {
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            let datagrams = train.datagrams();
            match self.common.damp(&train.envelope) {
                Ok(ttl) => self.common.pass_on(train, index, batch, ttl, cx),
                Err(reason) => cx.drop_run(index, datagrams, reason),
            }
            index += datagrams;
        }
    }

    fn forwarding(&self) -> Option<&dyn Forwarding> {
        Some(self)
    }

    fn forwarding_mut(&mut self) -> Option<&mut dyn Forwarding> {
        Some(self)
    }
}

impl Forwarding for OneWay {
    fn on_trouble(&mut self, socket: UpstreamSocketId, trouble: Trouble, cx: &mut Cx<'_>) {
        if let Some(place) = self.common.place_of(socket)
            && let Trouble::Reported(_) = trouble
        {
            self.common.refused(place, cx.now());
        }
    }

    fn on_change(&mut self, upstream: UpstreamId, change: Change, _: &mut Cx<'_>) {
        self.common.change(upstream, change);
    }

    fn on_time(&mut self, cx: &mut Cx<'_>) {
        self.common.pass_time(cx.now());
    }

    fn due(&self) -> Option<Time> {
        self.common.due()
    }

    fn leave(&self) -> Legacy {
        self.common.leave()
    }

    fn inherit(&mut self, legacy: Legacy, cx: &mut Cx<'_>) {
        self.common.inherit(&legacy);
        // What has no way back any more has no use for sessions and ports.
        let legs = legacy
            .sessions
            .iter()
            .flat_map(|session| &session.legs)
            .filter_map(|leg| leg.socket);
        legs.chain(legacy.ports.iter().map(|port| port.socket))
            .for_each(|socket| cx.close(socket));
    }

    fn account(&self, _: &mut HandlerCount, upstreams: &mut [UpstreamCount]) {
        self.common.account(upstreams);
    }
}
