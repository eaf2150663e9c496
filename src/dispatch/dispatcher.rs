//! Takes what a listener received, finds each datagram's one route, gives runs of equal route to the handlers, and keeps
//! the ledger. Everything the data plane decides is decided here; the worker around it only moves bytes.

use std::sync::Arc;

use ipnet::IpNet;

use super::expectation::Expectations;
use super::handler::{
    Batch, Context, Drops, Forwarding, Handler, HandlerId, Names, SocketTable, Trouble,
};
use super::id::{LocalListener, UpstreamId};
use super::latency::LatencyProbe;
use super::ledger::Ledger;
use super::outbox::{Outbox, UpstreamSocketId};
use super::reply_policy::ReplyFilter;
use super::route_table::{PortTable, RouteId};
use super::saved_state::SavedState;
use super::sessions::page::{SessionCursor, SessionPage, Wanted};
use super::sink::SinkCounts;
use super::tap::{self, Direction, Taps};
use super::time::Time;
use super::timers::Timers;
use super::upstream_event::UpstreamEvent;
use super::verdict::DropReason;
use crate::datagram::Envelope;
use crate::number;

/// How a listener's datagrams find their route.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// All take the same one, found when the listener was planned.
    Fixed(RouteId),
    /// Each is looked up.
    Table(Arc<PortTable>),
}

/// Which of the copies that the kernel makes of a datagram to many is this listener's to handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// An exact address, or a broadcast address: whatever arrives is its own.
    All,
    /// A wildcard, or an exact address that may become a broadcast address: every worker's socket gets a copy of each
    /// broadcast. One of them handles those, unless the address has a listener of its own.
    Wildcard {
        /// Whether this socket is the one that handles broadcasts.
        owner: bool,
        /// Addresses that have a listener of their own on this port.
        claimed: Vec<std::net::IpAddr>,
    },
    /// A group, joined on one interface. IPv6 delivers other interfaces' datagrams too when anybody joined there
    /// (inet6_mc_check in net/ipv6/mcast.c compares no interface).
    Group {
        /// Index of the interface that it was joined on.
        interface: u32,
        /// Other interfaces on which the group has a listener of its own on this port.
        elsewhere: Vec<u32>,
    },
}

/// A listener as the dispatcher knows it.
#[derive(Debug, Clone)]
pub struct ListenerRouting {
    /// Its number in the ledger.
    pub id: usize,
    /// How its datagrams find their route.
    pub lookup: Lookup,
    /// Which copies are its own.
    pub claim: Claim,
}

/// The route of what comes from no route.
const NOWHERE: RouteId = RouteId(u32::MAX);

/// The decisions of one worker.
pub struct Dispatcher {
    listeners: Vec<ListenerRouting>,
    /// The handlers of each route, by route number.
    routes: Vec<Vec<HandlerId>>,
    /// Whom a route must not stop hearing from, by route number; empty where no route expects anybody.
    expectations: Vec<Option<Expectations>>,
    handlers: Vec<Box<dyn Handler>>,
    reply_filter: Arc<ReplyFilter>,
    names: Arc<Names>,
    /// The time of what happens now.
    now: Time,
    outbox: Outbox,
    ledger: Ledger,
    drops: Drops,
    /// Of a route with several handlers: what all handlers so far have dropped.
    common: Drops,
    /// Handlers that got something this turn, or kept something; a handful, so a list is quicker than a set.
    touched: Vec<HandlerId>,
    timers: Timers,
    taps: Taps,
    /// What was handled this turn and when the kernel had received it; `None` where nobody asks how long that takes.
    latency: Option<LatencyProbe>,
}

impl Dispatcher {
    /// `listener_total` and `upstream_total` are their numbers in the whole configuration.
    pub fn new(
        listeners: Vec<ListenerRouting>,
        routes: Vec<Vec<HandlerId>>,
        handlers: Vec<Box<dyn Handler>>,
        reply_filter: Arc<ReplyFilter>,
        names: Arc<Names>,
        listener_total: usize,
        upstream_total: usize,
    ) -> Dispatcher {
        let ledger = Ledger::new(listener_total, routes.len(), handlers.len(), upstream_total);
        let (drops, common) = (Drops::default(), Drops::default());
        let (outbox, touched) = (Outbox::default(), Vec::new());
        let timers = Timers::new(handlers.len());
        let taps = Taps::new(Arc::clone(&names));
        let (expectations, latency) = (Vec::new(), None);
        Dispatcher {
            listeners,
            routes,
            expectations,
            handlers,
            reply_filter,
            names,
            now: Time::default(),
            outbox,
            ledger,
            drops,
            common,
            touched,
            timers,
            taps,
            latency,
        }
    }

    /// Notes from now on when these prefixes of a route are heard.
    pub fn expect(&mut self, route: RouteId, prefixes: &[IpNet]) {
        self.expectations.resize(self.routes.len(), None);
        self.expectations[route.0 as usize] = Some(Expectations::new(prefixes));
    }

    /// Has the time that datagrams spend here measured, by the times at which the kernel received them.
    pub fn measure_latency(&mut self) {
        self.latency = Some(LatencyProbe::default());
        self.ledger.latency = Some(Box::default());
    }

    /// Whether the worker should say what time of day it is: [`Taps::begin_turn`], [`Dispatcher::settle_latency`].
    #[inline]
    pub fn is_measured(&self) -> bool {
        self.latency.is_some()
    }

    /// What this turn handled has left, at this time of day in nanoseconds since 1970.
    pub fn settle_latency(&mut self, now_ns: u64) {
        if let (Some(latency), Some(histogram)) = (&mut self.latency, &mut self.ledger.latency) {
            latency.settle(now_ns, histogram);
        }
    }

    /// Who looks on.
    #[inline]
    pub fn taps(&mut self) -> &mut Taps {
        &mut self.taps
    }

    /// Dispatches what one receive call of a listener got. The outbox then holds spans of `arena`.
    pub fn dispatch(&mut self, listener: usize, batch: &Batch<'_>, sockets: &mut dyn SocketTable) {
        if let ListenerRouting {
            lookup: Lookup::Fixed(route),
            claim: Claim::All,
            ..
        } = self.listeners[listener]
        {
            return self.run(listener, route, batch, sockets);
        }
        let arena = batch.arena();
        let mut rest = batch.trains();
        while let Some(first) = rest.first() {
            let verdict = self.resolve(listener, &first.envelope);
            let same = rest.iter().skip(1).take_while(|train| {
                // A flow sends many: equal envelopes need no second search.
                train.envelope == rest[0].envelope
                    || self.resolve(listener, &train.envelope) == verdict
            });
            let (run, after) = rest.split_at(1 + same.count());
            match verdict {
                Ok(route) => self.run(listener, route, &Batch::new(run, arena), sockets),
                Err(reason) => self.refuse(listener, reason, &Batch::new(run, arena)),
            }
            rest = after;
        }
    }

    /// Sets the time of what the dispatcher is asked to do from now on.
    #[inline]
    pub fn set_time(&mut self, now: Time) {
        self.now = now;
    }

    /// Gives a handler what an upstream answered on a socket of its own.
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
            let (upstream, listeners) = (sockets.upstream(socket), &self.listeners);
            self.taps
                .take_reply(to, upstream, batch, &self.outbox, |listener| {
                    number::to_u32(listeners[listener.index()].id)
                });
        }
    }

    /// Tells a handler of trouble on a socket of its own.
    pub fn trouble(
        &mut self,
        to: HandlerId,
        socket: UpstreamSocketId,
        trouble: Trouble,
        sockets: &mut dyn SocketTable,
    ) {
        self.with_forwarding(to, sockets, |handler, cx| {
            handler.on_trouble(socket, trouble, cx)
        });
    }

    /// Tells a handler what is new about one of its upstreams.
    pub fn upstream_event(
        &mut self,
        to: HandlerId,
        upstream: UpstreamId,
        event: UpstreamEvent,
        sockets: &mut dyn SocketTable,
    ) {
        self.with_forwarding(to, sockets, |handler, cx| {
            handler.on_upstream_event(upstream, event, cx)
        });
    }

    /// What each handler leaves to its successor, by number.
    pub fn save(&self) -> Vec<SavedState> {
        self.handlers
            .iter()
            .map(|handler| {
                let forwarding = handler.forwarding();
                forwarding.map(|one| one.save()).unwrap_or_default()
            })
            .collect()
    }

    /// Gives a handler what its predecessor has left.
    pub fn inherit(&mut self, to: HandlerId, saved: SavedState, sockets: &mut dyn SocketTable) {
        self.with_forwarding(to, sockets, |handler, cx| handler.inherit(saved, cx));
    }

    /// Calls the handlers whose time has come.
    pub fn time(&mut self, sockets: &mut dyn SocketTable) {
        self.timers.first(&self.handlers);
        for handler in (0..self.handlers.len()).map(HandlerId::new) {
            if self.timers.is_due(handler, self.now) {
                self.with_forwarding(handler, sockets, |handler, cx| handler.on_time(cx));
            }
        }
        self.timers.settle(&self.handlers);
    }

    /// When [`Dispatcher::time`] should be called next.
    pub fn deadline(&mut self) -> Option<Time> {
        self.timers.first(&self.handlers)
    }

    /// Whether upstreams owe answers.
    pub fn has_outstanding(&self) -> bool {
        let mut forwarding = self.handlers.iter().filter_map(|one| one.forwarding());
        forwarding.any(Forwarding::has_outstanding)
    }

    /// Calls a handler for something other than its routes' datagrams.
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
            route: NOWHERE,
            listener: LocalListener(u32::MAX),
            now: self.now,
            arena: &[],
            sockets: &mut *sockets,
        };
        act(&mut *self.handlers[to.index()], &mut cx);
        self.timers.called(to);
    }

    /// Calls a handler with upstreams; the others have no sockets, upstreams or timers that anything could happen to.
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

    /// Counts datagrams that a receive call got and that nothing can be done with.
    pub fn refuse(&mut self, listener: usize, reason: DropReason, batch: &Batch<'_>) {
        let id = self.listeners[listener].id;
        self.ledger.listeners[id]
            .tally
            .refuse(u64::from(batch.len()), reason);
        if !self.taps.is_empty() {
            self.taps.take(received(id, Err(reason)), batch);
        }
    }

    /// Tells the handlers of this turn, and those that kept something, that it is over. Whether none keeps anything.
    pub fn end_turn(&mut self) -> bool {
        let handlers = &mut self.handlers;
        self.touched
            .retain(|handler| !handlers[handler.index()].on_turn_end());
        self.taps.end_turn() & self.touched.is_empty()
    }

    /// Tells all handlers that nothing comes any more.
    pub fn end(&mut self) {
        self.handlers
            .iter_mut()
            .for_each(|handler| handler.on_end());
        self.taps.end();
    }

    /// What the turn wants sent, and the accounts to write down how that went.
    pub fn sending(&mut self) -> (&mut Outbox, &mut Ledger) {
        (&mut self.outbox, &mut self.ledger)
    }

    /// The accounts of the listener.
    pub fn listener_count(&mut self, listener: usize) -> &mut super::ledger::ListenerCount {
        &mut self.ledger.listeners[self.listeners[listener].id]
    }

    /// A copy of all accounts, as of now.
    pub fn snapshot(&self) -> Ledger {
        let mut ledger = self.accounts();
        for (index, sink_counts) in self.sink_counts() {
            let (written, lost) = sink_counts.so_far();
            ledger.settle(index, written, lost);
        }
        ledger
    }

    /// The same, but whatever sinks have got counts as handled; their sink counts tell the rest.
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

    /// What the handlers' sinks still have to tell, by handler number.
    pub fn sink_counts(&self) -> Vec<(usize, SinkCounts)> {
        let numbered = self.handlers.iter().enumerate();
        numbered
            .filter_map(|(index, handler)| Some((index, handler.sink_counts()?)))
            .collect()
    }

    /// A page of the handlers' sessions.
    pub fn sessions(&self, wanted: &Wanted, now: Time) -> SessionPage {
        let mut page = SessionPage::new(wanted, now);
        let mut from = wanted.from;
        if let Some(only) = wanted.handler {
            from.handler = from.handler.max(only);
        }
        let is_wanted = |handler: &HandlerId| wanted.handler.is_none_or(|only| only == *handler);
        let last = number::to_u32(self.handlers.len());
        for handler in (from.handler.0..last).map(HandlerId).filter(is_wanted) {
            let first = if handler == from.handler {
                from.place
            } else {
                0
            };
            let forwarding = self.handlers[handler.index()].forwarding();
            let next = forwarding.and_then(|one| one.look_at_sessions(handler, first, &mut page));
            if let Some(place) = next {
                page.next = Some(SessionCursor { handler, place });
                break;
            }
        }
        page
    }

    fn resolve(&self, listener: usize, envelope: &Envelope) -> Result<RouteId, DropReason> {
        let listener = &self.listeners[listener];
        match &listener.claim {
            Claim::All => {}
            Claim::Wildcard { owner, claimed } => {
                if envelope.is_to_many() && (!owner || claimed.contains(&envelope.dst.ip())) {
                    return Err(DropReason::DuplicateCopy);
                }
            }
            Claim::Group { interface, .. } if envelope.interface == *interface => {}
            Claim::Group { elsewhere, .. } if elsewhere.contains(&envelope.interface) => {
                return Err(DropReason::DuplicateCopy);
            }
            // Somebody else on this host joined there: it is none of ours.
            Claim::Group { .. } => return Err(DropReason::NoRoute),
        }
        match &listener.lookup {
            Lookup::Fixed(route) => Ok(*route),
            Lookup::Table(table) => table.find(envelope).ok_or(DropReason::NoRoute),
        }
    }

    /// Gives a run to each handler of its route. The route has handled a datagram when at least one of them has.
    fn run(
        &mut self,
        listener: usize,
        route: RouteId,
        batch: &Batch<'_>,
        sockets: &mut dyn SocketTable,
    ) {
        if let Some(Some(expectations)) = self.expectations.get_mut(route.0 as usize) {
            expectations.note(batch.trains(), self.now);
        }
        self.common.0.clear();
        let is_tapped = !self.taps.is_empty();
        for (place, &handler) in self.routes[route.0 as usize].iter().enumerate() {
            self.drops.0.clear();
            let mut cx = Context {
                outbox: &mut self.outbox,
                drops: &mut self.drops,
                reply_filter: &self.reply_filter,
                names: &self.names,
                handler,
                route,
                listener: LocalListener::new(listener),
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
                let drops = &self.drops.0;
                self.common.0.retain(|dropped| {
                    drops
                        .binary_search_by_key(&dropped.0, |drop| drop.0)
                        .is_ok()
                });
            }
        }
        self.ledger.routes[route.0 as usize].batch(batch.len(), &self.common.0);
        self.ledger.listeners[self.listeners[listener].id]
            .tally
            .batch(batch.len(), &self.common.0);
        if is_tapped {
            self.taps.take(
                received(self.listeners[listener].id, Ok(Some(route))),
                batch,
            );
        }
        if let Some(latency) = &mut self.latency {
            latency.note(batch.trains(), &self.common.0);
        }
    }
}

/// What came in by a listener, for those who look on.
fn received(listener: usize, route: Result<Option<RouteId>, DropReason>) -> tap::TapSource {
    tap::TapSource {
        direction: Direction::Request,
        listener: Some(number::to_u32(listener)),
        route,
        upstream: None,
    }
}

#[cfg(test)]
mod tests;
