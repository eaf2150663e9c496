//! The verb: what a handler is, and the context it acts in.
//!
//! A handler sees no socket, thread, clock or file descriptor: datagrams come in, verdicts and outbox entries come out.

use std::collections::HashMap;

use super::guard::{Answering, Guard};
pub use super::id::HandlerId;
use super::outbox::{Lane, Outbox};
use super::route_table::RouteId;
use super::verdict::{DropReason, Verdict};
use crate::datagram::{Datagram, Train};

/// Does something with each datagram of its routes.
pub trait Handler: Send {
    /// Handles one datagram and says what became of it.
    fn on_datagram(&mut self, datagram: &Datagram<'_>, cx: &mut Cx<'_>) -> Verdict;

    /// Handles a run of datagrams of one route. Provided; a handler that need not look at each datagram overrides it and
    /// reports the drops alone, by [`Cx::verdict`], in the order of the datagrams.
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        for (index, datagram) in batch.datagrams().enumerate() {
            let verdict = self.on_datagram(&datagram, cx);
            cx.verdict(index as u32, verdict);
        }
    }

    /// The batch of one receive call is over: hand on whatever was gathered. `false` if something is kept; then it is called
    /// again a moment later, whatever comes.
    fn on_turn_end(&mut self) -> bool {
        true
    }

    /// Nothing comes any more: hand on what was kept.
    fn on_end(&mut self) {}

    /// For a handler with a sink: how many of the datagrams that it called handled the sink has taken, and how many it
    /// has lost. The rest is in flight.
    fn fate(&self) -> Option<(u64, u64)> {
        None
    }
}

/// Consecutive datagrams of one route, as they lie in the arena.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    trains: &'a [Train],
    arena: &'a [u8],
    len: u32,
}

impl<'a> Batch<'a> {
    /// Trains whose spans point into `arena`.
    pub fn new(trains: &'a [Train], arena: &'a [u8]) -> Batch<'a> {
        Batch { trains, arena, len: trains.iter().map(Train::datagrams).sum() }
    }

    /// Number of datagrams.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The trains, for handlers that pass them on whole.
    pub fn trains(&self) -> &'a [Train] {
        self.trains
    }

    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'a>> + use<'a> {
        let arena = self.arena;
        self.trains.iter().flat_map(move |train| train.iter(arena))
    }
}

/// Names for the numbers that datagrams carry; made by control, the same for all workers.
#[derive(Debug, Default)]
pub struct Names {
    /// Labels of the routes, by number.
    pub routes: Vec<String>,
    /// Names of the interfaces, by index.
    pub interfaces: HashMap<u32, String>,
}

/// The drops of one batch, each with the datagram's place in it, ascending.
#[derive(Debug, Default)]
pub struct Drops(pub(super) Vec<(u32, DropReason)>);

/// What a handler may use while it handles.
pub struct Cx<'a> {
    pub(super) outbox: &'a mut Outbox,
    pub(super) drops: &'a mut Drops,
    pub(super) guard: &'a Guard,
    pub(super) names: &'a Names,
    pub(super) handler: HandlerId,
    pub(super) route: RouteId,
}

impl Cx<'_> {
    /// Records what became of the datagram at `index` of the batch. A datagram that nothing is said of is handled.
    pub fn verdict(&mut self, index: u32, verdict: Verdict) {
        if let Verdict::Dropped(reason) = verdict {
            // One verdict a datagram: a second one, or one out of order, would break the ledger, so it is not taken.
            if self.drops.0.last().is_none_or(|last| last.0 < index) {
                self.drops.0.push((index, reason));
            } else {
                debug_assert!(false, "verdicts come once a datagram and in order");
            }
        }
    }

    /// Sends the datagram's own payload back to its source, unless the guard refuses.
    pub fn echo(&mut self, datagram: &Datagram<'_>, answering: &Answering) -> Verdict {
        match self.guard.permit(&datagram.envelope, answering) {
            Ok(ttl) => {
                self.outbox.reply(self.handler, &datagram.envelope, datagram.span, ttl);
                Verdict::Handled
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Sends bytes of the handler's own back to the datagram's source, unless the guard refuses.
    pub fn reply(&mut self, datagram: &Datagram<'_>, bytes: &[u8], answering: &Answering) -> Verdict {
        let permitted = self.guard.permit(&datagram.envelope, answering);
        match permitted.and_then(|ttl| Ok((ttl, self.outbox.keep(bytes)?))) {
            Ok((ttl, span)) => {
                self.outbox.reply(self.handler, &datagram.envelope, span, ttl);
                Verdict::Handled
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Passes a train on to an upstream, as it is.
    pub fn forward(&mut self, lane: Lane, train: &Train, ttl: Option<u8>) {
        self.outbox.forward(lane, train, ttl);
    }

    /// The label of the route that brought the datagram here.
    pub fn route(&self) -> &str {
        self.names.routes.get(self.route.0 as usize).map_or("", String::as_str)
    }

    /// The name of an interface, where it is known.
    pub fn interface(&self, index: u32) -> Option<&str> {
        self.names.interfaces.get(&index).map(String::as_str)
    }
}
