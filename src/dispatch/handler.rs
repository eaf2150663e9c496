//! The verb: what a handler is, and the context it acts in.
//!
//! A handler sees no socket, thread, clock or file descriptor: datagrams come in, verdicts and outbox entries come out.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::change::Change;
use super::guard::{Answering, Guard};
use super::id::EarId;
pub use super::id::{HandlerId, UpstreamId};
use super::ledger::{HandlerCount, UpstreamCount};
use super::legacy::Legacy;
use super::outbox::{Lane, Outbox, Parcel, Reply};
use super::route_table::RouteId;
use super::sessions::page::Page;
use super::sink::Fate;
use super::time::Time;
use super::verdict::{DropReason, Verdict};
use crate::datagram::{Datagram, Envelope, Span, Train};
use crate::number;

/// Does something with each datagram of its routes.
pub trait Handler: Send {
    /// Handles one datagram and says what became of it.
    fn on_datagram(&mut self, datagram: &Datagram<'_>, cx: &mut Cx<'_>) -> Verdict;

    /// Handles a run of datagrams of one route. Provided; a handler that need not look at each datagram overrides it and
    /// reports the drops alone, by [`Cx::verdict`], in the order of the datagrams.
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        for (index, datagram) in batch.datagrams().enumerate() {
            let verdict = self.on_datagram(&datagram, cx);
            cx.verdict(number::to_u32(index), verdict);
        }
    }

    /// The batch of one receive call is over: hand on whatever was gathered. `false` if something is kept; then it is called
    /// again a moment later, whatever comes.
    fn on_turn_end(&mut self) -> bool {
        true
    }

    /// Nothing comes any more: hand on what was kept.
    fn on_end(&mut self) {}

    /// What an upstream answered on a lane that the handler has opened.
    fn on_reply(&mut self, lane: Lane, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        let _ = lane;
        cx.drop_run(0, batch.len(), DropReason::LateReply);
    }

    /// Something went wrong on a lane that the handler has opened.
    fn on_trouble(&mut self, lane: Lane, trouble: Trouble, cx: &mut Cx<'_>) {
        let _ = (lane, trouble, cx);
    }

    /// Something is new about one of its upstreams.
    fn on_change(&mut self, upstream: UpstreamId, change: Change, cx: &mut Cx<'_>) {
        let _ = (upstream, change, cx);
    }

    /// The moment that it named by [`Handler::due`] has come.
    fn on_time(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// When it wants to be called for the sake of time alone.
    fn due(&self) -> Option<Time> {
        None
    }

    /// Whether upstreams owe it answers: before a worker ends, it waits a moment for them.
    fn is_owed(&self) -> bool {
        false
    }

    /// Adds what it has counted itself to its account, and to those of its upstreams.
    fn account(&self, handler: &mut HandlerCount, upstreams: &mut [UpstreamCount]) {
        let _ = (handler, upstreams);
    }

    /// What it leaves to the handler that takes its place. It may go on afterwards as if nobody had asked.
    fn leave(&self) -> Legacy {
        Legacy::default()
    }

    /// Goes on with what the handler in whose place it is has left. Called before the first datagram, once for each that
    /// has left something; lanes that it has no use for are to be closed.
    fn inherit(&mut self, legacy: Legacy, cx: &mut Cx<'_>) {
        let _ = (legacy, cx);
    }

    /// Takes its sessions from a place on into the page, as far as that has room. The place to go on at; `None` when that was
    /// all. `handler` is its own number.
    fn look_at_sessions(&self, handler: HandlerId, from: u32, page: &mut Page) -> Option<u32> {
        let _ = (handler, from, page);
        None
    }

    /// For a handler with a sink: what becomes of the datagrams that it called handled. What the sink has neither taken nor
    /// lost is in flight.
    fn fate(&self) -> Option<Fate> {
        None
    }
}

/// What can go wrong on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Word came back that something sent there was lost (ICMP), with the errno that stands for it.
    Reported(i32),
    /// Nothing can be sent there any more: the address that it sends from is gone.
    Broken,
}

/// Opens and closes ways to upstreams while the handlers run: sockets in a worker, numbers elsewhere.
pub trait Lanes {
    /// A new lane to the upstream, whose answers come to the handler that owns the upstream.
    fn open(&mut self, upstream: UpstreamId) -> Result<Lane, DropReason>;

    /// Closes a lane; what was left on it this turn is still sent.
    fn close(&mut self, lane: Lane);

    /// The upstream that a lane leads to, where anybody knows.
    fn upstream(&self, lane: Lane) -> Option<UpstreamId> {
        let _ = lane;
        None
    }

    /// Throws away what a lane that has rested may still hold: it was meant for whoever had the lane before.
    fn wipe(&mut self, lane: Lane, now: Time) {
        let _ = (lane, now);
    }
}

/// Where and when handlers act.
pub struct Scene<'a> {
    /// The time.
    pub now: Time,
    /// The ways to upstreams.
    pub lanes: &'a mut dyn Lanes,
}

/// Consecutive datagrams of one route, as they lie in the arena.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    trains: &'a [Train],
    arena: &'a [u8],
    /// Where in the arena `arena` begins.
    base: u32,
    len: u32,
}

impl<'a> Batch<'a> {
    /// Trains whose spans point into `arena`.
    pub fn new(trains: &'a [Train], arena: &'a [u8]) -> Batch<'a> {
        Batch {
            trains,
            arena,
            base: 0,
            len: trains.iter().map(Train::datagrams).sum(),
        }
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

    /// What the spans point into.
    pub(super) fn arena(&self) -> &'a [u8] {
        self.arena
    }

    /// The bytes of a train, or of one of its datagrams.
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        let first = (span.offset - self.base) as usize;
        &self.arena[first..first + span.len as usize]
    }

    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'a>> + use<'a> {
        let batch = *self;
        let datagram = move |train: Train| {
            let Train { envelope, span, .. } = train;
            Datagram {
                payload: batch.bytes(span),
                envelope,
                span,
            }
        };
        self.trains
            .iter()
            .flat_map(move |train| train.pieces())
            .map(datagram)
    }
}

/// For a handler that works on batches: handles one datagram as a batch of one.
pub fn as_batch(handler: &mut impl Handler, datagram: &Datagram<'_>, cx: &mut Cx<'_>) -> Verdict {
    let Datagram {
        envelope,
        span,
        payload,
    } = *datagram;
    let trains = [Train {
        envelope,
        span,
        segment: 0,
    }];
    let batch = Batch {
        trains: &trains,
        arena: payload,
        base: span.offset,
        len: 1,
    };
    let others = std::mem::take(&mut cx.drops.0);
    handler.on_batch(&batch, cx);
    match std::mem::replace(&mut cx.drops.0, others).first() {
        Some((_, reason)) => Verdict::Dropped(*reason),
        None => Verdict::Handled,
    }
}

/// Names for the numbers that datagrams carry; made by control, the same for all workers.
#[derive(Debug, Default)]
pub struct Names {
    /// Labels of the routes, by number.
    pub routes: Vec<String>,
    /// Names of the interfaces, by index.
    pub interfaces: HashMap<u32, String>,
    /// Labels of the listeners, by number.
    pub listeners: Vec<String>,
    /// Names of the handlers, by number.
    pub handlers: Vec<String>,
    /// The upstreams as the file writes them, by number.
    pub upstreams: Vec<String>,
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
    pub(super) ear: EarId,
    pub(super) now: Time,
    /// What the trains' spans point into.
    pub(super) arena: &'a [u8],
    pub(super) lanes: &'a mut dyn Lanes,
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

    /// The same for so many datagrams in a row that were dropped for one reason.
    pub fn drop_run(&mut self, first: u32, datagrams: u32, reason: DropReason) {
        (first..first + datagrams).for_each(|index| self.verdict(index, Verdict::Dropped(reason)));
    }

    /// Sends the datagram's own payload back to its source, unless the guard refuses.
    pub fn echo(&mut self, datagram: &Datagram<'_>, answering: &Answering) -> Verdict {
        match self.guard.permit(&datagram.envelope, answering) {
            Ok(ttl) => {
                self.outbox.reply(
                    self.ear,
                    self.handler,
                    &datagram.envelope,
                    datagram.span,
                    ttl,
                );
                Verdict::Handled
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Sends bytes of the handler's own back to the datagram's source, unless the guard refuses.
    pub fn reply(
        &mut self,
        datagram: &Datagram<'_>,
        bytes: &[u8],
        answering: &Answering,
    ) -> Verdict {
        let permitted = self.guard.permit(&datagram.envelope, answering);
        match permitted.and_then(|ttl| Ok((ttl, self.outbox.keep(bytes)?))) {
            Ok((ttl, span)) => {
                self.outbox
                    .reply(self.ear, self.handler, &datagram.envelope, span, ttl);
                Verdict::Handled
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Passes a train on to an upstream, as it is.
    pub fn forward(&mut self, lane: Lane, train: &Train, ttl: Option<u8>) {
        self.outbox.forward(lane, train, ttl, self.arena);
    }

    /// Passes what an upstream answered back to a client.
    pub fn pass_back(
        &mut self,
        ear: EarId,
        train: &Train,
        to: SocketAddr,
        from: SocketAddr,
        interface: u32,
        ttl: Option<u8>,
    ) {
        let parcel = Parcel {
            span: train.span,
            segment: train.segment,
            ttl,
        };
        self.outbox.pass_back(
            ear,
            train,
            Reply {
                parcel,
                to,
                from,
                interface,
                handler: self.handler,
            },
        );
    }

    /// Copies bytes that the handler made, one part after the other, so that they outlive it until they are sent.
    pub fn keep_parts<const N: usize>(&mut self, parts: [&[u8]; N]) -> Result<Span, DropReason> {
        self.outbox.keep_parts(parts)
    }

    /// Passes a datagram on to an upstream as if it came from its sender.
    pub fn keep_source(&mut self, lane: Lane, datagram: &Train, ttl: Option<u8>) {
        self.outbox.keep_source(lane, datagram, ttl);
    }

    /// Opens a lane to one of the handler's upstreams.
    pub fn open(&mut self, upstream: UpstreamId) -> Result<Lane, DropReason> {
        self.lanes.open(upstream)
    }

    /// Closes a lane that the handler has opened.
    pub fn close(&mut self, lane: Lane) {
        self.lanes.close(lane);
    }

    /// Throws away what a lane that has rested may still hold, before it is used again.
    pub fn wipe(&mut self, lane: Lane) {
        self.lanes.wipe(lane, self.now);
    }

    /// Whether who sent this may be answered, and with which TTL.
    pub fn permit(
        &self,
        envelope: &Envelope,
        answering: &Answering,
    ) -> Result<Option<u8>, DropReason> {
        self.guard.permit(envelope, answering)
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The listener that the datagrams came in by.
    pub fn ear(&self) -> EarId {
        self.ear
    }

    /// The number of the route that brought the datagrams here.
    pub fn route_id(&self) -> RouteId {
        self.route
    }

    /// The label of the route that brought the datagram here.
    pub fn route(&self) -> &str {
        self.names
            .routes
            .get(self.route.0 as usize)
            .map_or("", String::as_str)
    }

    /// The name of an interface, where it is known.
    pub fn interface(&self, index: u32) -> Option<&str> {
        self.names.interfaces.get(&index).map(String::as_str)
    }
}
