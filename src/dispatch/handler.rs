//! The interface of handlers, and the context in which they run.
//!
//! A handler has no access to sockets, threads, clocks or file descriptors. It receives datagrams and produces
//! verdicts and outbox entries.

use std::collections::HashMap;
use std::net::SocketAddr;

pub use super::id::{HandlerId, UpstreamId};
use super::id::{LocalListener, UpstreamSocketId};
use super::ledger::{HandlerCount, UpstreamCount};
use super::outbox::{Outbox, Parcel, Reply};
use super::reply_policy::{ReplyFilter, ReplyPolicy};
use super::route_table::RouteId;
use super::saved_state::SavedState;
use super::sessions::page::SessionPage;
use super::sink::SinkCounts;
use super::time::Time;
use super::upstream_event::UpstreamEvent;
use super::verdict::{DropReason, Verdict};
use crate::datagram::{Datagram, Envelope, Span, Train};

/// Handles the datagrams of its routes.
pub trait Handler: Send {
    /// Handles a run of datagrams of one route. The handler reports drops by [`Context::verdict`], in the order of
    /// the datagrams. A datagram without a verdict counts as handled. [`Batch::for_each`] serves handlers that
    /// inspect each datagram.
    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>);

    /// Hands on the output that was gathered from one receive call. Returns `false` if something is kept. In that
    /// case the method is called again shortly afterwards, whether or not datagrams arrive.
    fn on_turn_end(&mut self) -> bool {
        true
    }

    /// Hands on all output that was kept. No further datagrams arrive.
    fn on_end(&mut self) {}

    /// Returns the counters of the handler's sink, if it has one. Datagrams that the handler reported as handled are
    /// in flight until the sink has written or lost them.
    fn sink_counts(&self) -> Option<SinkCounts> {
        None
    }

    /// Returns the methods of a handler with upstreams, or `None` for any other handler.
    fn forwarding(&self) -> Option<&dyn Forwarding> {
        None
    }

    /// Returns the methods of a handler with upstreams for mutable access, or `None` for any other handler.
    fn forwarding_mut(&mut self) -> Option<&mut dyn Forwarding> {
        None
    }
}

/// The further methods of a handler with upstreams.
pub trait Forwarding {
    /// Handles replies that an upstream sent to a socket that the handler has opened.
    fn on_reply(&mut self, socket: UpstreamSocketId, batch: &Batch<'_>, cx: &mut Context<'_>) {
        let _ = socket;
        cx.drop_run(0, batch.len(), DropReason::LateReply);
    }

    /// Handles an error on a socket that the handler has opened.
    fn on_trouble(&mut self, socket: UpstreamSocketId, trouble: Trouble, cx: &mut Context<'_>);

    /// Handles an event of one of the handler's upstreams.
    fn on_upstream_event(
        &mut self,
        upstream: UpstreamId,
        event: UpstreamEvent,
        cx: &mut Context<'_>,
    );

    /// Handles a timer: the moment that [`Forwarding::deadline`] returned has come.
    fn on_time(&mut self, cx: &mut Context<'_>);

    /// Returns when [`Forwarding::on_time`] must be called, or `None` if it need not be called.
    fn deadline(&self) -> Option<Time>;

    /// Returns whether replies of upstreams are outstanding. A worker waits a moment for them before it ends.
    fn has_outstanding(&self) -> bool {
        false
    }

    /// Adds the counters that the handler keeps itself to its row and to the rows of its upstreams.
    fn account(&self, handler: &mut HandlerCount, upstreams: &mut [UpstreamCount]);

    /// Returns the state for the handler that replaces this one. This handler may also continue afterwards.
    fn save(&self) -> SavedState;

    /// Continues from the state that the replaced handler saved. The method is called before the first datagram, once
    /// for each handler that saved state. It closes the sockets that it cannot use.
    fn inherit(&mut self, saved: SavedState, cx: &mut Context<'_>);

    /// Adds sessions to the page, starting at the place `from` of the handler's table, until the page is full.
    /// `handler` is the handler's own number. Returns the place to continue at, or `None` after the last session.
    fn list_sessions(&self, handler: HandlerId, from: u32, page: &mut SessionPage) -> Option<u32> {
        let _ = (handler, from, page);
        None
    }
}

/// An error on a socket towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// An ICMP error reported that a datagram sent on the socket was lost. The value is the errno of the error.
    Reported(i32),
    /// The socket cannot send any more, because the address that it sends from has been removed.
    Broken,
}

/// Opens and closes sockets towards upstreams while the handlers run. A worker has real sockets; tests and `explain`
/// have numbers only.
pub trait SocketTable {
    /// Opens a socket to the upstream. Its replies go to the handler that owns the upstream.
    ///
    /// # Errors
    ///
    /// Returns [`DropReason::NoPort`] or another reason to drop the datagram if no socket can be opened.
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason>;

    /// Closes a socket. Parcels that were queued on it this turn are still sent.
    fn close(&mut self, socket: UpstreamSocketId);

    /// Returns the upstream that a socket leads to, if it is known.
    fn upstream(&self, socket: UpstreamSocketId) -> Option<UpstreamId> {
        let _ = socket;
        None
    }

    /// Discards the datagrams that are queued on a socket that has left quarantine. They were meant for the previous
    /// session on the socket.
    fn discard_queue(&mut self, socket: UpstreamSocketId, now: Time) {
        let _ = (socket, now);
    }
}

/// The socket table of tests and benchmarks in which no handler opens sockets while it runs. Its methods panic, so
/// that a handler that does so fails its test.
#[cfg(any(test, feature = "internals"))]
#[derive(Debug)]
pub struct NoSockets;

#[cfg(any(test, feature = "internals"))]
impl SocketTable for NoSockets {
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        panic!("a socket to {upstream:?} is opened")
    }

    fn close(&mut self, socket: UpstreamSocketId) {
        panic!("{socket:?} is closed")
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
    /// Creates a batch of trains whose spans point into `arena`.
    pub fn new(trains: &'a [Train], arena: &'a [u8]) -> Batch<'a> {
        Batch {
            trains,
            arena,
            len: trains.iter().map(Train::datagrams).sum(),
        }
    }

    /// Returns the number of datagrams.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns whether the batch holds no datagram.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the trains, for handlers that pass them on whole.
    pub fn trains(&self) -> &'a [Train] {
        self.trains
    }

    /// Returns the buffer that the spans point into.
    pub(super) fn arena(&self) -> &'a [u8] {
        self.arena
    }

    /// Returns the bytes of a train or of one of its datagrams.
    ///
    /// # Panics
    ///
    /// Panics if the span does not lie within the arena.
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        &self.arena[span.offset as usize..][..span.len as usize]
    }

    /// Calls `handle` for each datagram and records its verdicts.
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

    /// Returns the datagrams one by one.
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
        self.trains.iter().flat_map(Train::pieces).map(datagram)
    }
}

/// Names for the numbers in envelopes and records. The control plane builds them once for all workers.
#[derive(Debug, Default)]
pub struct Names {
    /// The labels of the routes, by route number.
    pub routes: Vec<String>,
    /// The names of the interfaces, by interface index.
    pub interfaces: HashMap<u32, String>,
    /// The labels of the listeners, by listener number.
    pub listeners: Vec<String>,
    /// The names of the handlers, by handler number.
    pub handlers: Vec<String>,
    /// The upstreams as the configuration file writes them, by upstream number.
    pub upstreams: Vec<String>,
}

/// The dropped datagrams of one batch. Each entry holds the index of the datagram in the batch, in ascending order.
#[derive(Debug, Default)]
pub struct Drops(pub(super) Vec<(u32, DropReason)>);

impl Drops {
    /// Removes the datagrams that `others` does not hold, too. The reasons that remain are those of this list.
    pub(super) fn intersect(&mut self, others: &Drops) {
        self.0.retain(|(index, _)| {
            let found = others.0.binary_search_by_key(index, |(index, _)| *index);
            found.is_ok()
        });
    }
}

/// The path of an upstream's replies back to a client.
#[derive(Debug, Clone, Copy)]
pub struct ReplyPath {
    /// The listener that they leave through.
    pub listener: LocalListener,
    /// The client's address.
    pub to: SocketAddr,
    /// The address of this host that they leave from.
    pub from: SocketAddr,
    /// The index of the interface that the request arrived on; 0 if it is unknown.
    pub interface: u32,
}

/// Everything that a handler may use during a call.
pub struct Context<'a> {
    pub(super) outbox: &'a mut Outbox,
    pub(super) drops: &'a mut Drops,
    pub(super) reply_filter: &'a ReplyFilter,
    pub(super) names: &'a Names,
    pub(super) handler: HandlerId,
    pub(super) route: RouteId,
    pub(super) listener: LocalListener,
    pub(super) now: Time,
    /// The buffer that the spans of the trains point into.
    pub(super) arena: &'a [u8],
    pub(super) sockets: &'a mut dyn SocketTable,
}

impl Context<'_> {
    /// Records the verdict on the datagram at `index` of the batch. A datagram without a verdict counts as handled.
    pub fn verdict(&mut self, index: u32, verdict: Verdict) {
        if let Verdict::Dropped(reason) = verdict {
            // Each datagram has one verdict. A second one, or one out of order, would break the ledger, so it is
            // ignored.
            if self.drops.0.last().is_none_or(|last| last.0 < index) {
                self.drops.0.push((index, reason));
            } else {
                debug_assert!(
                    false,
                    "each datagram has one verdict, and verdicts come in order"
                );
            }
        }
    }

    /// Records that `datagrams` consecutive datagrams from `first` on were dropped for one reason.
    pub fn drop_run(&mut self, first: u32, datagrams: u32, reason: DropReason) {
        (first..first + datagrams).for_each(|index| self.verdict(index, Verdict::Dropped(reason)));
    }

    /// Sends the datagram's payload back to its source, unless the reply filter refuses.
    pub fn echo(&mut self, datagram: &Datagram<'_>, reply_policy: &ReplyPolicy) -> Verdict {
        match self.reply_filter.permit(&datagram.envelope, reply_policy) {
            Ok(ttl) => self.send_back(&datagram.envelope, datagram.span, ttl),
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Sends bytes that the handler made back to the datagram's source, unless the reply filter refuses.
    pub fn reply(
        &mut self,
        datagram: &Datagram<'_>,
        bytes: &[u8],
        reply_policy: &ReplyPolicy,
    ) -> Verdict {
        let permitted = self.reply_filter.permit(&datagram.envelope, reply_policy);
        match permitted.and_then(|ttl| Ok((ttl, self.outbox.keep(bytes)?))) {
            Ok((ttl, span)) => self.send_back(&datagram.envelope, span, ttl),
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    #[inline]
    fn send_back(&mut self, envelope: &Envelope, span: Span, ttl: Option<u8>) -> Verdict {
        let parcel = Parcel {
            span,
            segment: 0,
            ttl,
        };
        let reply = Reply::to_source(envelope, parcel, self.handler);
        self.outbox.reply(self.listener, reply);
        Verdict::Handled
    }

    /// Passes a train on to an upstream, unchanged.
    pub fn forward(&mut self, socket: UpstreamSocketId, train: &Train, ttl: Option<u8>) {
        self.outbox.forward(socket, train, ttl, self.arena);
    }

    /// Passes a train of replies from an upstream back to a client.
    pub fn pass_back(&mut self, path: &ReplyPath, train: &Train, ttl: Option<u8>) {
        let parcel = Parcel {
            span: train.span,
            segment: train.segment,
            ttl,
        };
        self.outbox.pass_back(
            path.listener,
            train,
            Reply {
                parcel,
                to: path.to,
                from: path.from,
                interface: path.interface,
                handler: self.handler,
            },
        );
    }

    /// Copies bytes that the handler made, one part after the other. The copy is valid until it is sent.
    ///
    /// # Errors
    ///
    /// Returns [`DropReason::OutboxFull`] if the scratch space of this turn has no room for the bytes.
    pub fn keep_parts<const N: usize>(&mut self, parts: [&[u8]; N]) -> Result<Span, DropReason> {
        self.outbox.keep_parts(parts)
    }

    /// Passes a datagram on to an upstream with the source address of its sender.
    pub fn keep_source(&mut self, socket: UpstreamSocketId, datagram: &Train, ttl: Option<u8>) {
        self.outbox.keep_source(socket, datagram, ttl);
    }

    /// Opens a socket to one of the handler's upstreams.
    ///
    /// # Errors
    ///
    /// Returns the reason of `SocketTable::open` if no socket can be opened.
    pub fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        self.sockets.open(upstream)
    }

    /// Closes a socket that the handler has opened.
    pub fn close(&mut self, socket: UpstreamSocketId) {
        self.sockets.close(socket);
    }

    /// Discards the datagrams that are queued on a socket that has left quarantine, before it is used again.
    pub fn discard_queue(&mut self, socket: UpstreamSocketId) {
        self.sockets.discard_queue(socket, self.now);
    }

    /// Returns the TTL of a reply to the sender of `envelope`; `None` stands for the socket's default.
    ///
    /// # Errors
    ///
    /// Returns the reason if the reply filter or `reply_policy` forbids a reply, or if the TTL is used up.
    pub fn permit(
        &self,
        envelope: &Envelope,
        reply_policy: &ReplyPolicy,
    ) -> Result<Option<u8>, DropReason> {
        self.reply_filter.permit(envelope, reply_policy)
    }

    /// Returns the time of the current call.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns the listener that received the datagrams.
    pub fn listener(&self) -> LocalListener {
        self.listener
    }

    /// Returns the number of the datagrams' route.
    pub fn route_id(&self) -> RouteId {
        self.route
    }

    /// Returns the label of the datagrams' route, or an empty string if it is unknown.
    pub fn route(&self) -> &str {
        self.names
            .routes
            .get(self.route.index())
            .map_or("", String::as_str)
    }

    /// Returns the name of an interface, if it is known.
    pub fn interface(&self, index: u32) -> Option<&str> {
        self.names.interfaces.get(&index).map(String::as_str)
    }
}
