//! The loop of one worker. Events only queue work; the loop runs at its own pace, in bounded turns: each listener that is
//! ready gets one receive call, then the next one its own, so a flooded listener cannot starve a quiet one.
//!
//! mio is edge-triggered: a listener stays on the ready list until a receive call finds nothing. A short batch is no such
//! sign: looking once more costs less than falling asleep and being woken by what came meanwhile (measured under a flood:
//! 1.09 against 1.16 times a blocking receive).

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver as Commands;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::command::{Command, Handle};
use super::estate::{Estate, LaneEstate};
use super::flush::Flusher;
use super::lanes::{Lanes, Ready, TOKENS};
use super::listener::{self, Listener};
use crate::datagram::Train;
use crate::dispatch::change::Change;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::handler::{Batch, HandlerId, Scene};
use crate::dispatch::id::UpstreamId;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::legacy::Legacy;
use crate::dispatch::outbox::Lane;
use crate::dispatch::time::{Time, nanoseconds};
use crate::net::errno::{self, ReceiveError};
use crate::net::receive::{LONG_BYTES, Receiver, SLOTS};
use crate::net::socket::{close_door, turn_away};

/// Events in one poll call; more wait for the next.
const EVENTS_MAX: usize = 256;
/// Rounds of turns between two polls while there is work. A quiet listener waits at most this much longer.
const ROUNDS_PER_POLL: u32 = 8;
/// Pause before a receive call that failed for want of memory is tried again, or a handler that kept something is asked.
const LATER: Duration = Duration::from_millis(10);
/// Shortest wait for the sake of time alone.
const TICK_MIN: Duration = Duration::from_millis(5);
/// Longest time between two questions to the handlers when they are next due, once one of them is.
const TICK_MAX: Duration = Duration::from_millis(100);
/// Longest time that a stopping worker works through what its sockets still hold.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Longest time that it then waits for answers that upstreams owe. Not longer: requests may be waiting for the next process
/// meanwhile, and a buffer of 8 MiB, which holds 20,000 of 64 bytes (docs/operations.md), has room for 200 ms of 100,000 a second.
const OWED_MAX: Duration = Duration::from_millis(50);
/// Lanes of one turn, so that commands and listeners do not wait for all of them.
const LANES_PER_TURN: usize = 64;
/// The token of the command queue; listeners have their numbers, lanes theirs from [`TOKENS`] on.
const COMMANDS: Token = Token(usize::MAX);

/// One worker, ready to run.
pub struct Worker {
    poll: Poll,
    commands: Commands<Command>,
    listeners: Vec<Listener>,
    lanes: Lanes,
    dispatcher: Dispatcher,
    receiver: Receiver,
    trains: Vec<Train>,
    /// Lanes that answered this turn, whose they are, and how many trains each brought.
    answers: Vec<(Lane, HandlerId, usize)>,
    /// Lanes on which word came back that something was lost, as errnos.
    reports: Vec<(Lane, i32)>,
    flusher: Flusher,
    epoch: Instant,
    /// When the handlers are asked next whether their time has come; `None` where none of them waits for anything.
    due: Option<Time>,
    /// Listeners that may hold something, each at most once.
    ready: VecDeque<usize>,
    is_ready: Vec<bool>,
    stop_at: Option<Instant>,
    /// Told to stop and drained: until when answers are waited for.
    owed_until: Option<Instant>,
    /// Told to end as it is, so that another can go on.
    is_parked: bool,
}

/// What is left of a turn's listener.
#[derive(Debug, PartialEq, Eq)]
enum After {
    Drained,
    More,
    Later,
}

impl Worker {
    /// Registers the listeners. `listeners` and the dispatcher's ears have the same order; time is counted from `epoch`,
    /// the same for all workers.
    pub fn new(
        listeners: Vec<Listener>,
        mut lanes: Lanes,
        dispatcher: Dispatcher,
        epoch: Instant,
    ) -> io::Result<(Worker, Handle)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), COMMANDS)?);
        for (index, listener) in listeners.iter().enumerate() {
            let fd = listener.exit.socket().as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
        }
        lanes.register_with(poll.registry().try_clone()?);
        // Whatever a socket that others have read holds, no event will tell of.
        let ready = (0..listeners.len()).collect();
        let (sender, commands) = crossbeam_channel::unbounded();
        let worker = Worker {
            poll,
            commands,
            is_ready: vec![true; listeners.len()],
            listeners,
            lanes,
            dispatcher,
            receiver: Receiver::new(),
            trains: Vec::with_capacity(SLOTS),
            answers: Vec::with_capacity(LANES_PER_TURN),
            reports: Vec::new(),
            flusher: Flusher::default(),
            epoch,
            due: None,
            ready,
            stop_at: None,
            owed_until: None,
            is_parked: false,
        };
        Ok((
            worker,
            Handle {
                commands: sender,
                waker,
            },
        ))
    }

    /// Runs until told to stop, and drained, or to park. Returns itself: the final accounts, the dispatcher, whose sinks may
    /// still be at work, and, parked, everything that another worker needs to go on. It may also be run again.
    pub fn run(mut self) -> Worker {
        self.is_parked = false;
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut timeout = Some(Duration::ZERO);
        let mut rounds = 0_u32;
        loop {
            // Under load there is always something ready, and looking for more costs a call each time. Where there were more
            // answers than one call tells, they would fall behind the requests.
            if rounds.is_multiple_of(ROUNDS_PER_POLL)
                || timeout != Some(Duration::ZERO)
                || !self.lanes.is_all_told()
            {
                let wait = self.keep_time(timeout);
                self.lanes.begin_poll(self.now());
                // An interrupted or failed poll brings no events; the next one brings them all.
                let _ = self.poll.poll(&mut events, wait);
                for event in &events {
                    match event.token() {
                        COMMANDS => self.obey(),
                        Token(lane) if lane >= TOKENS => self.lanes.queue(Lane::new(lane - TOKENS)),
                        Token(listener) => self.queue(listener),
                    }
                }
                self.lanes.end_poll(events.iter().count() < EVENTS_MAX);
            }
            rounds = rounds.wrapping_add(1);
            timeout = self.round();
            if self.is_parked {
                // Who goes on counts on from what was seen; thousands of lanes would be looked at while nobody serves.
                self.dispatcher.end();
                return self;
            }
            if self.is_over() || self.is_finished() {
                self.read_kernel_drops();
                self.dispatcher.end();
                return self;
            }
        }
    }

    /// One turn for each listener that is ready. Returns how long the next poll may wait.
    ///
    /// A turn that goes on to a thousand upstreams takes its time, and thousands of listeners may be ready: so a command
    /// waits for one turn, not for a round, and the end of the draining too.
    fn round(&mut self) -> Option<Duration> {
        let mut timeout = None;
        for _ in 0..self.ready.len() {
            if !self.commands.is_empty() {
                self.obey();
            }
            if self.is_over() {
                break;
            }
            let Some(listener) = self.ready.pop_front() else {
                break;
            };
            match self.turn(listener) {
                After::Drained => {
                    self.is_ready[listener] = false;
                    continue;
                }
                After::More => timeout = Some(Duration::ZERO),
                After::Later => timeout = timeout.or(Some(LATER)),
            }
            self.ready.push_back(listener);
        }
        let mut lanes = self.lanes.ready();
        // Some may have been closed since they were told of, and are not looked at.
        while lanes > 0 && self.lanes.ready() > 0 && !self.is_over() {
            lanes = lanes.saturating_sub(self.answer_turn(lanes.min(LANES_PER_TURN)));
            if !self.commands.is_empty() {
                self.obey();
            }
        }
        if self.lanes.ready() > 0 {
            timeout = Some(Duration::ZERO);
        }
        match self.dispatcher.end_turn() {
            true => timeout,
            false => timeout.or(Some(LATER)),
        }
    }

    /// One receive call of one listener, everything that follows from it, and one flush.
    fn turn(&mut self, index: usize) -> After {
        let listener = &mut self.listeners[index];
        let asked = listener.trains_max;
        // Who looks on wants to know who sent it, whether a handler does or not.
        let is_tapped = !self.dispatcher.taps().is_empty();
        let tells_source = listener.tells_source || is_tapped;
        if let Err(error) = self
            .receiver
            .receive(listener.exit.socket(), asked, tells_source)
        {
            let meaning = errno::of_receive(&error);
            if meaning == ReceiveError::Drained {
                return After::Drained;
            }
            self.dispatcher.listener_count(index).receive_errors += 1;
            return if meaning == ReceiveError::Again {
                After::More
            } else {
                After::Later
            };
        }
        if is_tapped {
            self.dispatcher.taps().begin_turn(time_of_day_ns());
        }
        self.trains.clear();
        for slot in self.receiver.slots() {
            listener.adapt(&slot);
            if let Err(reason) = listener.train(&slot, &mut self.trains)
                && let Some(train) = self.trains.pop()
            {
                self.dispatcher
                    .refuse(index, reason, &Batch::new(&[train], self.receiver.arena()));
            }
        }
        let now = self.now();
        let scene = &mut Scene {
            now,
            lanes: &mut self.lanes,
        };
        self.dispatcher
            .dispatch(index, &self.trains, self.receiver.arena(), scene);
        self.dispatcher.end_turn();
        self.flush();
        if self.dispatcher.is_measured() {
            self.dispatcher.settle_stay(time_of_day_ns());
        }
        if asked > self.listeners[index].trains_max {
            self.receiver.release();
        }
        After::More
    }

    /// What up to so many lanes have received, everything that follows from it, and one flush. Returns how many lanes were
    /// looked at.
    fn answer_turn(&mut self, lanes_max: usize) -> usize {
        if !self.dispatcher.taps().is_empty() {
            self.dispatcher.taps().begin_turn(time_of_day_ns());
        }
        self.receiver.begin(false);
        self.answers.clear();
        self.trains.clear();
        let mut looked = 0;
        let mut was_long = false;
        while looked < lanes_max && self.receiver.room() > 0 {
            let Some(ready) = self.lanes.next_ready() else {
                break;
            };
            looked += 1;
            let Ready { lane, handler, .. } = ready;
            if let Some(count) = ready.receive(&mut self.receiver, &mut self.reports) {
                self.answers.push((lane, handler, count));
                self.lanes.had(lane, count);
            }
        }
        for (lane, errno) in self.reports.drain(..) {
            self.lanes.report(lane, errno, self.dispatcher.sending().1);
        }
        for slot in self.receiver.slots() {
            was_long |= slot.len >= LONG_BYTES;
            self.trains.push(listener::answer(&slot));
        }
        let scene = &mut Scene {
            now: self.now(),
            lanes: &mut self.lanes,
        };
        let mut first = 0;
        for (lane, handler, count) in &self.answers {
            let trains = &self.trains[first..first + count];
            self.dispatcher
                .reply(*handler, *lane, trains, self.receiver.arena(), scene);
            first += count;
        }
        self.flush();
        if was_long {
            self.receiver.release();
        }
        looked
    }

    /// Sends what the turn left in the outbox, and tells the handlers what went wrong with it.
    fn flush(&mut self) {
        let (outbox, ledger) = self.dispatcher.sending();
        self.flusher.flush(
            &mut self.listeners,
            &mut self.lanes,
            outbox,
            self.receiver.arena(),
            ledger,
        );
        while let Some((handler, lane, trouble)) = self.lanes.next_trouble() {
            let scene = &mut Scene {
                now: self.now(),
                lanes: &mut self.lanes,
            };
            self.dispatcher.trouble(handler, lane, trouble, scene);
        }
    }

    /// Calls the handlers whose time has come. Returns how long the next poll may wait then.
    fn keep_time(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let now = self.now();
        if self.due.is_none_or(|due| due <= now) {
            if self.dispatcher.due().is_some_and(|due| due <= now) {
                self.dispatcher.time(&mut Scene {
                    now,
                    lanes: &mut self.lanes,
                });
                self.flush();
            }
            // Whatever begins in the meantime is due later than this.
            let due = self.dispatcher.due();
            self.due = due.map(|due| due.clamp(now.after(TICK_MIN), now.after(TICK_MAX)));
        }
        let wait = self.due.map(|due| due.since(now));
        let owed = self.owed_until.map(|_| TICK_MIN);
        timeout.into_iter().chain(wait).chain(owed).min()
    }

    /// What time it is.
    fn now(&self) -> Time {
        Time::default().after(self.epoch.elapsed())
    }

    /// Whether the time for draining is over, or there is none.
    fn is_over(&self) -> bool {
        self.is_parked
            || self
                .stop_at
                .is_some_and(|stop_at| Instant::now() >= stop_at)
    }

    /// Whether a stopping worker has handled everything, and waits for no answer any more.
    fn is_finished(&mut self) -> bool {
        if self.stop_at.is_none() || !self.ready.is_empty() || self.lanes.ready() > 0 {
            return false;
        }
        let now = Instant::now();
        now >= *self.owed_until.get_or_insert(now + OWED_MAX) || !self.dispatcher.is_owed()
    }

    fn queue(&mut self, listener: usize) {
        if self.stop_at.is_none() && !std::mem::replace(&mut self.is_ready[listener], true) {
            self.ready.push_back(listener);
        }
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Snapshot(reply) => {
                    // The asker may have given up waiting.
                    let _ = reply.send(self.snapshot());
                }
                Command::Sessions(wanted, reply) => {
                    let _ = reply.send(self.dispatcher.sessions(&wanted, self.now()));
                }
                Command::Tap { tap, begun } => {
                    self.dispatcher.taps().add(*tap);
                    // There is room for one from each worker.
                    let _ = begun.try_send(());
                }
                Command::Untap(id) => self.dispatcher.taps().remove(id),
                Command::Change(upstream, change) => self.change(upstream, change),
                Command::Lend(reply) => {
                    // Where there are no descriptors left, the asker gets no answer.
                    if let Ok(lent) = self.listeners.iter().map(Listener::lend).collect() {
                        let _ = reply.send(lent);
                    }
                }
                Command::Settle(reply) => {
                    let _ = reply.send(self.listeners.iter().try_for_each(Listener::settle));
                }
                Command::Park => self.is_parked = true,
                Command::Stop { has_heir } => self.stop(has_heir),
            }
        }
    }

    fn change(&mut self, upstream: UpstreamId, change: Change) {
        if let Change::Moved(to) = change {
            self.lanes.moved(upstream, to);
        }
        let handler = self.lanes.owner(upstream);
        let scene = &mut Scene {
            now: self.now(),
            lanes: &mut self.lanes,
        };
        self.dispatcher.change(handler, upstream, change, scene);
        self.flush();
    }

    fn snapshot(&mut self) -> Ledger {
        self.read_kernel_drops();
        self.dispatcher.snapshot()
    }

    fn read_kernel_drops(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            self.dispatcher.listener_count(index).kernel_drops += listener.new_kernel_drops();
        }
        self.lanes.read_kernel_drops(self.dispatcher.sending().1);
    }

    /// Parked: reads listeners that nobody goes on with to their end, so that what they hold is handled as it always was;
    /// what comes from now on goes to whom the kernel finds instead.
    pub fn read_out(&mut self, removed: &[usize]) {
        let until = Instant::now() + DRAIN_MAX;
        for index in 0..self.listeners.len() {
            let listener = &self.listeners[index];
            if !removed.contains(&listener.seat.listener) {
                continue;
            }
            let socket = listener.exit.socket();
            // Where it cannot be turned away, such as one whose address is not up, what comes later is lost with it.
            if turn_away(socket).is_err() {
                let _ = close_door(socket);
            }
            while self.turn(index) == After::More && Instant::now() < until {}
            // What the others drop is counted by whoever goes on with them.
            self.dispatcher.listener_count(index).kernel_drops +=
                self.listeners[index].new_kernel_drops();
        }
        self.dispatcher.end();
    }

    /// What it leaves; the sockets of its lanes apart.
    pub fn leave(&self) -> Estate {
        Estate {
            ears: self.listeners.iter().map(Listener::leave).collect(),
            lanes: self.lanes.leave(),
            legacies: self.dispatcher.leave(),
            ledger: self.dispatcher.accounts(),
            fates: self.dispatcher.fates(),
            sockets: Vec::new(),
        }
    }

    /// The sockets of its lanes, in the order of its estate.
    pub fn lane_sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.lanes.sockets()
    }

    /// The same, for good.
    pub fn into_lane_sockets(self) -> Vec<UdpSocket> {
        self.lanes.into_sockets()
    }

    /// Before it runs: its listeners.
    pub fn listeners(&mut self) -> &mut [Listener] {
        &mut self.listeners
    }

    /// Before it runs: goes on with a lane. `Ok(None)` where it is no lane of a session.
    pub fn inherit_lane(
        &mut self,
        left: &LaneEstate,
        upstream: UpstreamId,
        socket: UdpSocket,
    ) -> io::Result<Option<Lane>> {
        self.lanes.inherit(left, upstream, socket)
    }

    /// Before it runs: gives a handler what its predecessor has left.
    pub fn inherit(&mut self, handler: HandlerId, legacy: Legacy) {
        let scene = &mut Scene {
            now: self.now(),
            lanes: &mut self.lanes,
        };
        self.dispatcher.inherit(handler, legacy, scene);
        self.flush();
    }

    /// The accounts of one that does not run, as of now: its sinks may still be at work.
    pub fn accounts(&self) -> Ledger {
        self.dispatcher.snapshot()
    }

    /// Queues every listener, so that what the sockets hold is handled before the end. After that none is queued any more: it
    /// is read until it holds nothing once, however much may come.
    fn stop(&mut self, has_heir: bool) {
        for index in 0..self.listeners.len() {
            if !has_heir {
                // Where the filter is refused, what comes later goes with the socket, uncounted.
                let _ = close_door(self.listeners[index].exit.socket());
            }
            self.queue(index);
        }
        self.stop_at = self.stop_at.or(Some(Instant::now() + DRAIN_MAX));
    }
}

/// The time of day in nanoseconds since 1970, by the clock that the kernel stamps what it receives with.
fn time_of_day_ns() -> u64 {
    nanoseconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}
