//! The event loop of one worker. Events only queue work, and the loop runs in bounded turns. Each ready listener gets
//! one receive call per round, so a flooded listener cannot starve a quiet one.
//!
//! mio is edge-triggered: a listener stays on the ready list until a receive call finds nothing. A short batch does not
//! prove an empty socket. One more receive call costs less than sleeping and being woken by the next datagram. Measured
//! under a flood: 1.09 instead of 1.16 times the cost of a blocking receive.

mod commands;
mod handover;
mod replies;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver as Commands;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::command::{Command, Handle};
use super::flush::{FlushSockets, Flusher};
use super::listener::Listener;
use super::upstream_sockets::{TOKENS, UpstreamSockets};
use crate::datagram::Train;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::handler::{Batch, HandlerId};
use crate::dispatch::id::{LocalListener, UpstreamSocketId};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::time::{Time, nanoseconds};
use crate::net::errno::{self, ReceiveError};
use crate::net::receive::{Receiver, SLOTS};

/// The most events that one poll call can return; further events wait for the next call.
const EVENTS_MAX: usize = 256;
/// The number of rounds between two polls while there is work. A quiet listener waits at most this many rounds longer.
const ROUNDS_PER_POLL: u32 = 8;
/// The delay before a receive call that failed with ENOMEM is retried, and before `on_turn_end` is called again on a
/// handler that still holds buffered output.
const LATER: Duration = Duration::from_millis(10);
/// The shortest wait that only a timer causes.
const TICK_MIN: Duration = Duration::from_millis(5);
/// The longest time between two checks of the handlers' next deadline, once one of them has a deadline.
const TICK_MAX: Duration = Duration::from_millis(100);
/// The longest time for which a stopping worker handles the datagrams that its sockets still hold.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// The longest time for which a stopping worker then waits for outstanding replies. Meanwhile requests for the next
/// process may queue. A buffer of 8 MiB holds 20,000 datagrams of 64 bytes (docs/operations.md), which is 200 ms at
/// 100,000 a second.
const OUTSTANDING_MAX: Duration = Duration::from_millis(50);
/// The most upstream sockets that one turn reads, so that commands and listeners do not wait for all of them.
const SOCKETS_PER_TURN: usize = 64;
/// The token of the command queue. The token of a listener is its index; upstream sockets start at [`TOKENS`].
const COMMANDS: Token = Token(usize::MAX);

/// One worker with its sockets, handlers and event loop, ready to run.
pub struct Worker {
    poll: Poll,
    commands: Commands<Command>,
    listeners: Vec<Listener>,
    upstream_sockets: UpstreamSockets,
    dispatcher: Dispatcher,
    receiver: Receiver,
    trains: Vec<Train>,
    /// Upstream sockets that received replies this turn, with their handler and the number of trains from each.
    replies: Vec<(UpstreamSocketId, HandlerId, usize)>,
    /// Upstream sockets with an entry in their error queue, as errnos.
    reports: Vec<(UpstreamSocketId, i32)>,
    flusher: Flusher,
    epoch: Instant,
    /// The time at which the handlers' next deadline is checked again; `None` if no handler has one.
    deadline: Option<Time>,
    /// Listeners that may hold datagrams, each at most once.
    ready: VecDeque<LocalListener>,
    is_ready: Vec<bool>,
    stop_at: Option<Instant>,
    /// The end of the wait for outstanding replies. It is set once a stopping worker has drained its sockets.
    outstanding_until: Option<Instant>,
    /// Set by [`Command::Park`]: the loop ends, so that another worker can continue from this one's state.
    is_parked: bool,
}

/// The state of a listener after its turn.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// The socket is empty: the next event queues the listener again.
    Drained,
    /// The socket may hold more datagrams.
    More,
    /// The socket may hold more datagrams, and is read again after [`LATER`].
    Later,
}

/// The next step of the loop after a round.
enum Next {
    /// The loop runs another round.
    Round,
    /// The worker ends with its state intact, so that another worker can continue.
    Park,
    /// The worker has stopped, and has handled the datagrams that its sockets held.
    End,
}

impl Worker {
    /// Registers the listeners with a new poll. `listeners` must have the order of the dispatcher's listeners. Time is
    /// counted from `epoch`, which all workers share.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the epoll instance, the waker or a registration, for example with EMFILE.
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
        // Edge-triggered epoll reports only new arrivals. An inherited socket may already hold datagrams, so every
        // listener starts as ready.
        let ready = (0..listeners.len()).map(LocalListener::new).collect();
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

    /// Runs until [`Command::Stop`] has drained the sockets, or until [`Command::Park`]. Returns the worker with its
    /// final ledger; sinks of its dispatcher may still be at work. A parked worker holds everything that another worker
    /// needs, and can be run again.
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
                // The kernel's drop counters are not read: the next worker continues from the last value read, and
                // reading thousands of session sockets would lengthen the pause in service.
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

    /// Returns whether to poll before the next round. Under load something is always ready, and each poll costs a
    /// system call. If the last poll could not report every socket, replies would fall behind the requests.
    fn is_poll_due(&self, rounds: u32, timeout: Option<Duration>) -> bool {
        rounds.is_multiple_of(ROUNDS_PER_POLL)
            || timeout != Some(Duration::ZERO)
            || !self.upstream_sockets.is_poll_complete()
    }

    /// Runs due timers, waits for events, and queues the sockets that are ready.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) {
        let wait = self.run_timers(timeout);
        self.upstream_sockets.begin_poll(self.now());
        // An interrupted or failed poll returns no events; the next poll returns all of them.
        let _ = self.poll.poll(events, wait);
        for event in &*events {
            match event.token() {
                COMMANDS => self.run_commands(),
                Token(socket) if socket >= TOKENS => self
                    .upstream_sockets
                    .queue(UpstreamSocketId::new(socket - TOKENS)),
                Token(listener) => self.queue(LocalListener::new(listener)),
            }
        }
        self.upstream_sockets
            .end_poll(events.iter().count() < EVENTS_MAX);
    }

    /// Returns the step that follows a round.
    fn next(&mut self) -> Next {
        if self.is_parked {
            Next::Park
        } else if self.is_over() || self.is_finished() {
            Next::End
        } else {
            Next::Round
        }
    }

    /// Runs one turn for everything that is ready: listeners first, then upstream sockets. Returns how long the next
    /// poll may wait.
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

    /// Runs one turn for each listener that is ready. Returns how long the next poll may wait.
    ///
    /// A turn that sends to a thousand upstreams is slow, and thousands of listeners may be ready. Therefore commands
    /// and the end of draining are checked after each turn, not after each round.
    fn take_requests(&mut self) -> Option<Duration> {
        let mut timeout = None;
        for _ in 0..self.ready.len() {
            if !self.commands.is_empty() {
                self.run_commands();
            }
            if self.is_over() {
                break;
            }
            let Some(listener) = self.ready.pop_front() else {
                break;
            };
            match self.request_turn(listener) {
                After::Drained => {
                    self.is_ready[listener.index()] = false;
                    continue;
                }
                After::More => timeout = Some(Duration::ZERO),
                After::Later => timeout = timeout.or(Some(LATER)),
            }
            self.ready.push_back(listener);
        }
        timeout
    }

    /// Makes one receive call for one listener, dispatches the datagrams, and flushes once.
    fn request_turn(&mut self, listener: LocalListener) -> After {
        let trains_max = self.listeners[listener.index()].trains_max;
        let is_tapped = !self.dispatcher.taps().is_empty();
        if let Some(after) = self.receive_requests(listener, is_tapped) {
            return after;
        }
        if is_tapped {
            self.dispatcher.taps().begin_turn(time_of_day_ns());
        }
        self.gather_requests(listener);
        self.dispatcher.set_time(self.now());
        let batch = Batch::new(&self.trains, self.receiver.arena());
        self.dispatcher
            .dispatch(listener, &batch, &mut self.upstream_sockets);
        self.dispatcher.end_turn();
        self.flush();
        if self.dispatcher.is_measured() {
            self.dispatcher.settle_latency(time_of_day_ns());
        }
        if trains_max > self.listeners[listener.index()].trains_max {
            self.receiver.release();
        }
        After::More
    }

    /// Makes one receive call. If the call returned no datagram, this returns the state of the listener.
    fn receive_requests(&mut self, listener: LocalListener, is_tapped: bool) -> Option<After> {
        let from = &self.listeners[listener.index()];
        // A tap shows the source even if no handler needs it.
        let receives_source = from.receives_source || is_tapped;
        let socket = from.send_socket.socket();
        let received = self
            .receiver
            .receive(socket, from.trains_max, receives_source);
        let meaning = errno::of_receive(&received.err()?);
        if meaning == ReceiveError::Drained {
            return Some(After::Drained);
        }
        self.dispatcher
            .listener_count(listener)
            .counters
            .receive_errors += 1;
        if meaning == ReceiveError::Again {
            Some(After::More)
        } else {
            Some(After::Later)
        }
    }

    /// Makes trains of the slots that a listener received. Trains that cannot be handled are counted as dropped.
    fn gather_requests(&mut self, listener: LocalListener) {
        self.trains.clear();
        let from = &mut self.listeners[listener.index()];
        for slot in self.receiver.slots() {
            from.adapt(&slot);
            if let Err(reason) = from.train(&slot, &mut self.trains)
                && let Some(train) = self.trains.pop()
            {
                let train = [train];
                let batch = Batch::new(&train, self.receiver.arena());
                self.dispatcher.refuse(listener, reason, &batch);
            }
        }
    }

    /// Sends the contents of the outbox, and notifies handlers of send failures on their sockets.
    fn flush(&mut self) {
        let (outbox, ledger) = self.dispatcher.sending();
        let sockets = FlushSockets {
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

    /// Calls the handlers whose deadline has passed. Returns how long the next poll may wait.
    fn run_timers(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let now = self.now();
        if self.deadline.is_none_or(|deadline| deadline <= now) {
            if self
                .dispatcher
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.dispatcher.set_time(now);
                self.dispatcher.run_timers(&mut self.upstream_sockets);
                self.flush();
            }
            // Any timer that is set in the meantime has a later deadline.
            let deadline = self.dispatcher.deadline();
            self.deadline =
                deadline.map(|deadline| deadline.clamp(now.after(TICK_MIN), now.after(TICK_MAX)));
        }
        let wait = self.deadline.map(|deadline| deadline.since(now));
        let outstanding = self.outstanding_until.map(|_| TICK_MIN);
        timeout.into_iter().chain(wait).chain(outstanding).min()
    }

    /// Returns the time since the epoch that all workers share.
    fn now(&self) -> Time {
        Time::default().after(self.epoch.elapsed())
    }

    /// Returns whether the loop must end now: the worker is parked, or its time for draining has expired.
    fn is_over(&self) -> bool {
        self.is_parked
            || self
                .stop_at
                .is_some_and(|stop_at| Instant::now() >= stop_at)
    }

    /// Returns whether a stopping worker has handled everything and no longer waits for outstanding replies.
    fn is_finished(&mut self) -> bool {
        if self.stop_at.is_none() || !self.ready.is_empty() || self.upstream_sockets.ready() > 0 {
            return false;
        }
        let now = Instant::now();
        now >= *self.outstanding_until.get_or_insert(now + OUTSTANDING_MAX)
            || !self.dispatcher.has_outstanding()
    }

    fn queue(&mut self, listener: LocalListener) {
        if self.stop_at.is_none() && !std::mem::replace(&mut self.is_ready[listener.index()], true)
        {
            self.ready.push_back(listener);
        }
    }

    /// Returns the ledger of a worker that does not run. Its sinks may still be at work.
    pub fn accounts(&self) -> Ledger {
        self.dispatcher.snapshot()
    }
}

/// Returns the wall-clock time in nanoseconds since 1970: the clock of the kernel's receive timestamps.
fn time_of_day_ns() -> u64 {
    nanoseconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}
