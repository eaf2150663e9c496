//! What the handlers stand on here: sockets without sockets that remember what is open, and a build context to build on.

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

/// What all workers have in common: source ports, and where upstreams are.
pub struct Ground {
    /// By upstream: its ports in use.
    used: Vec<usize>,
    ports: usize,
    failing: Option<usize>,
    random: Random,
    /// By upstream: whether somebody knows where it is.
    pub resolved: Vec<bool>,
    /// By upstream: its handler, and its place there.
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
        let (ports, failing) = (scenario.ports, scenario.failing);
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

/// A socket that is open.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub upstream: usize,
    /// Which of all sockets ever opened it is: numbers are used again.
    pub incarnation: u64,
    pub is_one_way: bool,
}

/// One worker's sockets.
pub struct Ways {
    pub ground: Rc<RefCell<Ground>>,
    pub slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Closed this turn; what is on them is still sent.
    pub closing: Vec<u32>,
    /// Openings of this turn, in order, by upstream.
    pub opened: Vec<(usize, Result<u32, DropReason>)>,
    incarnations: u64,
}

impl Ways {
    fn new(ground: Rc<RefCell<Ground>>) -> Ways {
        let (slots, free, closing, opened) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
        match self.free.pop() {
            Some(socket) => {
                assert!(self.slots[socket as usize].is_none());
                self.slots[socket as usize] = slot;
                socket
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        }
    }

    pub fn slot(&self, socket: u32) -> Option<Slot> {
        *self.slots.get(socket as usize)?
    }

    /// The turn is over: what was closed is gone now, and its number free.
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
                // What a socket may lack beside a port.
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

/// Builds a handler's part of a worker.
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

/// All workers of a scenario.
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
        let (reply_filter, names, doors) = (
            Arc::clone(&reply_filter),
            Arc::clone(&names),
            scenario.doors.len(),
        );
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
