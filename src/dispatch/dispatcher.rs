//! The dispatcher of a worker. It takes the datagrams that a listener received and finds the route of each. It passes
//! runs of datagrams with the same route to the handlers, and keeps the ledger. All decisions of the data plane are
//! made here. The worker around it only moves bytes.

use std::sync::Arc;

use ipnet::IpNet;

use super::expectation::Expectations;
use super::handler::{
    Batch, Context, Drops, Forwarding, Handler, HandlerId, Names, SocketTable, Trouble,
};
use super::id::{ListenerId, LocalListener, UpstreamId, UpstreamSocketId};
use super::latency::LatencyProbe;
use super::ledger::Ledger;
pub use super::listener_routing::{Claim, ListenerRouting, Lookup};
use super::outbox::Outbox;
use super::reply_policy::ReplyFilter;
use super::route_table::RouteId;
use super::saved_state::SavedState;
use super::sessions::page::{PageQuery, SessionCursor, SessionPage};
use super::sink::SinkCounts;
use super::tap::{self, Direction, TapSource, Taps};
use super::time::Time;
use super::timers::Timers;
use super::upstream_event::UpstreamEvent;
use super::verdict::DropReason;
use crate::number;

/// The route number in the context of calls that no received datagram has caused.
const NO_ROUTE: RouteId = RouteId(u32::MAX);

/// The dispatcher of one worker.
pub struct Dispatcher {
    listeners: Vec<ListenerRouting>,
    /// The handlers of each route, by route number.
    routes: Vec<Vec<HandlerId>>,
    /// The prefixes that each route expects datagrams from, by route number. Empty if no route expects any.
    expectations: Vec<Option<Expectations>>,
    handlers: Vec<Box<dyn Handler>>,
    reply_filter: Arc<ReplyFilter>,
    names: Arc<Names>,
    /// The time of the current call.
    now: Time,
    outbox: Outbox,
    ledger: Ledger,
    drops: Drops,
    /// The datagrams of the current run that every handler so far has dropped.
    common: Drops,
    /// The handlers that received datagrams this turn or kept output. There are few, so a list is faster than a set.
    touched: Vec<HandlerId>,
    timers: Timers,
    taps: Taps,
    /// The datagrams that this turn has handled, with their receive times. `None` if latency is not measured.
    latency: Option<LatencyProbe>,
}

/// The parts of a dispatcher.
pub struct DispatcherParts {
    /// The listeners of the worker, by local number.
    pub listeners: Vec<ListenerRouting>,
    /// The handlers of each route, by route number.
    pub routes: Vec<Vec<HandlerId>>,
    /// The handlers, by handler number.
    pub handlers: Vec<Box<dyn Handler>>,
    /// The addresses that no handler may reply to.
    pub reply_filter: Arc<ReplyFilter>,
    /// The names of routes, handlers and upstreams, for reports.
    pub names: Arc<Names>,
    /// The number of listeners in the whole configuration.
    pub listener_total: usize,
    /// The number of upstreams in the whole configuration.
    pub upstream_total: usize,
}

impl Dispatcher {
    /// Creates a dispatcher with an empty ledger.
    pub fn new(parts: DispatcherParts) -> Dispatcher {
        let DispatcherParts {
            listeners,
            routes,
            handlers,
            reply_filter,
            names,
            listener_total,
            upstream_total,
        } = parts;
        Dispatcher {
            expectations: Vec::new(),
            now: Time::default(),
            outbox: Outbox::default(),
            ledger: Ledger::new(listener_total, routes.len(), handlers.len(), upstream_total),
            drops: Drops::default(),
            common: Drops::default(),
            touched: Vec::new(),
            timers: Timers::new(handlers.len()),
            taps: Taps::new(Arc::clone(&names)),
            latency: None,
            listeners,
            routes,
            handlers,
            reply_filter,
            names,
        }
    }

    /// Starts to record when each of these prefixes of a route was last seen.
    ///
    /// # Panics
    ///
    /// Panics if `route` is not a route of this dispatcher.
    pub fn expect(&mut self, route: RouteId, prefixes: &[IpNet]) {
        self.expectations.resize(self.routes.len(), None);
        self.expectations[route.index()] = Some(Expectations::new(prefixes));
    }

    /// Enables the measurement of latency, which starts at the times at which the kernel received the datagrams.
    pub fn measure_latency(&mut self) {
        self.latency = Some(LatencyProbe::default());
        self.ledger.latency = Some(Box::default());
    }

    /// Returns whether the worker must supply the time of day to [`Taps::begin_turn`] and
    /// [`Dispatcher::settle_latency`].
    #[inline]
    pub fn is_measured(&self) -> bool {
        self.latency.is_some()
    }

    /// Records the latency of the datagrams that this turn has handled. The caller has flushed the outbox. `now_ns` is
    /// the time of day in nanoseconds since 1970.
    pub fn settle_latency(&mut self, now_ns: u64) {
        if let (Some(latency), Some(histogram)) = (&mut self.latency, &mut self.ledger.latency) {
            latency.settle(now_ns, histogram);
        }
    }

    /// Returns the taps of this worker.
    #[inline]
    pub fn taps(&mut self) -> &mut Taps {
        &mut self.taps
    }

    /// Dispatches the datagrams that one receive call of a listener returned. Afterwards, the outbox holds spans of the
    /// batch's arena.
    pub fn dispatch(
        &mut self,
        listener: LocalListener,
        batch: &Batch<'_>,
        sockets: &mut dyn SocketTable,
    ) {
        if let ListenerRouting {
            lookup: Lookup::Fixed(route),
            claim: Claim::All,
            ..
        } = self.listeners[listener.index()]
        {
            return self.run(listener, route, batch, sockets);
        }
        let arena = batch.arena();
        let mut rest = batch.trains();
        while let Some(first) = rest.first() {
            let verdict = self.listeners[listener.index()].resolve(&first.envelope);
            let same = rest.iter().skip(1).take_while(|train| {
                // A flow sends many datagrams: trains with equal envelopes need no second lookup.
                train.envelope == rest[0].envelope
                    || self.listeners[listener.index()].resolve(&train.envelope) == verdict
            });
            let (run, after) = rest.split_at(1 + same.count());
            match verdict {
                Ok(route) => self.run(listener, route, &Batch::new(run, arena), sockets),
                Err(reason) => self.refuse(listener, reason, &Batch::new(run, arena)),
            }
            rest = after;
        }
    }

    /// Sets the time of all calls that follow.
    #[inline]
    pub fn set_time(&mut self, now: Time) {
        self.now = now;
    }

    /// Gives a handler the replies that an upstream sent to one of the handler's sockets.
    pub fn reply(
        &mut self,
        to: HandlerId,
        socket: UpstreamSocketId,
        batch: &Batch<'_>,
        sockets: &mut dyn SocketTable,
    ) {
        self.with(to, sockets, |handler, cx| match handler.forwarding_mut() {
            Some(forwarding) => forwarding.on_reply(socket, batch, cx),
            None => cx.drop_run(0, batch.len(), DropReason::LateReply),
        });
        self.ledger.handlers[to.index()]
            .replies
            .batch(batch.len(), &self.drops.0);
        if !self.taps.is_empty() {
            self.taps.note(to, &self.drops);
            let passed = tap::passed_back(to, batch.trains(), &self.outbox);
            let source = TapSource {
                direction: Direction::Reply,
                listener: passed.map(|(local, _)| self.listeners[local.index()].id),
                route: Ok(None),
                upstream: sockets.upstream(socket),
            };
            let reply = passed.map(|(_, reply)| reply);
            self.taps.take_reply(source, batch, reply);
        }
    }

    /// Reports an error on one of a handler's sockets to the handler.
    pub fn trouble(
        &mut self,
        to: HandlerId,
        socket: UpstreamSocketId,
        trouble: Trouble,
        sockets: &mut dyn SocketTable,
    ) {
        self.with_forwarding(to, sockets, |handler, cx| {
            handler.on_trouble(socket, trouble, cx);
        });
    }

    /// Reports an event of one of a handler's upstreams to the handler.
    pub fn upstream_event(
        &mut self,
        to: HandlerId,
        upstream: UpstreamId,
        event: UpstreamEvent,
        sockets: &mut dyn SocketTable,
    ) {
        self.with_forwarding(to, sockets, |handler, cx| {
            handler.on_upstream_event(upstream, event, cx);
        });
    }

    /// Returns the state that each handler saves for its replacement, by handler number.
    pub fn save(&self) -> Vec<SavedState> {
        self.handlers
            .iter()
            .map(|handler| {
                let forwarding = handler.forwarding();
                forwarding.map(Forwarding::save).unwrap_or_default()
            })
            .collect()
    }

    /// Gives a handler the state that its predecessor saved.
    pub fn inherit(&mut self, to: HandlerId, saved: SavedState, sockets: &mut dyn SocketTable) {
        self.with_forwarding(to, sockets, |handler, cx| handler.inherit(saved, cx));
    }

    /// Calls the handlers whose deadline has passed.
    pub fn run_timers(&mut self, sockets: &mut dyn SocketTable) {
        self.timers.first(&self.handlers);
        for handler in (0..self.handlers.len()).map(HandlerId::new) {
            if self.timers.is_due(handler, self.now) {
                self.with_forwarding(handler, sockets, |handler, cx| handler.on_time(cx));
            }
        }
        self.timers.settle(&self.handlers);
    }

    /// Returns when [`Dispatcher::run_timers`] must be called next, or `None` if no handler has a deadline.
    pub fn deadline(&mut self) -> Option<Time> {
        self.timers.first(&self.handlers)
    }

    /// Returns whether replies of upstreams are outstanding.
    pub fn has_outstanding(&self) -> bool {
        let mut forwarding = self.handlers.iter().filter_map(|one| one.forwarding());
        forwarding.any(Forwarding::has_outstanding)
    }

    /// Calls a handler outside of a run of its routes' datagrams.
    fn with(
        &mut self,
        to: HandlerId,
        sockets: &mut dyn SocketTable,
        act: impl FnOnce(&mut dyn Handler, &mut Context<'_>),
    ) {
        self.drops.0.clear();
        let mut cx = Context {
            outbox: &mut self.outbox,
            drops: &mut self.drops,
            reply_filter: &self.reply_filter,
            names: &self.names,
            handler: to,
            route: NO_ROUTE,
            listener: LocalListener::NONE,
            now: self.now,
            arena: &[],
            sockets: &mut *sockets,
        };
        act(&mut *self.handlers[to.index()], &mut cx);
        self.timers.called(to);
    }

    /// Calls a handler with upstreams. Other handlers have no sockets, upstreams or timers, so the call has no effect
    /// on them.
    fn with_forwarding(
        &mut self,
        to: HandlerId,
        sockets: &mut dyn SocketTable,
        act: impl FnOnce(&mut dyn Forwarding, &mut Context<'_>),
    ) {
        self.with(to, sockets, |handler, cx| {
            if let Some(forwarding) = handler.forwarding_mut() {
                act(forwarding, cx);
            }
        });
    }

    /// Counts datagrams that a receive call returned and that cannot be dispatched.
    pub fn refuse(&mut self, listener: LocalListener, reason: DropReason, batch: &Batch<'_>) {
        let id = self.listeners[listener.index()].id;
        self.ledger.listeners[id.index()]
            .tally
            .refuse(u64::from(batch.len()), reason);
        if !self.taps.is_empty() {
            self.taps.take(received(id, Err(reason)), batch);
        }
    }

    /// Notifies the handlers of this turn, and those that kept output, that the turn is over. Returns `true` if no
    /// handler or tap keeps anything.
    pub fn end_turn(&mut self) -> bool {
        let handlers = &mut self.handlers;
        self.touched
            .retain(|handler| !handlers[handler.index()].on_turn_end());
        self.taps.end_turn() & self.touched.is_empty()
    }

    /// Notifies all handlers and taps that no further datagrams arrive.
    pub fn end(&mut self) {
        self.handlers
            .iter_mut()
            .for_each(|handler| handler.on_end());
        self.taps.end();
    }

    /// Returns the outbox with everything that the turn sends, and the ledger that records the result.
    pub fn sending(&mut self) -> (&mut Outbox, &mut Ledger) {
        (&mut self.outbox, &mut self.ledger)
    }

    /// Returns the counters of a listener.
    pub fn listener_count(&mut self, listener: LocalListener) -> &mut super::ledger::ListenerCount {
        &mut self.ledger.listeners[self.listeners[listener.index()].id.index()]
    }

    /// Returns a copy of all counters, with the datagrams that sinks hold counted as in flight.
    pub fn snapshot(&self) -> Ledger {
        let mut ledger = self.accounts();
        for (index, sink_counts) in self.sink_counts() {
            let (written, lost) = sink_counts.so_far();
            ledger.settle(index, written, lost);
        }
        ledger
    }

    /// Returns a copy of all counters, in which everything that a sink received counts as handled. The caller settles
    /// it with [`Dispatcher::sink_counts`].
    pub fn accounts(&self) -> Ledger {
        let mut ledger = self.ledger.clone();
        for (index, handler) in self.handlers.iter().enumerate() {
            if let Some(forwarding) = handler.forwarding() {
                forwarding.account(&mut ledger.handlers[index], &mut ledger.upstreams);
            }
        }
        for (route, expectations) in self.expectations.iter().enumerate() {
            expectations
                .iter()
                .for_each(|expectations| ledger.note_seen(route, expectations.last_seen()));
        }
        ledger
    }

    /// Returns the counters of the handlers' sinks, each with its handler number.
    pub fn sink_counts(&self) -> Vec<(usize, SinkCounts)> {
        let numbered = self.handlers.iter().enumerate();
        numbered
            .filter_map(|(index, handler)| Some((index, handler.sink_counts()?)))
            .collect()
    }

    /// Returns a page of the handlers' sessions, from the cursor in `query`.
    pub fn sessions(&self, query: &PageQuery, now: Time) -> SessionPage {
        let mut page = SessionPage::new(query, now);
        let mut from = query.from;
        if let Some(only) = query.handler {
            from.handler = from.handler.max(only);
        }
        let is_listed = |handler: &HandlerId| query.handler.is_none_or(|only| only == *handler);
        let last = number::to_u32(self.handlers.len());
        for handler in (from.handler.0..last).map(HandlerId).filter(is_listed) {
            let first = if handler == from.handler {
                from.place
            } else {
                0
            };
            let forwarding = self.handlers[handler.index()].forwarding();
            let next = forwarding.and_then(|one| one.list_sessions(handler, first, &mut page));
            if let Some(place) = next {
                page.next = Some(SessionCursor { handler, place });
                break;
            }
        }
        page
    }

    /// Gives a run to each handler of its route. The route has handled a datagram if at least one handler has.
    fn run(
        &mut self,
        listener: LocalListener,
        route: RouteId,
        batch: &Batch<'_>,
        sockets: &mut dyn SocketTable,
    ) {
        if let Some(Some(expectations)) = self.expectations.get_mut(route.index()) {
            expectations.note(batch.trains(), self.now);
        }
        self.common.0.clear();
        let is_tapped = !self.taps.is_empty();
        for (place, &handler) in self.routes[route.index()].iter().enumerate() {
            self.drops.0.clear();
            let mut cx = Context {
                outbox: &mut self.outbox,
                drops: &mut self.drops,
                reply_filter: &self.reply_filter,
                names: &self.names,
                handler,
                route,
                listener,
                now: self.now,
                arena: batch.arena(),
                sockets: &mut *sockets,
            };
            self.handlers[handler.index()].on_batch(batch, &mut cx);
            if !self.touched.contains(&handler) {
                self.touched.push(handler);
            }
            self.timers.called(handler);
            self.ledger.handlers[handler.index()]
                .tally
                .batch(batch.len(), &self.drops.0);
            if is_tapped {
                self.taps.note(handler, &self.drops);
            }
            if place == 0 {
                std::mem::swap(&mut self.common, &mut self.drops);
            } else {
                self.common.intersect(&self.drops);
            }
        }
        self.ledger.routes[route.index()].batch(batch.len(), &self.common.0);
        let id = self.listeners[listener.index()].id;
        self.ledger.listeners[id.index()]
            .tally
            .batch(batch.len(), &self.common.0);
        if is_tapped {
            self.taps.take(received(id, Ok(Some(route))), batch);
        }
        if let Some(latency) = &mut self.latency {
            latency.note(batch.trains(), &self.common.0);
        }
    }
}

/// Returns the origin of datagrams that a listener received, for the taps.
fn received(listener: ListenerId, route: Result<Option<RouteId>, DropReason>) -> TapSource {
    TapSource {
        direction: Direction::Request,
        listener: Some(listener),
        route,
        upstream: None,
    }
}

#[cfg(test)]
mod tests;
