//! Everything between two system calls, without a kernel. Random configurations pass through the parser and the plan
//! into the dispatchers of the workers. Random traffic is delivered to their sockets as Linux would. After each turn,
//! counters, verdicts, replies and forwarded datagrams are compared with a model.
//!
//! A failure prints its seed: `UDISPATCH_SEED=N cargo test --test simulation` repeats it. `UDISPATCH_SEEDS=N` sets the
//! number of seeds.

mod kernel;
mod model;
#[path = "../it/model/mod.rs"]
mod model_of_routes;
mod outbox;
#[path = "../it/common/seeds.rs"]
mod seeds;
mod witness;
mod world;

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, unbounded};
use udispatch::config::kind::{BuildContext, BuildError, OpenedUpstream};
use udispatch::datagram::Train;
use udispatch::dispatch::dispatcher::{Dispatcher, DispatcherParts, ListenerRouting};
use udispatch::dispatch::handler::{Batch, NoSockets};
use udispatch::dispatch::id::{ListenerId, LocalListener, UpstreamId};
use udispatch::dispatch::outbox::UpstreamSocketId;
use udispatch::dispatch::random::Random;
use udispatch::dispatch::sink::{Job, LineSink};
use udispatch::dispatch::verdict::DropReason;

use kernel::{Packet, SLOT_BYTES, SLOTS, Socket};
use model::{Model, Printer};
use outbox::Memory;
use seeds::{Where, seeds};
use world::{World, once_in, pick};

/// Number of seeds of an ordinary run, which takes about two seconds in a debug build.
const SEEDS: u64 = 100;
/// Number of bursts of traffic in one simulation.
const STEPS: usize = 30;
/// Number of bytes that payloads are copied from.
const NOISE_BYTES: usize = 2 * SLOT_BYTES;

/// Laws 1, 2 and 3, the reply policy, the outbox and its runs hold for random configurations and traffic.
#[test]
fn dispatch_keeps_its_laws() {
    let seeds = seeds(SEEDS);
    let mut covered = Covered::default();
    let mut arena = vec![0; SLOTS * SLOT_BYTES];
    for seed in seeds.clone() {
        Simulation::new(seed).run(&mut arena, &mut covered);
    }
    if seeds.end - seeds.start >= SEEDS {
        covered.check();
    }
}

/// Drop reasons of sessions and of the roles and limits of upstreams. The simulation of forwarding, `tests/sessions/`,
/// meets each of them.
const ELSEWHERE: [DropReason; 9] = [
    DropReason::SessionLimit,
    DropReason::SessionShare,
    DropReason::NoPort,
    DropReason::NoUpstream,
    DropReason::LateReply,
    DropReason::NotFirst,
    DropReason::Shadow,
    DropReason::SampledOut,
    DropReason::RateLimit,
];

/// The cases that the seeds together have met. A simulation that never meets a case proves nothing about it.
#[derive(Default)]
struct Covered {
    dropped: HashMap<DropReason, u64>,
    handled: u64,
    answers: u64,
    passed: u64,
    several_copies: u64,
    in_flight: u64,
}

impl Covered {
    fn check(&self) {
        for reason in DropReason::ALL
            .iter()
            .filter(|reason| !ELSEWHERE.contains(reason))
        {
            let count = self.dropped.get(reason).copied().unwrap_or(0);
            assert!(count > 0, "no seed leads to {reason:?}");
        }
        let others = [
            self.handled,
            self.answers,
            self.passed,
            self.several_copies,
            self.in_flight,
        ];
        assert!(
            others.iter().all(|count| *count > 100),
            "some of it hardly happens: {others:?}"
        );
    }
}

struct Worker {
    dispatcher: Dispatcher,
    model: Model,
    /// The handler of each socket.
    sockets: Vec<usize>,
}

struct Simulation {
    place: Where,
    random: Random,
    world: World,
    sockets: Vec<Socket>,
    workers: Vec<Worker>,
    memory: Memory,
    noise: Vec<u8>,
    /// For each packet sent: the copies that were delivered, and those that counted.
    copies: Vec<(Packet, usize, usize)>,
    put_in: Vec<u64>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let world = World::new(&mut random);
        let sockets = kernel::sockets(&world.plan);
        let workers = (0..world.plan.workers)
            .map(|worker| build(&world, &sockets, worker))
            .collect();
        let noise = (0..NOISE_BYTES / 8)
            .flat_map(|_| random.number().to_ne_bytes())
            .collect();
        Simulation {
            place: Where {
                seed,
                step: 0,
                text: shortened(&world.text),
            },
            put_in: vec![0; world.plan.listeners.len()],
            random,
            world,
            sockets,
            workers,
            memory: Memory::new(),
            noise,
            copies: Vec::new(),
        }
    }

    fn run(mut self, arena: &mut [u8], covered: &mut Covered) {
        for step in 0..STEPS {
            self.place.step = step;
            self.send();
            for _ in 0..=self.random.below(self.sockets.len()) {
                let socket = self.random.below(self.sockets.len());
                self.turn(socket, arena, covered);
            }
            self.consume();
        }
        for socket in 0..self.sockets.len() {
            while !self.sockets[socket].queue.is_empty() {
                self.turn(socket, arena, covered);
            }
        }
        self.check_laws(covered);
    }

    /// Sends some traffic.
    fn send(&mut self) {
        let mut before = None;
        for _ in 0..self.random.below(24) {
            let packet = kernel::packet(&mut self.random, self.copies.len(), before);
            let copies = kernel::deliver(&self.world, &mut self.sockets, &mut self.random, packet);
            self.copies.push((packet, copies, 0));
            before = Some(packet);
        }
    }

    /// One receive call of one socket, and everything that follows from it.
    fn turn(&mut self, index: usize, arena: &mut [u8], covered: &mut Covered) {
        let Simulation {
            world,
            random,
            sockets,
            workers,
            ..
        } = self;
        let count = sockets[index].queue.len().min(1 + random.below(SLOTS));
        let packets: Vec<Packet> = sockets[index].queue.drain(..count).collect();
        let socket = &sockets[index];
        let listener = LocalListener::new(socket.local_listener);
        let worker = &mut workers[socket.worker];
        let (mut trains, mut placed): (Vec<Train>, Vec<(Packet, u32)>) = Default::default();
        for (slot, packet) in packets.iter().enumerate() {
            let train = kernel::train(world, socket, packet, slot);
            self.put_in[socket.listener] += u64::from(train.datagrams());
            self.copies[packet.serial].2 +=
                usize::from(model::is_claimed(world, socket.worker, socket, packet));
            if once_in(random, 50) {
                let reason = *pick(random, &[DropReason::Truncated, DropReason::ControlLost]);
                worker
                    .dispatcher
                    .refuse(listener, reason, &Batch::new(&[train], arena));
                worker
                    .model
                    .refuse(socket.listener, reason, train.datagrams());
                continue;
            }
            let from = random.below(NOISE_BYTES - SLOT_BYTES);
            let len = packet.len as usize;
            arena[slot * SLOT_BYTES..][..len].copy_from_slice(&self.noise[from..from + len]);
            trains.push(train);
            placed.push((*packet, train.span.offset));
        }
        let expected = worker.model.turn(world, socket, &placed, arena);
        let batch = Batch::new(&trains, arena);
        worker.dispatcher.dispatch(listener, &batch, &mut NoSockets);
        worker.dispatcher.end_turn();
        let seen = witness::SEEN.with_borrow_mut(std::mem::take);
        assert_eq!(seen, expected.seen, "what the witnesses were given");
        let (outbox, _) = worker.dispatcher.sending();
        outbox::check(
            outbox,
            listener,
            arena,
            &expected,
            &worker.sockets,
            &mut self.memory,
            random,
        );
        outbox.clear();
        assert!(
            outbox.touched().is_empty() && outbox.replying().is_empty(),
            "an outbox is cleared"
        );
        worker.model.check(&worker.dispatcher.snapshot());
        covered.answers += expected.answers.len() as u64;
        covered.passed += expected.passed.len() as u64;
    }

    /// The consumers of the sinks make some progress.
    fn consume(&mut self) {
        for worker in &mut self.workers {
            for printer in worker.model.printers.iter_mut().flatten() {
                printer.consume(&mut self.random);
            }
            worker.model.check(&worker.dispatcher.snapshot());
        }
    }

    /// Over all workers, every datagram that was sent is in the ledger, and is counted once.
    fn check_laws(&self, covered: &mut Covered) {
        let mut sum = self.workers[0].dispatcher.snapshot();
        for worker in &self.workers[1..] {
            sum.add(&worker.dispatcher.snapshot());
        }
        assert!(sum.balances());
        for (number, count) in sum.listeners.iter().enumerate() {
            assert_eq!(
                count.tally.received, self.put_in[number],
                "what listener {number} received"
            );
            covered.handled += count.tally.handled;
        }
        let tallies = sum
            .listeners
            .iter()
            .map(|count| &count.tally)
            .chain(sum.handlers.iter().map(|count| &count.tally));
        for tally in tallies {
            covered.in_flight += tally.in_flight;
            for reason in DropReason::ALL {
                *covered.dropped.entry(*reason).or_default() += tally.dropped_for(*reason);
            }
        }
        for (packet, copies, counted) in &self.copies {
            covered.several_copies += u64::from(*copies > 1);
            // Only IPv6 delivers a group's datagram from an interface on which no socket has joined.
            let is_foreign = packet.dst.is_ipv6() && packet.dst.ip().is_multicast();
            let is_right = *counted == 1 || *copies == 0 || (is_foreign && *counted == 0);
            assert!(is_right, "{counted} of {copies} copies counted: {packet:?}");
        }
    }
}

/// The dispatcher of one worker, built as the daemon builds it.
fn build(world: &World, sockets: &[Socket], worker: usize) -> Worker {
    let routing = |socket: &Socket| {
        let planned = &world.plan.listeners[socket.listener];
        ListenerRouting {
            id: ListenerId::new(socket.listener),
            lookup: planned.lookup.clone(),
            claim: planned.claim(worker),
        }
    };
    let routings: Vec<ListenerRouting> = sockets
        .iter()
        .filter(|socket| socket.worker == worker)
        .map(routing)
        .collect();
    let mut bench = Bench {
        worker: worker as u64,
        handler: 0,
        sockets: Vec::new(),
        jobs: HashMap::new(),
    };
    let mut handlers = Vec::new();
    for (number, handler) in world.config.handlers.iter().enumerate() {
        bench.handler = number;
        handlers.push(handler.spec.build(&mut bench).expect("a handler"));
    }
    let routes = world
        .config
        .routes
        .iter()
        .map(|route| route.handlers.clone())
        .collect();
    let count = handlers.len();
    let dispatcher = Dispatcher::new(DispatcherParts {
        listeners: routings,
        routes,
        handlers,
        reply_filter: Arc::clone(&world.plan.reply_filter),
        names: Arc::clone(&world.plan.names),
        listener_total: world.plan.listeners.len(),
        upstream_total: bench.sockets.len(),
    });
    let printers = (0..count)
        .map(|handler| bench.jobs.remove(&handler).map(Printer::new))
        .collect();
    Worker {
        dispatcher,
        model: Model::new(world, worker, printers),
        sockets: bench.sockets,
    }
}

/// The environment of the handlers: sockets that are none, and consumers without threads.
struct Bench {
    worker: u64,
    handler: usize,
    sockets: Vec<usize>,
    jobs: HashMap<usize, Receiver<Job>>,
}

impl BuildContext for Bench {
    fn upstream(&mut self, _: usize) -> Result<OpenedUpstream, BuildError> {
        self.sockets.push(self.handler);
        let number = self.sockets.len() as u32 - 1;
        Ok(OpenedUpstream {
            upstream: UpstreamId(number),
            socket: UpstreamSocketId(number),
            address: Some(([203, 0, 113, 1], 53).into()),
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        let (sender, receiver) = unbounded();
        self.jobs.insert(self.handler, receiver);
        Ok(LineSink::new(sender))
    }

    fn seed(&mut self) -> u64 {
        self.worker << 32 | self.handler as u64
    }
}

/// A configuration with its long lines cut, for reading.
fn shortened(text: &str) -> String {
    text.lines()
        .map(|line| line.chars().take(160).collect::<String>() + "\n")
        .collect()
}
