//! Two processes, their connections, and a clock. Events happen in the order of their times. In between, one of the
//! processes may be killed, or stopped for some time.

use std::time::{Duration, Instant};

use udispatch::dispatch::random::Random;
use udispatch::takeover::error::WireError;
use udispatch::takeover::protocol::Message;

use crate::client::Client;
use crate::connection::{Connection, Pipe};
use crate::covered::Covered;
use crate::seeds::Where;
use crate::server::Server;

/// Longest time that parking takes in this model.
pub const PARK_MAX: Duration = Duration::from_millis(50);
/// Largest number of events of one takeover. It has always ended before.
const STEPS_MAX: usize = 400;

/// What a process waits for.
pub enum Pending<E> {
    Nothing,
    /// An action of its own, and its outcome.
    Work(Duration, E),
    /// A message is being written until then. It arrives, or the call fails.
    Write(
        Duration,
        Message,
        Option<WireError>,
        fn(Result<(), WireError>) -> E,
    ),
    /// A message, until the deadline.
    Read(Duration, fn(Result<Message, WireError>) -> E),
    /// The end of the other process, until the deadline.
    End(Duration, fn(Result<(), String>) -> E),
}

/// The state of a process.
#[derive(Default)]
pub struct Process {
    pub is_alive: bool,
    pub is_serving: bool,
    /// The process does nothing before this time.
    pub stopped_until: Duration,
    /// The sum of the times for which it has been stopped.
    pub stopped: Duration,
}

impl Process {
    fn stop(&mut self, now: Duration, duration: Duration) {
        let until = now + duration;
        let from = self.stopped_until.max(now);
        self.stopped += until.saturating_sub(from);
        self.stopped_until = self.stopped_until.max(until);
    }

    pub fn end(&mut self) {
        self.is_alive = false;
        self.is_serving = false;
    }
}

/// The processes, their connections and the clock.
pub struct World {
    pub random: Random,
    /// Time since the beginning.
    pub now: Duration,
    base: Instant,
    pub connections: Vec<Connection>,
    pub server: Server,
    pub client: Client,
    /// Whether anything fails in this run.
    pub is_hostile: bool,
    /// Number of times that processes may still be killed or stopped.
    faults: usize,
    place: Where,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let is_hostile = random.below(8) > 0;
        let faults = if is_hostile { random.below(4) } else { 0 };
        let server = Server::new(&mut random);
        World {
            random,
            now: Duration::ZERO,
            base: Instant::now(),
            connections: Vec::new(),
            server,
            client: Client::default(),
            is_hostile,
            faults,
            place: Where {
                seed,
                step: 0,
                text: String::new(),
            },
        }
    }

    /// Runs one takeover from its beginning to its end.
    pub fn run(mut self, covered: &mut Covered) {
        self.begin_client(covered);
        for step in 0..STEPS_MAX {
            self.place.step = step;
            self.check();
            let Some(next) = self.next() else {
                self.check_end();
                return;
            };
            self.now = self.now.max(next);
            if self.faults > 0 && self.once_in(12) {
                self.faults -= 1;
                self.fault();
                continue;
            }
            self.finish_kill();
            self.step_server(covered);
            self.step_client(covered);
        }
        panic!("it does not end");
    }

    /// When the next event happens.
    fn next(&self) -> Option<Duration> {
        let to_server = self.pipe(self.server.connection, |connection| &connection.to_server);
        let to_client = self.pipe(self.client.connection, |connection| &connection.to_client);
        let kill = self.client.kill.as_ref();
        [
            due(&self.server.process, &self.server.pending, to_server),
            due(&self.client.process, &self.client.pending, to_client),
            kill.map(|kill| kill.stops_at.unwrap_or(kill.closes_at)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn pipe<'a>(
        &'a self,
        connection: Option<usize>,
        pipe: fn(&'a Connection) -> &'a Pipe,
    ) -> Option<&'a Pipe> {
        connection.map(|connection| pipe(&self.connections[connection]))
    }

    /// A process is killed, or stopped for some time.
    fn fault(&mut self) {
        let is_server = self.once_in(2);
        let is_kill = self.once_in(3);
        let duration = match self.random.below(3) {
            0 => self.random_ms(100),
            1 => self.random_ms(2_000),
            _ => self.random_ms(30_000),
        };
        self.tell(format!(
            "fault: {} is {}",
            if is_server { "server" } else { "client" },
            if is_kill {
                "killed".to_owned()
            } else {
                format!("stopped for {duration:?}")
            }
        ));
        match (is_server, is_kill) {
            (true, true) => self.end_server(),
            (false, true) => self.end_client(),
            (true, false) => self.server.process.stop(self.now, duration),
            (false, false) => self.client.process.stop(self.now, duration),
        }
    }

    /// The conditions that hold after every event.
    fn check(&self) {
        let server = &self.server;
        let client = &self.client;
        assert!(
            !(server.process.is_serving && client.process.is_serving) || client.is_survivor,
            "two serve"
        );
        if !server.has_sockets {
            assert!(
                client.has_started,
                "the sockets are closed, and no client has started"
            );
        }
        if let Some(gap) = &server.gap
            && server.process.is_alive
            && server.process.stopped_until <= self.now
        {
            let none = self.now - gap.begun;
            let stopped = server.process.stopped - gap.stopped;
            let most = server.gap_max() + stopped;
            assert!(
                none <= most,
                "nobody has served for {none:?}, and {most:?} is the bound"
            );
        }
        assert!(
            server.announced == 0 || client.has_started,
            "the service manager was told of a client that has not started"
        );
    }

    /// The conditions that hold when nothing happens any more.
    fn check_end(&self) {
        let server = &self.server;
        let client = &self.client;
        if server.is_taken_over {
            assert_eq!(
                server.announced, 1,
                "the service manager knows its main process"
            );
            assert!(!server.process.is_serving && !server.has_sockets);
            assert!(
                client.process.is_serving || !client.process.is_alive,
                "nobody serves"
            );
            return;
        }
        assert_eq!(server.announced, 0);
        if server.process.is_alive {
            assert!(
                server.process.is_serving,
                "nobody serves, and the server could"
            );
            assert!(server.has_sockets);
            assert!(
                server.is_restored,
                "the client's changes to sockets have stayed"
            );
            assert!(
                !client.process.is_serving || client.is_survivor,
                "two serve"
            );
        } else if client.has_started && client.process.is_alive {
            assert!(
                client.process.is_serving,
                "nobody serves, and the client could"
            );
        }
    }

    /// The time in the form that the state machines take.
    pub fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// A deadline in the time of this model.
    pub fn time_of(&self, deadline: Instant) -> Duration {
        deadline - self.base
    }

    pub fn once_in(&mut self, count: usize) -> bool {
        self.random.below(count) == 0
    }

    /// Whether something fails now, once in this many times.
    pub fn fails_once_in(&mut self, count: usize) -> bool {
        self.is_hostile && self.once_in(count)
    }

    pub fn random_ms(&mut self, most: usize) -> Duration {
        Duration::from_micros(self.random.below(1_000 * most) as u64)
    }

    /// Adds a line to the report of a failure.
    pub fn tell(&mut self, line: String) {
        let now = self.now;
        self.place.text.push_str(&format!("{now:?} {line}\n"));
    }

    /// Begins to write a message, which takes a moment, or does not succeed by the deadline.
    pub fn write<E>(
        &mut self,
        message: Message,
        deadline: Instant,
        wrap: fn(Result<(), WireError>) -> E,
    ) -> Pending<E> {
        let deadline = self.time_of(deadline);
        let soon = deadline.min(self.now + self.random_ms(3));
        if self.fails_once_in(24) {
            return Pending::Write(deadline, message, Some(WireError::TimedOut), wrap);
        }
        if self.fails_once_in(48) {
            return Pending::Write(soon, message, Some(WireError::TooLarge(1, 1)), wrap);
        }
        Pending::Write(soon, message, None, wrap)
    }
}

fn due<E>(process: &Process, pending: &Pending<E>, inbound: Option<&Pipe>) -> Option<Duration> {
    if !process.is_alive {
        return None;
    }
    let at = match pending {
        Pending::Nothing => return None,
        Pending::Work(at, _) | Pending::Write(at, ..) => *at,
        Pending::Read(deadline, _) => first(*deadline, inbound.and_then(Pipe::readable_at)),
        Pending::End(deadline, _) => first(*deadline, inbound.and_then(Pipe::end)),
    };
    Some(at.max(process.stopped_until))
}

fn first(deadline: Duration, other: Option<Duration>) -> Duration {
    other.map_or(deadline, |other| deadline.min(other))
}

/// The outcome of what a process waits for, if that is due.
pub fn outcome<E>(
    now: Duration,
    process: &Process,
    pending: &mut Pending<E>,
    pipes: (Option<&mut Pipe>, Option<&mut Pipe>),
    random: &mut Random,
    is_hostile: bool,
) -> Option<E> {
    let (inbound, outbound) = pipes;
    if due(process, pending, inbound.as_deref()).is_none_or(|due| due > now) {
        return None;
    }
    Some(match std::mem::replace(pending, Pending::Nothing) {
        Pending::Nothing => return None,
        Pending::Work(_, event) => event,
        Pending::Write(_, message, error, wrap) => {
            let pipe = outbound.filter(|pipe| !pipe.is_unread());
            wrap(match (error, pipe) {
                (Some(error), _) => Err(error),
                (None, None) => Err(WireError::Closed),
                (None, Some(pipe)) => {
                    pipe.write(now, message, random, is_hostile);
                    Ok(())
                }
            })
        }
        Pending::Read(deadline, wrap) => {
            // A process that was stopped past the deadline may notice the message or the timeout first.
            let is_late = now >= deadline && random.below(2) == 0;
            let read = inbound.filter(|_| !is_late).and_then(|pipe| pipe.read(now));
            wrap(read.unwrap_or(Err(WireError::TimedOut)))
        }
        Pending::End(_, wrap) => {
            let has_ended = inbound
                .and_then(|pipe| pipe.end())
                .is_some_and(|end| end <= now);
            wrap(if has_ended {
                Ok(())
            } else {
                Err("it still has the connection".to_owned())
            })
        }
    })
}
