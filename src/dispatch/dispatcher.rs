//! Takes what a listener received, finds each datagram's one route, gives runs of equal route to the handlers, and keeps
//! the ledger. Everything the data plane decides is decided here; the worker around it only moves bytes.

use std::sync::Arc;

use ipnet::IpNet;

use super::change::Change;
use super::dues::Dues;
use super::expectation::Expectations;
use super::guard::Guard;
use super::handler::{Batch, Cx, Drops, Handler, HandlerId, Names, Scene, Trouble};
use super::id::{EarId, UpstreamId};
use super::ledger::Ledger;
use super::legacy::Legacy;
use super::outbox::{Lane, Outbox};
use super::route_table::{PortTable, RouteId};
use super::sessions::page::{Mark, Page, Wanted};
use super::sink::Fate;
use super::stay::Stay;
use super::tap::{self, Direction, Taps};
use super::time::Time;
use super::verdict::DropReason;
use crate::datagram::{Envelope, Train};
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
pub struct Ear {
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
    ears: Vec<Ear>,
    /// The handlers of each route, by route number.
    routes: Vec<Vec<HandlerId>>,
    /// Whom a route must not stop hearing from, by route number; empty where no route expects anybody.
    expectations: Vec<Option<Expectations>>,
    handlers: Vec<Box<dyn Handler>>,
    guard: Arc<Guard>,
    names: Arc<Names>,
    outbox: Outbox,
    ledger: Ledger,
    drops: Drops,
    /// Of a route with several handlers: what all handlers so far have dropped.
    common: Drops,
    /// Handlers that got something this turn, or kept something; a handful, so a list is quicker than a set.
    touched: Vec<HandlerId>,
    dues: Dues,
    taps: Taps,
    /// What was handled this turn and when the kernel had received it; `None` where nobody asks how long that takes.
    stay: Option<Stay>,
}

impl Dispatcher {
    /// `listeners` and `upstreams` are their numbers in the whole configuration.
    pub fn new(
        ears: Vec<Ear>,
        routes: Vec<Vec<HandlerId>>,
        handlers: Vec<Box<dyn Handler>>,
        guard: Arc<Guard>,
        names: Arc<Names>,
        listeners: usize,
        upstreams: usize,
    ) -> Dispatcher {
        let ledger = Ledger::new(listeners, routes.len(), handlers.len(), upstreams);
        let (drops, common) = (Drops::default(), Drops::default());
        let (outbox, touched) = (Outbox::default(), Vec::new());
        let dues = Dues::new(handlers.len());
        let taps = Taps::new(Arc::clone(&names));
        let (expectations, stay) = (Vec::new(), None);
        Dispatcher {
            ears,
            routes,
            expectations,
            handlers,
            guard,
            names,
            outbox,
            ledger,
            drops,
            common,
            touched,
            dues,
            taps,
            stay,
        }
    }

    /// Notes from now on when these prefixes of a route are heard.
    pub fn expect(&mut self, route: RouteId, prefixes: &[IpNet]) {
        self.expectations.resize(self.routes.len(), None);
        self.expectations[route.0 as usize] = Some(Expectations::new(prefixes));
    }

    /// Has the time that datagrams spend here measured, by the times at which the kernel received them.
    pub fn measure_stay(&mut self) {
        self.stay = Some(Stay::default());
        self.ledger.stay = Some(Box::default());
    }

    /// Whether the worker should say what time of day it is: [`Taps::begin_turn`], [`Dispatcher::settle_stay`].
    #[inline]
    pub fn is_measured(&self) -> bool {
        self.stay.is_some()
    }

    /// What this turn handled has left, at this time of day in nanoseconds since 1970.
    pub fn settle_stay(&mut self, now_ns: u64) {
        if let (Some(stay), Some(histogram)) = (&mut self.stay, &mut self.ledger.stay) {
            stay.settle(now_ns, histogram);
        }
    }

    /// Who looks on.
    #[inline]
    pub fn taps(&mut self) -> &mut Taps {
        &mut self.taps
    }

    /// Dispatches what one receive call of a listener got. The outbox then holds spans of `arena`.
    pub fn dispatch(&mut self, ear: usize, trains: &[Train], arena: &[u8], scene: &mut Scene<'_>) {
        if let Ear {
            lookup: Lookup::Fixed(route),
            claim: Claim::All,
            ..
        } = self.ears[ear]
        {
            return self.run(ear, route, &Batch::new(trains, arena), scene);
        }
        let mut rest = trains;
        while let Some(first) = rest.first() {
            let verdict = self.resolve(ear, &first.envelope);
            let same = rest.iter().skip(1).take_while(|train| {
                // A flow sends many: equal envelopes need no second search.
                train.envelope == rest[0].envelope || self.resolve(ear, &train.envelope) == verdict
            });
            let (run, after) = rest.split_at(1 + same.count());
            match verdict {
                Ok(route) => self.run(ear, route, &Batch::new(run, arena), scene),
                Err(reason) => self.refuse(ear, reason, &Batch::new(run, arena)),
            }
            rest = after;
        }
    }

    /// Gives a handler what an upstream answered on a lane of its own.
    pub fn reply(
        &mut self,
        to: HandlerId,
        lane: Lane,
        trains: &[Train],
        arena: &[u8],
        scene: &mut Scene<'_>,
    ) {
        let batch = Batch::new(trains, arena);
        self.with(to, scene, |handler, cx| handler.on_reply(lane, &batch, cx));
        self.ledger.handlers[to.index()]
            .replies
            .batch(batch.len(), &self.drops.0);
        if !self.taps.is_empty() {
            self.taps.note(to, &self.drops);
            let (upstream, ears) = (scene.lanes.upstream(lane), &self.ears);
            self.taps
                .take_answer(to, upstream, &batch, &self.outbox, |ear| {
                    number::to_u32(ears[ear.index()].id)
                });
        }
    }

    /// Tells a handler of trouble on a lane of its own.
    pub fn trouble(&mut self, to: HandlerId, lane: Lane, trouble: Trouble, scene: &mut Scene<'_>) {
        self.with(to, scene, |handler, cx| {
            handler.on_trouble(lane, trouble, cx)
        });
    }

    /// Tells a handler what is new about one of its upstreams.
    pub fn change(
        &mut self,
        to: HandlerId,
        upstream: UpstreamId,
        change: Change,
        scene: &mut Scene<'_>,
    ) {
        self.with(to, scene, |handler, cx| {
            handler.on_change(upstream, change, cx)
        });
    }

    /// What each handler leaves to its successor, by number.
    pub fn leave(&self) -> Vec<Legacy> {
        self.handlers
            .iter()
            .map(|handler| handler.leave())
            .collect()
    }

    /// Gives a handler what its predecessor has left.
    pub fn inherit(&mut self, to: HandlerId, legacy: Legacy, scene: &mut Scene<'_>) {
        self.with(to, scene, |handler, cx| handler.inherit(legacy, cx));
    }

    /// Calls the handlers whose time has come.
    pub fn time(&mut self, scene: &mut Scene<'_>) {
        self.dues.first(&self.handlers);
        for handler in (0..self.handlers.len()).map(HandlerId::new) {
            if self.dues.is_due(handler, scene.now) {
                self.with(handler, scene, |handler, cx| handler.on_time(cx));
            }
        }
        self.dues.settle(&self.handlers);
    }

    /// When [`Dispatcher::time`] should be called next.
    pub fn due(&mut self) -> Option<Time> {
        self.dues.first(&self.handlers)
    }

    /// Whether upstreams owe answers.
    pub fn is_owed(&self) -> bool {
        self.handlers.iter().any(|handler| handler.is_owed())
    }

    /// Calls a handler for something other than its routes' datagrams.
    fn with(
        &mut self,
        to: HandlerId,
        scene: &mut Scene<'_>,
        act: impl FnOnce(&mut dyn Handler, &mut Cx<'_>),
    ) {
        self.drops.0.clear();
        let mut cx = Cx {
            outbox: &mut self.outbox,
            drops: &mut self.drops,
            guard: &self.guard,
            names: &self.names,
            handler: to,
            route: NOWHERE,
            ear: EarId(u32::MAX),
            now: scene.now,
            arena: &[],
            lanes: &mut *scene.lanes,
        };
        act(&mut *self.handlers[to.index()], &mut cx);
        self.dues.called(to);
    }

    /// Counts datagrams that a receive call got and that nothing can be done with.
    pub fn refuse(&mut self, ear: usize, reason: DropReason, batch: &Batch<'_>) {
        let id = self.ears[ear].id;
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
    pub fn listener_count(&mut self, ear: usize) -> &mut super::ledger::ListenerCount {
        &mut self.ledger.listeners[self.ears[ear].id]
    }

    /// A copy of all accounts, as of now.
    pub fn snapshot(&self) -> Ledger {
        let mut ledger = self.accounts();
        for (index, fate) in self.fates() {
            let (written, lost) = fate.so_far();
            ledger.settle(index, written, lost);
        }
        ledger
    }

    /// The same, but whatever sinks have got counts as handled; their fates tell the rest.
    pub fn accounts(&self) -> Ledger {
        let mut ledger = self.ledger.clone();
        for (index, handler) in self.handlers.iter().enumerate() {
            handler.account(&mut ledger.handlers[index], &mut ledger.upstreams);
        }
        for (route, expectations) in self.expectations.iter().enumerate() {
            expectations
                .iter()
                .for_each(|expectations| ledger.hear(route, expectations.heard()));
        }
        ledger
    }

    /// What the handlers' sinks still have to tell, by handler number.
    pub fn fates(&self) -> Vec<(usize, Fate)> {
        let numbered = self.handlers.iter().enumerate();
        numbered
            .filter_map(|(index, handler)| Some((index, handler.fate()?)))
            .collect()
    }

    /// A page of the handlers' sessions.
    pub fn sessions(&self, wanted: &Wanted, now: Time) -> Page {
        let mut page = Page::new(wanted, now);
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
            let next = self.handlers[handler.index()].look_at_sessions(handler, first, &mut page);
            if let Some(place) = next {
                page.next = Some(Mark { handler, place });
                break;
            }
        }
        page
    }

    fn resolve(&self, ear: usize, envelope: &Envelope) -> Result<RouteId, DropReason> {
        let ear = &self.ears[ear];
        let found = || match &ear.lookup {
            Lookup::Fixed(route) => Ok(*route),
            Lookup::Table(table) => table.find(envelope).ok_or(DropReason::NoRoute),
        };
        match &ear.claim {
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
        found()
    }

    /// Gives a run to each handler of its route. The route has handled a datagram when at least one of them has.
    fn run(&mut self, ear: usize, route: RouteId, batch: &Batch<'_>, scene: &mut Scene<'_>) {
        if let Some(Some(expectations)) = self.expectations.get_mut(route.0 as usize) {
            expectations.note(batch.trains(), scene.now);
        }
        self.common.0.clear();
        let is_tapped = !self.taps.is_empty();
        for (place, &handler) in self.routes[route.0 as usize].iter().enumerate() {
            self.drops.0.clear();
            let mut cx = Cx {
                outbox: &mut self.outbox,
                drops: &mut self.drops,
                guard: &self.guard,
                names: &self.names,
                handler,
                route,
                ear: EarId::new(ear),
                now: scene.now,
                arena: batch.arena(),
                lanes: &mut *scene.lanes,
            };
            self.handlers[handler.index()].on_batch(batch, &mut cx);
            if !self.touched.contains(&handler) {
                self.touched.push(handler);
            }
            self.dues.called(handler);
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
        self.ledger.listeners[self.ears[ear].id]
            .tally
            .batch(batch.len(), &self.common.0);
        if is_tapped {
            self.taps
                .take(received(self.ears[ear].id, Ok(Some(route))), batch);
        }
        if let Some(stay) = &mut self.stay {
            stay.note(batch.trains(), &self.common.0);
        }
    }
}

/// What came in by a listener, for those who look on.
fn received(listener: usize, route: Result<Option<RouteId>, DropReason>) -> tap::Source {
    tap::Source {
        direction: Direction::Request,
        listener: Some(number::to_u32(listener)),
        route,
        upstream: None,
    }
}

#[cfg(test)]
mod tests;
