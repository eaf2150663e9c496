//! The loop of one worker. Events only queue work; the loop runs at its own pace, in bounded turns: each listener that is
//! ready gets one receive call, then the next one its own, so a flooded listener cannot starve a quiet one.
//!
//! mio is edge-triggered: a listener stays on the ready list until a receive call finds nothing. A short batch is no such
//! sign: looking once more costs less than falling asleep and being woken by what came meanwhile (measured under a flood:
//! 1.09 against 1.16 times a blocking receive).

mod commands;
mod handover;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver as Commands;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::command::{Command, Handle};
use super::flush::{Flusher, Sockets};
use super::listener::{self, Listener};
use super::upstream_sockets::{Ready, TOKENS, UpstreamSockets};
use crate::datagram::Train;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::handler::{Batch, HandlerId};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::time::{Time, nanoseconds};
use crate::net::errno::{self, ReceiveError};
use crate::net::receive::{LONG_BYTES, Receiver, SLOTS};

/// Events in one poll call; more wait for the next.
const EVENTS_MAX: usize = 256;
/// Rounds of turns between two polls while there is work. A quiet listener waits at most this much longer.
const ROUNDS_PER_POLL: u32 = 8;
/// Delay before a receive call that failed with ENOMEM is retried, and before `on_turn_end` is called again on a handler
/// that still holds buffered output.
const LATER: Duration = Duration::from_millis(10);
/// Shortest wait for the sake of time alone.
const TICK_MIN: Duration = Duration::from_millis(5);
/// Longest time between two questions to the handlers when they are next due, once one of them is.
const TICK_MAX: Duration = Duration::from_millis(100);
/// Longest time that a stopping worker works through what its sockets still hold.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Longest time that it then waits for answers that upstreams owe. Not longer: requests may be waiting for the next process
/// meanwhile, and a buffer of 8 MiB, which holds 20,000 of 64 bytes (docs/operations.md), has room for 200 ms of 100,000 a second.
const OUTSTANDING_MAX: Duration = Duration::from_millis(50);
/// Sockets of one turn, so that commands and listeners do not wait for all of them.
const SOCKETS_PER_TURN: usize = 64;
/// The token of the command queue; listeners have their numbers, sockets theirs from [`TOKENS`] on.
const COMMANDS: Token = Token(usize::MAX);

/// One worker, ready to run.
pub struct Worker {
    poll: Poll,
    commands: Commands<Command>,
    listeners: Vec<Listener>,
    upstream_sockets: UpstreamSockets,
    dispatcher: Dispatcher,
    receiver: Receiver,
    trains: Vec<Train>,
    /// Sockets that answered this turn, whose they are, and how many trains each brought.
    replies: Vec<(UpstreamSocketId, HandlerId, usize)>,
    /// Sockets on which word came back that something was lost, as errnos.
    reports: Vec<(UpstreamSocketId, i32)>,
    flusher: Flusher,
    epoch: Instant,
    /// When the handlers are asked next whether their time has come; `None` where none of them waits for anything.
    deadline: Option<Time>,
    /// Listeners that may hold something, each at most once.
    ready: VecDeque<usize>,
    is_ready: Vec<bool>,
    stop_at: Option<Instant>,
    /// Told to stop and drained: until when answers are waited for.
    outstanding_until: Option<Instant>,
    /// Told to end as it is, so that another can go on.
    is_parked: bool,
}

/// What a turn leaves to do for its listener.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// It is empty: the next event queues it again.
    Drained,
    /// It may hold more.
    More,
    /// It may hold more, and is read again after a pause.
    Later,
}

/// What comes after a round.
enum Next {
    /// Another round.
    Round,
    /// The worker is left as it is, for another to go on.
    Park,
    /// The worker has stopped, and handled what its sockets held.
    End,
}

impl Worker {
    /// Registers the listeners. `listeners` and the dispatcher's listeners have the same order; time is counted from `epoch`,
    /// the same for all workers.
    pub fn new(
        listeners: Vec<Listener>,
        mut upstream_sockets: UpstreamSockets,
        dispatcher: Dispatcher,
        epoch: Instant,
    ) -> io::Result<(Worker, Handle)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), COMMANDS)?);
        for (index, listener) in listeners.iter().enumerate() {
            let fd = listener.send_socket.socket().as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
        }
        upstream_sockets.register_with(poll.registry().try_clone()?);
        // Edge-triggered epoll reports only new arrivals. An inherited socket may already hold datagrams, so every listener
        // starts as ready.
        let ready = (0..listeners.len()).collect();
        let (sender, commands) = crossbeam_channel::unbounded();
        let worker = Worker {
            poll,
            commands,
            is_ready: vec![true; listeners.len()],
            listeners,
            upstream_sockets,
            dispatcher,
            receiver: Receiver::new(),
            trains: Vec::with_capacity(SLOTS),
            replies: Vec::with_capacity(SOCKETS_PER_TURN),
            reports: Vec::new(),
            flusher: Flusher::default(),
            epoch,
            deadline: None,
            ready,
            stop_at: None,
            outstanding_until: None,
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
            if self.is_poll_due(rounds, timeout) {
                self.poll(&mut events, timeout);
            }
            rounds = rounds.wrapping_add(1);
            timeout = self.round();
            match self.next() {
                Next::Round => {}
                // The kernel's drop counters are not read: the next worker continues from the last value read, and reading
                // thousands of session sockets would lengthen the pause in service.
                Next::Park => break,
                Next::End => {
                    self.read_kernel_drops();
                    break;
                }
            }
        }
        self.dispatcher.end();
        self
    }

    /// Whether to poll before the next round. Under load something is always ready, and each poll costs a system call. If
    /// the last poll could not report every socket, replies would fall behind the requests.
    fn is_poll_due(&self, rounds: u32, timeout: Option<Duration>) -> bool {
        rounds.is_multiple_of(ROUNDS_PER_POLL)
            || timeout != Some(Duration::ZERO)
            || !self.upstream_sockets.is_poll_complete()
    }

    /// Waits for events, runs timers before that, and queues what is ready.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) {
        let wait = self.keep_time(timeout);
        self.upstream_sockets.begin_poll(self.now());
        // An interrupted or failed poll brings no events; the next one brings them all.
        let _ = self.poll.poll(events, wait);
        for event in &*events {
            match event.token() {
                COMMANDS => self.obey(),
                Token(socket) if socket >= TOKENS => self
                    .upstream_sockets
                    .queue(UpstreamSocketId::new(socket - TOKENS)),
                Token(listener) => self.queue(listener),
            }
        }
        self.upstream_sockets
            .end_poll(events.iter().count() < EVENTS_MAX);
    }

    /// What comes after a round.
    fn next(&mut self) -> Next {
        if self.is_parked {
            Next::Park
        } else if self.is_over() || self.is_finished() {
            Next::End
        } else {
            Next::Round
        }
    }

    /// One turn for everything that is ready: listeners, then upstreams' replies. Returns how long the next poll may wait.
    fn round(&mut self) -> Option<Duration> {
        let mut timeout = self.take_requests();
        self.take_replies();
        if self.upstream_sockets.ready() > 0 {
            timeout = Some(Duration::ZERO);
        }
        if self.dispatcher.end_turn() {
            timeout
        } else {
            timeout.or(Some(LATER))
        }
    }

    /// One turn for each listener that is ready. Returns how long the next poll may wait.
    ///
    /// A turn that goes on to a thousand upstreams takes its time, and thousands of listeners may be ready. Therefore a
    /// command waits for one turn, not for a round, and so does the end of the draining.
    fn take_requests(&mut self) -> Option<Duration> {
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
        timeout
    }

    /// Turns for the sockets that were ready when this was called.
    fn take_replies(&mut self) {
        let mut sockets = self.upstream_sockets.ready();
        // Some may have been closed since they were queued, and are not read.
        while sockets > 0 && self.upstream_sockets.ready() > 0 && !self.is_over() {
            sockets = sockets.saturating_sub(self.reply_turn(sockets.min(SOCKETS_PER_TURN)));
            if !self.commands.is_empty() {
                self.obey();
            }
        }
    }

    /// One receive call of one listener, everything that follows from it, and one flush.
    fn turn(&mut self, index: usize) -> After {
        let asked = self.listeners[index].trains_max;
        let is_tapped = !self.dispatcher.taps().is_empty();
        if let Some(after) = self.receive(index, is_tapped) {
            return after;
        }
        if is_tapped {
            self.dispatcher.taps().begin_turn(time_of_day_ns());
        }
        self.gather_trains(index);
        self.dispatcher.set_time(self.now());
        let batch = Batch::new(&self.trains, self.receiver.arena());
        self.dispatcher
            .dispatch(index, &batch, &mut self.upstream_sockets);
        self.dispatcher.end_turn();
        self.flush();
        if self.dispatcher.is_measured() {
            self.dispatcher.settle_latency(time_of_day_ns());
        }
        if asked > self.listeners[index].trains_max {
            self.receiver.release();
        }
        After::More
    }

    /// One receive call. Returns what that leaves to do if it brought nothing.
    fn receive(&mut self, index: usize, is_tapped: bool) -> Option<After> {
        let listener = &self.listeners[index];
        // A tap shows the source, whether or not a handler needs it.
        let receives_source = listener.receives_source || is_tapped;
        let socket = listener.send_socket.socket();
        let received = self
            .receiver
            .receive(socket, listener.trains_max, receives_source);
        let meaning = errno::of_receive(&received.err()?);
        if meaning == ReceiveError::Drained {
            return Some(After::Drained);
        }
        self.dispatcher.listener_count(index).receive_errors += 1;
        if meaning == ReceiveError::Again {
            Some(After::More)
        } else {
            Some(After::Later)
        }
    }

    /// Makes trains of what a listener received, and counts those that nothing can be done with.
    fn gather_trains(&mut self, index: usize) {
        self.trains.clear();
        let listener = &mut self.listeners[index];
        for slot in self.receiver.slots() {
            listener.adapt(&slot);
            if let Err(reason) = listener.train(&slot, &mut self.trains)
                && let Some(train) = self.trains.pop()
            {
                let train = [train];
                let batch = Batch::new(&train, self.receiver.arena());
                self.dispatcher.refuse(index, reason, &batch);
            }
        }
    }

    /// What up to so many sockets have received, everything that follows from it, and one flush. Returns how many sockets were
    /// read.
    fn reply_turn(&mut self, sockets_max: usize) -> usize {
        if !self.dispatcher.taps().is_empty() {
            self.dispatcher.taps().begin_turn(time_of_day_ns());
        }
        let looked = self.receive_replies(sockets_max);
        for (socket, errno) in self.reports.drain(..) {
            self.upstream_sockets
                .report(socket, errno, self.dispatcher.sending().1);
        }
        self.trains.clear();
        let mut was_long = false;
        for slot in self.receiver.slots() {
            was_long |= slot.len >= LONG_BYTES;
            self.trains.push(listener::reply_train(&slot));
        }
        self.dispatcher.set_time(self.now());
        let mut rest = &self.trains[..];
        for (socket, handler, count) in &self.replies {
            let (trains, after) = rest.split_at(*count);
            let batch = &Batch::new(trains, self.receiver.arena());
            self.dispatcher
                .reply(*handler, *socket, batch, &mut self.upstream_sockets);
            rest = after;
        }
        self.flush();
        if was_long {
            self.receiver.release();
        }
        looked
    }

    /// Reads up to so many sockets into one arena. Returns how many were read.
    fn receive_replies(&mut self, sockets_max: usize) -> usize {
        self.receiver.begin(false);
        self.replies.clear();
        let mut looked = 0;
        while looked < sockets_max && self.receiver.room() > 0 {
            let Some(ready) = self.upstream_sockets.next_ready() else {
                break;
            };
            looked += 1;
            let Ready {
                id: socket,
                handler,
                ..
            } = ready;
            if let Some(count) = ready.receive(&mut self.receiver, &mut self.reports) {
                self.replies.push((socket, handler, count));
                self.upstream_sockets.had(socket, count);
            }
        }
        looked
    }

    /// Sends what the turn left in the outbox, and notifies the handlers of what went wrong with it.
    fn flush(&mut self) {
        let (outbox, ledger) = self.dispatcher.sending();
        let sockets = Sockets {
            listeners: &mut self.listeners,
            upstream_sockets: &mut self.upstream_sockets,
        };
        self.flusher
            .flush(sockets, outbox, self.receiver.arena(), ledger);
        while let Some((handler, socket, trouble)) = self.upstream_sockets.next_trouble() {
            self.dispatcher.set_time(self.now());
            self.dispatcher
                .trouble(handler, socket, trouble, &mut self.upstream_sockets);
        }
    }

    /// Calls the handlers whose time has come. Returns how long the next poll may wait then.
    fn keep_time(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let now = self.now();
        if self.deadline.is_none_or(|deadline| deadline <= now) {
            if self
                .dispatcher
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.dispatcher.set_time(now);
                self.dispatcher.time(&mut self.upstream_sockets);
                self.flush();
            }
            // Whatever begins in the meantime is due later than this.
            let deadline = self.dispatcher.deadline();
            self.deadline =
                deadline.map(|deadline| deadline.clamp(now.after(TICK_MIN), now.after(TICK_MAX)));
        }
        let wait = self.deadline.map(|deadline| deadline.since(now));
        let outstanding = self.outstanding_until.map(|_| TICK_MIN);
        timeout.into_iter().chain(wait).chain(outstanding).min()
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
        if self.stop_at.is_none() || !self.ready.is_empty() || self.upstream_sockets.ready() > 0 {
            return false;
        }
        let now = Instant::now();
        now >= *self.outstanding_until.get_or_insert(now + OUTSTANDING_MAX)
            || !self.dispatcher.has_outstanding()
    }

    fn queue(&mut self, listener: usize) {
        if self.stop_at.is_none() && !std::mem::replace(&mut self.is_ready[listener], true) {
            self.ready.push_back(listener);
        }
    }

    /// The accounts of one that does not run, as of now: its sinks may still be at work.
    pub fn accounts(&self) -> Ledger {
        self.dispatcher.snapshot()
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
