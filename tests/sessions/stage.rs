//! The environment of the handlers in this simulation: sockets that only note what is open, and a build context.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use udispatch::config::kind::{BuildContext, BuildError, OpenedUpstream};
use udispatch::dispatch::dispatcher::{
    Claim, Dispatcher, DispatcherParts, ListenerRouting, Lookup,
};
use udispatch::dispatch::handler::{HandlerId, Names, SocketTable};
use udispatch::dispatch::id::{ListenerId, UpstreamId};
use udispatch::dispatch::outbox::UpstreamSocketId;
use udispatch::dispatch::random::Random;
use udispatch::dispatch::reply_policy::ReplyFilter;
use udispatch::dispatch::route_table::RouteId;
use udispatch::dispatch::sink::LineSink;
use udispatch::dispatch::verdict::DropReason;

use crate::scenario::{Scenario, once_in};

/// The state that all workers share: source ports, and the addresses of upstreams.
pub struct Ground {
    /// For each upstream, the number of its ports in use.
    used: Vec<usize>,
    ports: usize,
    failing: Option<usize>,
    random: Random,
    /// For each upstream, whether its address is known.
    pub resolved: Vec<bool>,
    /// For each upstream, its handler and its index there.
    pub owners: Vec<(usize, usize)>,
}

impl Ground {
    pub fn new(scenario: &Scenario, seed: u64) -> Ground {
        let of = |handler: usize| {
            (0..scenario.specs[handler].receivers.len()).map(move |place| (handler, place))
        };
        let owners: Vec<(usize, usize)> = (0..scenario.specs.len()).flat_map(of).collect();
        let resolved = owners
            .iter()
            .map(|(handler, place)| scenario.specs[*handler].receivers[*place].resolved);
        let ports = scenario.ports;
        let failing = scenario.failing;
        let resolved = resolved.collect();
        Ground {
            used: vec![0; owners.len()],
            ports,
            failing,
            random: Random::new(seed),
            resolved,
            owners,
        }
    }

    /// The number of an upstream.
    pub fn upstream(&self, handler: usize, place: usize) -> usize {
        self.owners
            .iter()
            .position(|owner| *owner == (handler, place))
            .expect("an upstream")
    }
}

/// An open socket.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub upstream: usize,
    /// The number of the socket among all that were ever opened, because slots are used again.
    pub incarnation: u64,
    pub is_one_way: bool,
}

/// The sockets of one worker.
pub struct Ways {
    pub ground: Rc<RefCell<Ground>>,
    pub slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Sockets that were closed in this turn. What is queued on them is still sent.
    pub closing: Vec<u32>,
    /// Attempts to open a socket in this turn, in order, with the upstream.
    pub opened: Vec<(usize, Result<u32, DropReason>)>,
    incarnations: u64,
}

impl Ways {
    fn new(ground: Rc<RefCell<Ground>>) -> Ways {
        let slots = Vec::new();
        let free = Vec::new();
        let closing = Vec::new();
        let opened = Vec::new();
        Ways {
            ground,
            slots,
            free,
            closing,
            opened,
            incarnations: 0,
        }
    }

    fn add(&mut self, upstream: usize, is_one_way: bool) -> u32 {
        self.incarnations += 1;
        let slot = Some(Slot {
            upstream,
            incarnation: self.incarnations,
            is_one_way,
        });
        if let Some(socket) = self.free.pop() {
            assert!(self.slots[socket as usize].is_none());
            self.slots[socket as usize] = slot;
            socket
        } else {
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        }
    }

    pub fn slot(&self, socket: u32) -> Option<Slot> {
        *self.slots.get(socket as usize)?
    }

    /// Ends the turn: closed sockets are removed, and their slots are free.
    pub fn settle(&mut self) {
        for socket in self.closing.drain(..) {
            let slot = self.slots[socket as usize]
                .take()
                .expect("a socket is closed once");
            self.ground.borrow_mut().used[slot.upstream] -= 1;
            self.free.push(socket);
        }
        self.opened.clear();
    }
}

impl SocketTable for Ways {
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        let upstream = upstream.index();
        let result = {
            let ground = &mut *self.ground.borrow_mut();
            let fails = ground
                .failing
                .is_some_and(|times| once_in(&mut ground.random, times));
            match ground {
                _ if !ground.resolved[upstream] => Err(DropReason::NoUpstream),
                _ if ground.used[upstream] == ground.ports => Err(DropReason::NoPort),
                // A reason other than the lack of a port.
                _ if fails && once_in(&mut ground.random, 3) => Err(DropReason::NoUpstream),
                _ if fails => Err(DropReason::NoPort),
                _ => {
                    ground.used[upstream] += 1;
                    Ok(())
                }
            }
        };
        let result = result.map(|()| self.add(upstream, false));
        self.opened.push((upstream, result));
        result.map(UpstreamSocketId)
    }

    fn close(&mut self, socket: UpstreamSocketId) {
        let slot = self.slot(socket.0);
        assert!(
            slot.is_some_and(|slot| !slot.is_one_way),
            "{socket:?} is closed: {slot:?}"
        );
        assert!(
            !self.closing.contains(&socket.0),
            "{socket:?} is closed twice"
        );
        self.closing.push(socket.0);
    }
}

/// One worker.
pub struct Worker {
    pub dispatcher: Dispatcher,
    pub ways: Ways,
}

/// Builds the part of a handler in a worker.
struct Bench<'a> {
    handler: usize,
    ways: &'a mut Ways,
    seed: u64,
}

impl BuildContext for Bench<'_> {
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError> {
        let upstream = self.ways.ground.borrow().upstream(self.handler, place);
        let address =
            self.ways.ground.borrow().resolved[upstream].then(|| ([203, 0, 113, 1], 53).into());
        Ok(OpenedUpstream {
            upstream: UpstreamId(upstream as u32),
            socket: UpstreamSocketId(self.ways.add(upstream, true)),
            address,
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        panic!("a forwarder prints nothing")
    }

    fn seed(&mut self) -> u64 {
        self.seed
    }
}

/// Builds all workers of a scenario.
pub fn build(scenario: &Scenario, ground: &Rc<RefCell<Ground>>) -> Vec<Worker> {
    let listeners = scenario
        .doors
        .iter()
        .flat_map(|door| [0, 1].map(|which| scenario.local(*door, which)));
    let reply_filter = Arc::new(ReplyFilter::new(listeners.collect::<Vec<_>>(), [], []));
    let names = Arc::new(Names::default());
    let upstreams = ground.borrow().owners.len();
    let build = |worker: usize| {
        let mut ways = Ways::new(Rc::clone(ground));
        let mut handlers = Vec::new();
        for (handler, named) in scenario.config.handlers.iter().enumerate() {
            let seed = (worker as u64) << 32 | handler as u64;
            handlers.push(
                named
                    .spec
                    .build(&mut Bench {
                        handler,
                        ways: &mut ways,
                        seed,
                    })
                    .expect("a handler"),
            );
        }
        let routings = scenario
            .doors
            .iter()
            .enumerate()
            .map(|(id, door)| ListenerRouting {
                id: ListenerId::new(id),
                lookup: Lookup::Fixed(RouteId(door.route as u32)),
                claim: Claim::All,
            });
        let ids = |handlers: &Vec<usize>| {
            handlers
                .iter()
                .map(|handler| HandlerId(*handler as u32))
                .collect()
        };
        let routes = scenario.routes.iter().map(ids).collect();
        let reply_filter = Arc::clone(&reply_filter);
        let names = Arc::clone(&names);
        let doors = scenario.doors.len();
        let dispatcher = Dispatcher::new(DispatcherParts {
            listeners: routings.collect(),
            routes,
            handlers,
            reply_filter,
            names,
            listener_total: doors,
            upstream_total: upstreams,
        });
        Worker { dispatcher, ways }
    };
    (0..scenario.workers).map(build).collect()
}
