//! The verb: what a handler is, and the context it acts in.
//!
//! A handler sees no socket, thread, clock or file descriptor: datagrams come in, verdicts and outbox entries come out.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::id::LocalListener;
pub use super::id::{HandlerId, UpstreamId};
use super::ledger::{HandlerCount, UpstreamCount};
use super::outbox::{Outbox, Parcel, Reply, UpstreamSocketId};
use super::reply_policy::{ReplyFilter, ReplyPolicy};
use super::route_table::RouteId;
use super::saved_state::SavedState;
use super::sessions::page::SessionPage;
use super::sink::SinkCounts;
use super::time::Time;
use super::upstream_event::UpstreamEvent;
use super::verdict::{DropReason, Verdict};
use crate::datagram::{Datagram, Envelope, Span, Train};

/// Does something with the datagrams of its routes.
pub trait Handler: Send {
    /// Handles a run of datagrams of one route. It reports the drops by [`Context::verdict`], in the order of the datagrams; a
    /// datagram without a verdict counts as handled. [`Batch::for_each`] serves handlers that look at each datagram.
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>);

    /// The batch of one receive call is over: hands on whatever was gathered. Returns `false` if something is kept; then it
    /// is called again a moment later, whether or not datagrams arrive.
    fn on_turn_end(&mut self) -> bool {
        true
    }

    /// No further datagrams arrive: hands on what was kept.
    fn on_end(&mut self) {}

    /// For a handler with a sink: what becomes of the datagrams that it called handled. Those that the sink has neither
    /// written nor lost are in flight.
    fn sink_counts(&self) -> Option<SinkCounts> {
        None
    }

    /// The further methods of a handler with upstreams.
    fn forwarding(&self) -> Option<&dyn Forwarding> {
        None
    }

    /// The further methods of a handler with upstreams, to change it.
    fn forwarding_mut(&mut self) -> Option<&mut dyn Forwarding> {
        None
    }
}

/// What a handler with upstreams does beside handling the datagrams of its routes.
pub trait Forwarding {
    /// What an upstream answered on a socket that the handler has opened.
    fn on_reply(&mut self, socket: UpstreamSocketId, batch: &Batch<'_>, cx: &mut Context<'_>) {
        let _ = socket;
        cx.drop_run(0, batch.len(), DropReason::LateReply);
    }

    /// Something went wrong on a socket that the handler has opened.
    fn on_trouble(&mut self, socket: UpstreamSocketId, trouble: Trouble, cx: &mut Context<'_>);

    /// Something is new about one of its upstreams.
    fn on_upstream_event(
        &mut self,
        upstream: UpstreamId,
        event: UpstreamEvent,
        cx: &mut Context<'_>,
    );

    /// The moment that it named by [`Forwarding::due`] has come.
    fn on_time(&mut self, cx: &mut Context<'_>);

    /// When it wants to be called for the sake of time alone.
    fn deadline(&self) -> Option<Time>;

    /// Whether upstreams owe it answers: before a worker ends, it waits a moment for them.
    fn has_outstanding(&self) -> bool {
        false
    }

    /// Adds what it has counted itself to its account, and to those of its upstreams.
    fn account(&self, handler: &mut HandlerCount, upstreams: &mut [UpstreamCount]);

    /// Returns what the handler that takes its place goes on with. It may go on itself afterwards.
    fn save(&self) -> SavedState;

    /// Goes on with what the handler in whose place it is has left. Called before the first datagram, once for each handler
    /// that has left something. It closes sockets that it has no use for.
    fn inherit(&mut self, saved: SavedState, cx: &mut Context<'_>);

    /// Adds its sessions from a place on to the page, as far as that has room. Returns the place to go on at, or `None` when
    /// that was all. `handler` is its own number.
    fn look_at_sessions(
        &self,
        handler: HandlerId,
        from: u32,
        page: &mut SessionPage,
    ) -> Option<u32> {
        let _ = (handler, from, page);
        None
    }
}

/// What can go wrong on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Word came back that something sent there was lost (ICMP), with the errno that stands for it.
    Reported(i32),
    /// Nothing can be sent there any more: the address that it sends from is gone.
    Broken,
}

/// Opens and closes ways to upstreams while the handlers run: sockets in a worker, numbers elsewhere.
pub trait SocketTable {
    /// A new socket to the upstream, whose answers come to the handler that owns the upstream.
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason>;

    /// Closes a socket; what was left on it this turn is still sent.
    fn close(&mut self, socket: UpstreamSocketId);

    /// The upstream that a socket leads to, where anybody knows.
    fn upstream(&self, socket: UpstreamSocketId) -> Option<UpstreamId> {
        let _ = socket;
        None
    }

    /// Throws away what a socket that has left quarantine may still hold: it was meant for whoever had the socket before.
    fn discard_queue(&mut self, socket: UpstreamSocketId, now: Time) {
        let _ = (socket, now);
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
        Batch {
            trains,
            arena,
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
        &self.arena[span.offset as usize..][..span.len as usize]
    }

    /// Has `handle` look at each datagram and reports its verdicts.
    pub fn for_each(
        &self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(&Datagram<'_>, &mut Context<'_>) -> Verdict,
    ) {
        for (index, datagram) in (0..).zip(self.datagrams()) {
            let verdict = handle(&datagram, cx);
            cx.verdict(index, verdict);
        }
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
pub struct Context<'a> {
    pub(super) outbox: &'a mut Outbox,
    pub(super) drops: &'a mut Drops,
    pub(super) reply_filter: &'a ReplyFilter,
    pub(super) names: &'a Names,
    pub(super) handler: HandlerId,
    pub(super) route: RouteId,
    pub(super) listener: LocalListener,
    pub(super) now: Time,
    /// What the trains' spans point into.
    pub(super) arena: &'a [u8],
    pub(super) sockets: &'a mut dyn SocketTable,
}

impl Context<'_> {
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

    /// Sends the datagram's own payload back to its source, unless the reply filter refuses.
    pub fn echo(&mut self, datagram: &Datagram<'_>, reply_policy: &ReplyPolicy) -> Verdict {
        match self.reply_filter.permit(&datagram.envelope, reply_policy) {
            Ok(ttl) => {
                self.outbox.reply(
                    self.listener,
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

    /// Sends bytes of the handler's own back to the datagram's source, unless the reply filter refuses.
    pub fn reply(
        &mut self,
        datagram: &Datagram<'_>,
        bytes: &[u8],
        reply_policy: &ReplyPolicy,
    ) -> Verdict {
        let permitted = self.reply_filter.permit(&datagram.envelope, reply_policy);
        match permitted.and_then(|ttl| Ok((ttl, self.outbox.keep(bytes)?))) {
            Ok((ttl, span)) => {
                self.outbox
                    .reply(self.listener, self.handler, &datagram.envelope, span, ttl);
                Verdict::Handled
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Passes a train on to an upstream, as it is.
    pub fn forward(&mut self, socket: UpstreamSocketId, train: &Train, ttl: Option<u8>) {
        self.outbox.forward(socket, train, ttl, self.arena);
    }

    /// Passes what an upstream answered back to a client.
    pub fn pass_back(
        &mut self,
        listener: LocalListener,
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
            listener,
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
    pub fn keep_source(&mut self, socket: UpstreamSocketId, datagram: &Train, ttl: Option<u8>) {
        self.outbox.keep_source(socket, datagram, ttl);
    }

    /// Opens a socket to one of the handler's upstreams.
    pub fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        self.sockets.open(upstream)
    }

    /// Closes a socket that the handler has opened.
    pub fn close(&mut self, socket: UpstreamSocketId) {
        self.sockets.close(socket);
    }

    /// Throws away what a socket that has left quarantine may still hold, before it is used again.
    pub fn discard_queue(&mut self, socket: UpstreamSocketId) {
        self.sockets.discard_queue(socket, self.now);
    }

    /// Whether who sent this may be answered, and with which TTL.
    pub fn permit(
        &self,
        envelope: &Envelope,
        reply_policy: &ReplyPolicy,
    ) -> Result<Option<u8>, DropReason> {
        self.reply_filter.permit(envelope, reply_policy)
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The listener that the datagrams came in by.
    pub fn listener(&self) -> LocalListener {
        self.listener
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
