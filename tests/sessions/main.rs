//! Forwarding with sessions, from the datagrams of the listener to the replies to clients, without a kernel. Random
//! forwarders pass through the parser into the dispatchers of the workers. Clients, upstreams and time are random.
//! After each step, every datagram that was sent, every socket and every counter is compared with a model of the rules
//! (`model/`).
//!
//! A failure prints its seed: `UDISPATCH_SEED=N cargo test --test sessions` repeats it. `UDISPATCH_SEEDS=N` sets the
//! number of seeds.

mod covered;
mod model;
mod scenario;
#[path = "../it/common/seeds.rs"]
mod seeds;
mod stage;
mod traffic;
mod witness;

use std::cell::RefCell;
use std::rc::Rc;

use udispatch::datagram::{Envelope, Region, Span, Train as Raw};
use udispatch::dispatch::handler::{Batch, HandlerId, Trouble};
use udispatch::dispatch::id::{LocalListener, UpstreamId};
use udispatch::dispatch::outbox::UpstreamSocketId;
use udispatch::dispatch::random::Random;
use udispatch::dispatch::time::Time;
use udispatch::dispatch::upstream_event::UpstreamEvent;

use covered::Covered;
use model::{Flight, Pass, Shared, Step, Talker, Train};
use scenario::{MS, SECOND, Scenario, once_in, pick};
use seeds::{Where, seeds};
use stage::{Ground, Worker};
use traffic::{Mood, Press, Request};

/// Number of seeds of an ordinary run, which takes some seconds in a debug build.
const SEEDS: u64 = 300;
/// Number of steps of one simulation.
const STEPS: usize = 160;
/// Largest number of replies on one socket in one turn.
const ANSWERS_MAX: usize = 8;
/// The errno ECONNREFUSED.
const REFUSED: i32 = 111;

/// Sessions, their sockets and ends, picks and replies follow the rules, with random forwarders, traffic and time.
#[test]
fn sessions_keep_their_promises() {
    let seeds = seeds(SEEDS);
    let mut covered = Covered::default();
    for seed in seeds.clone() {
        Simulation::new(seed).run(&mut covered);
    }
    if seeds.end - seeds.start >= SEEDS {
        covered.check();
    }
}

struct Simulation {
    place: Where,
    random: Random,
    scenario: Scenario,
    ground: Rc<RefCell<Ground>>,
    workers: Vec<Worker>,
    /// The models, by worker and handler.
    talkers: Vec<Vec<Talker>>,
    /// The state that workers share, by handler.
    shared: Vec<Shared>,
    press: Press,
    flights: Vec<Flight>,
    /// Refusals on their way: the time, the worker, the socket and its incarnation.
    refusals: Vec<(u64, usize, u32, u64)>,
    /// By upstream.
    moods: Vec<Mood>,
    now: u64,
    /// Sockets that were closed while it was unclear which session they belonged to, by worker and handler.
    met: Vec<&'static str>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        let ground = Rc::new(RefCell::new(Ground::new(&scenario, seed)));
        let workers = stage::build(&scenario, &ground);
        let owners = ground.borrow().owners.clone();
        let one_way = |handler: usize| {
            (0..)
                .zip(&owners)
                .filter(move |(_, owner)| owner.0 == handler)
                .map(|one| one.0)
        };
        let talker = |handler: usize| {
            Talker::new(
                handler,
                &scenario.specs[handler],
                one_way(handler).collect(),
            )
        };
        let talkers = workers
            .iter()
            .map(|_| (0..scenario.specs.len()).map(talker).collect())
            .collect();
        Simulation {
            place: Where {
                seed,
                step: 0,
                text: scenario.text.clone(),
            },
            talkers,
            shared: scenario.specs.iter().map(|_| Shared::default()).collect(),
            moods: owners.iter().map(|_| traffic::mood(&mut random)).collect(),
            random,
            scenario,
            ground,
            workers,
            press: Press::default(),
            flights: Vec::new(),
            refusals: Vec::new(),
            now: 0,
            met: Vec::new(),
        }
    }

    fn run(mut self, covered: &mut Covered) {
        for step in 0..STEPS {
            self.place.step = step;
            match self.random.below(100) {
                0..38 => self.burst(),
                38..62 => self.answers(),
                62..82 => self.pass_time(),
                82..89 => self.change(),
                89..94 => self.trouble(),
                94..99 => self.change_mood(),
                _ => self.flood(),
            }
        }
        let ledgers = self
            .workers
            .iter()
            .map(|worker| worker.dispatcher.snapshot());
        let sum = ledgers.reduce(|mut sum, ledger| {
            sum.add(&ledger);
            sum
        });
        covered.add(&sum.expect("a worker"), &self.met);
    }

    /// Some clients send requests.
    fn burst(&mut self) {
        let is_single = self.scenario.failing.is_some();
        let trains = if is_single {
            1
        } else {
            1 + self.random.below(4)
        };
        self.ask(trains, if is_single { 1 } else { 5 }, false);
    }

    /// Many datagrams come from forged sources.
    fn flood(&mut self) {
        let trains = 10 + self.random.below(40);
        if self.scenario.failing.is_some() {
            (0..trains).for_each(|_| self.ask(1, 1, true));
        } else {
            self.ask(trains, 1, true);
        }
    }

    fn ask(&mut self, trains: usize, datagrams_max: usize, is_forged: bool) {
        // Mostly it is one worker and one listener, so that clients come back.
        let usual = |random: &mut Random, of: usize| {
            if once_in(random, 2) {
                0
            } else {
                random.below(of)
            }
        };
        let worker = usual(&mut self.random, self.workers.len());
        let listener = usual(&mut self.random, self.scenario.doors.len());
        let door = self.scenario.doors[listener];
        let Simulation {
            press,
            random,
            scenario,
            ..
        } = self;
        let train = |_| press.train(random, scenario, door, datagrams_max, is_forged);
        let trains: Vec<Train> = (0..trains).map(train).collect();
        let envelope = |train: &Train| Envelope {
            src: train.src,
            dst: train.dst,
            local: train.local,
            interface: train.interface,
            ttl: Some(train.ttl),
            time_ns: None,
        };
        let (arena, raw) = lay_out(
            trains
                .iter()
                .map(|train| (envelope(train), train.payloads.as_slice())),
        );
        let Worker { dispatcher, ways } = &mut self.workers[worker];
        dispatcher.set_time(Time(self.now));
        dispatcher.dispatch(
            LocalListener::new(listener),
            &Batch::new(&raw, &arena),
            ways,
        );
        let (mut step, passed) = self.witness(worker, &arena);
        assert!(
            passed.is_empty(),
            "answers to what is still to be asked: {passed:?}"
        );
        let out = step.out.clone();
        for handler in self.scenario.routes[door.route].clone() {
            let talker = &mut self.talkers[worker][handler];
            let shared = &mut self.shared[handler];
            trains
                .iter()
                .for_each(|train| talker.request(train, door.route, listener, shared, &mut step));
        }
        for ((handler, number), sockets) in out {
            sockets
                .into_iter()
                .for_each(|(socket, place, _)| self.arrive(worker, handler, number, socket, place));
        }
        self.check(step, &[], &[]);
    }

    /// A request reaches an upstream.
    fn arrive(&mut self, worker: usize, handler: usize, number: u64, socket: u32, place: usize) {
        // A datagram on a socket that was closed in this turn was still sent, but its reply is not expected.
        let Some(slot) = self.workers[worker]
            .ways
            .slot(socket)
            .filter(|slot| !slot.is_one_way)
        else {
            return;
        };
        let mood = self.moods[slot.upstream];
        let talker = &self.talkers[worker][handler];
        let Some((at, _)) = talker.holder(socket) else {
            return;
        };
        let asker = talker.sessions[at].number;
        let key = talker.sessions[at].key;
        let incarnation = slot.incarnation;
        let is_shadow = talker.spec.receivers[place].shadow;
        let request = Request {
            worker,
            socket,
            incarnation,
            number,
            place,
            is_shadow,
            asker,
            key,
        };
        match mood {
            Mood::Silent => {}
            Mood::Refuses => self
                .refusals
                .push((self.now + MS, worker, socket, incarnation)),
            Mood::Answers(usual) => {
                self.flights.extend(traffic::answers(
                    &mut self.random,
                    &request,
                    usual,
                    self.now,
                ));
                self.flights.sort_by_key(|flight| flight.at);
            }
        }
    }

    /// A worker reads some of its sockets.
    fn answers(&mut self) {
        let mut worker = self.random.below(self.workers.len());
        if let Some(next) = self.flights.first().filter(|_| self.random.below(3) > 0) {
            worker = next.worker;
            self.wait_until(next.at);
        }
        let mut sockets: Vec<u32> = Vec::new();
        let arrived = self
            .flights
            .iter()
            .filter(|flight| flight.worker == worker && flight.at <= self.now);
        arrived.for_each(|flight| {
            sockets.extend((!sockets.contains(&flight.socket)).then_some(flight.socket));
        });
        sockets.truncate(1 + self.random.below(6));
        let mut batches: Vec<(u32, Vec<Vec<Flight>>)> = Vec::new();
        for socket in sockets {
            let incarnation = self.workers[worker]
                .ways
                .slot(socket)
                .map(|slot| slot.incarnation);
            let mut here = Vec::new();
            let mut rest = Vec::new();
            for flight in self.flights.drain(..) {
                let is_here =
                    (flight.worker, flight.socket) == (worker, socket) && flight.at <= self.now;
                if is_here && here.len() < ANSWERS_MAX {
                    here.push(flight);
                } else {
                    rest.push(flight);
                }
            }
            self.flights = rest;
            // A closed socket receives nothing.
            here.retain(|flight| Some(flight.incarnation) == incarnation);
            let mut trains: Vec<Vec<Flight>> = Vec::new();
            for flight in here {
                match trains.last_mut().filter(|_| once_in(&mut self.random, 2)) {
                    Some(train) => train.push(flight),
                    None => trains.push(vec![flight]),
                }
            }
            batches.extend((!trains.is_empty()).then_some((socket, trains)));
        }
        self.answer(worker, &batches);
    }

    fn answer(&mut self, worker: usize, batches: &[(u32, Vec<Vec<Flight>>)]) {
        let nowhere = "0.0.0.0:0".parse().expect("an address");
        let envelope = Envelope {
            src: nowhere,
            dst: nowhere,
            local: nowhere,
            interface: 0,
            ttl: None,
            time_ns: None,
        };
        let payloads =
            |train: &Vec<Flight>| train.iter().map(|flight| flight.payload.clone()).collect();
        let all: Vec<Vec<Vec<u8>>> = batches
            .iter()
            .flat_map(|(_, trains)| trains.iter().map(payloads))
            .collect();
        let (arena, raw) = lay_out(all.iter().map(|payloads| (envelope, payloads.as_slice())));
        let Worker { dispatcher, ways } = &mut self.workers[worker];
        let mut rest = &raw[..];
        for (socket, trains) in batches {
            let owner = ways.slot(*socket).expect("it is open").upstream;
            let handler = HandlerId(self.ground.borrow().owners[owner].0 as u32);
            let (these, others) = rest.split_at(trains.len());
            dispatcher.set_time(Time(self.now));
            dispatcher.reply(
                handler,
                UpstreamSocketId(*socket),
                &Batch::new(these, &arena),
                ways,
            );
            rest = others;
        }
        let owners: Vec<usize> = batches
            .iter()
            .map(|(socket, _)| self.owner(worker, *socket).0)
            .collect();
        let (mut step, passed) = self.witness(worker, &arena);
        let mut expected = Vec::new();
        for ((socket, trains), handler) in batches.iter().zip(owners) {
            for train in trains {
                let talker = &mut self.talkers[worker][handler];
                let shared = &mut self.shared[handler];
                expected.extend(talker.reply(*socket, train, shared, &mut step));
            }
        }
        self.check(step, &passed, &expected);
    }

    /// The handler that a socket belongs to, and the index of the socket's upstream there.
    fn owner(&self, worker: usize, socket: u32) -> (usize, usize) {
        let slot = self.workers[worker].ways.slot(socket).expect("it is open");
        self.ground.borrow().owners[slot.upstream]
    }

    fn pass_time(&mut self) {
        let units = [
            1_000,
            MS,
            10 * MS,
            100 * MS,
            100 * MS,
            SECOND,
            SECOND,
            10 * SECOND,
            60 * SECOND,
        ];
        let unit = pick(&mut self.random, &units[..self.scenario.pace]);
        let time = 1 + self.random.below(2 * unit as usize) as u64;
        self.wait_until(self.now + time);
    }

    fn wait_until(&mut self, target: u64) {
        let target = target.max(self.now);
        if self.scenario.is_punctual {
            while let Some((deadline, worker)) = (0..self.workers.len())
                .filter_map(|one| Some((self.deadline(one)?, one)))
                .min()
            {
                if deadline > target && !self.talkers.iter().flatten().any(Talker::is_unclear) {
                    break;
                }
                // It may take a moment until the worker reads its clock.
                let late = if once_in(&mut self.random, 4) {
                    self.random.below(5 * MS as usize) as u64
                } else {
                    0
                };
                self.now = self.now.max(deadline + late);
                self.call(worker);
            }
            self.now = self.now.max(target);
            return;
        }
        self.now = target;
        let worker = self.random.below(self.workers.len());
        while self.random.below(4) > 0
            && let Some(deadline) = self.deadline(worker)
            && deadline <= self.now
        {
            self.call(worker);
            while self.talkers[worker].iter().any(Talker::is_unclear) {
                self.now = self
                    .now
                    .max(self.deadline(worker).expect("there are sessions"));
                self.call(worker);
            }
        }
    }

    fn deadline(&mut self, worker: usize) -> Option<u64> {
        self.workers[worker]
            .dispatcher
            .deadline()
            .map(|deadline| deadline.0)
    }

    /// Calls the handlers of a worker if their timers are due.
    fn call(&mut self, worker: usize) {
        let Worker { dispatcher, ways } = &mut self.workers[worker];
        dispatcher.set_time(Time(self.now));
        dispatcher.run_timers(ways);
        assert!(
            dispatcher
                .deadline()
                .is_none_or(|deadline| deadline.0 > self.now),
            "called again at once, for nothing"
        );
        let (mut step, passed) = self.witness(worker, &[]);
        assert!(passed.is_empty(), "answers that nobody gave: {passed:?}");
        let ledger = self.workers[worker].dispatcher.snapshot();
        for (talker, shared) in self.talkers[worker].iter_mut().zip(&mut self.shared) {
            let found = &ledger.handlers[talker.handler].sessions;
            talker.pass_time(found, self.scenario.is_punctual, shared, &mut step);
        }
        self.check(step, &[], &[]);
    }

    /// The control plane reports an event of an upstream to all workers.
    fn change(&mut self) {
        let upstream = self.random.below(self.moods.len());
        let (handler, place) = self.ground.borrow().owners[upstream];
        let spec = &self.scenario.specs[handler];
        let is_needed = spec.is_delicate() && !spec.receivers[place].shadow;
        let change = match self.random.below(6) {
            0..4 if spec.probes => {
                UpstreamEvent::Alive(once_in(&mut self.random, self.scenario.hope))
            }
            0..5 if !is_needed => UpstreamEvent::Drain(once_in(&mut self.random, 3)),
            _ => UpstreamEvent::Moved("198.51.100.77:7".parse().expect("an address")),
        };
        for worker in 0..self.workers.len() {
            self.ground.borrow_mut().resolved[upstream] |=
                matches!(change, UpstreamEvent::Moved(_));
            let Worker { dispatcher, ways } = &mut self.workers[worker];
            dispatcher.set_time(Time(self.now));
            let to = HandlerId(handler as u32);
            dispatcher.upstream_event(to, UpstreamId(upstream as u32), change, ways);
            let (mut step, _) = self.witness(worker, &[]);
            let talker = &mut self.talkers[worker][handler];
            match change {
                UpstreamEvent::Alive(alive) => talker.set_alive(place, alive),
                UpstreamEvent::Drain(drain) => talker.set_drain(place, drain),
                UpstreamEvent::Moved(_) => talker.moved(place, &mut step),
            }
            self.check(step, &[], &[]);
        }
    }

    /// Refusals arrive, and sometimes a socket breaks.
    fn trouble(&mut self) {
        let now = self.now;
        let some = self.random.below(12);
        let (arrived, rest): (Vec<_>, Vec<_>) = self
            .refusals
            .drain(..)
            .partition(|refusal| refusal.0 <= now);
        self.refusals = rest;
        let mut troubles: Vec<(usize, u32, Trouble)> = Vec::new();
        for (_, worker, socket, incarnation) in arrived.into_iter().take(some) {
            let slot = self.workers[worker].ways.slot(socket);
            if slot.is_some_and(|slot| slot.incarnation == incarnation) {
                troubles.push((worker, socket, Trouble::Reported(REFUSED)));
            }
        }
        let worker = self.random.below(self.workers.len());
        let socket = self.random.below(self.workers[worker].ways.slots.len()) as u32;
        if self.workers[worker].ways.slot(socket).is_some() {
            let is_broken = once_in(&mut self.random, 2);
            troubles.push((
                worker,
                socket,
                if is_broken {
                    Trouble::Broken
                } else {
                    Trouble::Reported(REFUSED)
                },
            ));
        }
        for (worker, socket, trouble) in troubles {
            // A socket that an earlier error has closed gets no further one.
            if self.workers[worker].ways.slot(socket).is_some() {
                self.tell(worker, socket, trouble);
            }
        }
    }

    fn tell(&mut self, worker: usize, socket: u32, trouble: Trouble) {
        let (handler, place) = self.owner(worker, socket);
        let Worker { dispatcher, ways } = &mut self.workers[worker];
        dispatcher.set_time(Time(self.now));
        dispatcher.trouble(
            HandlerId(handler as u32),
            UpstreamSocketId(socket),
            trouble,
            ways,
        );
        let (mut step, _) = self.witness(worker, &[]);
        let talker = &mut self.talkers[worker][handler];
        let shared = &mut self.shared[handler];
        match trouble {
            Trouble::Reported(_) => talker.refused(place, &mut step),
            Trouble::Broken => talker.broken(socket, shared, &mut step),
        }
        self.check(step, &[], &[]);
    }

    fn change_mood(&mut self) {
        let upstream = self.random.below(self.moods.len());
        self.moods[upstream] = traffic::mood(&mut self.random);
    }

    /// Everything that the turn did is explained by the model, and the counters agree.
    fn check(&mut self, step: Step, passed: &[Pass], expected: &[Pass]) {
        let by_listener = |all: &[Pass], listener| {
            all.iter()
                .filter(|one| one.listener == listener)
                .cloned()
                .collect::<Vec<_>>()
        };
        for listener in 0..self.scenario.doors.len() {
            assert_eq!(
                by_listener(passed, listener),
                by_listener(expected, listener),
                "answers through listener {listener}: found, expected"
            );
        }
        assert!(
            step.out.is_empty(),
            "sent, and nobody knows why: {:?}",
            step.out
        );
        assert!(step.fresh.is_empty(), "opened for nobody: {:?}", step.fresh);
        let worker = step.worker;
        for talker in &mut self.talkers[worker] {
            talker.finish(&step);
        }
        let Worker { dispatcher, ways } = &mut self.workers[worker];
        witness::check_sockets(&self.talkers[worker], ways, &step.closed);
        let ledger = dispatcher.snapshot();
        assert!(ledger.balances(), "{ledger:?}");
        let mut first = 0;
        for talker in &self.talkers[worker] {
            let count = talker.spec.receivers.len();
            talker.check(
                &ledger.handlers[talker.handler],
                &ledger.upstreams[first..first + count],
            );
            first += count;
            if let Some(deadline_max) = talker.deadline_max().filter(|_| !talker.is_unclear()) {
                let deadline = dispatcher.deadline().expect("there are sessions");
                assert!(
                    deadline.0 <= deadline_max,
                    "a session that is over at {deadline_max} waits until {deadline:?}"
                );
            }
        }
        for (shared, spec) in self.shared.iter().zip(&self.scenario.specs) {
            assert!(
                shared.held.values().sum::<usize>() <= spec.max,
                "more sessions than there may be"
            );
            assert!(
                shared.held.values().all(|held| *held <= spec.share),
                "more than a network's share"
            );
        }
        self.met.extend(step.met);
    }
}

/// Lays trains out in an arena.
fn lay_out<'a>(trains: impl Iterator<Item = (Envelope, &'a [Vec<u8>])>) -> (Vec<u8>, Vec<Raw>) {
    let mut arena = Vec::new();
    let mut raw = Vec::new();
    for (envelope, payloads) in trains {
        let offset = arena.len() as u32;
        payloads.iter().for_each(|payload| arena.extend(payload));
        let span = Span {
            region: Region::Arena,
            offset,
            len: arena.len() as u32 - offset,
        };
        let segment = if payloads.len() > 1 {
            payloads[0].len() as u16
        } else {
            0
        };
        raw.push(Raw {
            envelope,
            span,
            segment,
        });
    }
    (arena, raw)
}
