//! The ways to upstreams of one worker: sockets behind the numbers that handlers know. Some are there from the start,
//! one way, one for each upstream; the others are opened and closed for sessions, and receive.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use mio::Registry;

use super::send_socket::SendSocket;
use super::worker_state::UpstreamSocketState;
use crate::dispatch::handler::{self, HandlerId, Trouble, UpstreamId};
use crate::dispatch::ledger::{Ledger, Sent};
use crate::dispatch::limit::Limit;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::net::error_queue::{self, Origin};
use crate::net::receive::Receiver;
use crate::net::upstream::UpstreamSocketOptions;
use crate::net::{epoll, errno, option};

/// Tokens of sockets begin here; listeners have their numbers below.
pub const TOKENS: usize = 1 << 32;
const _: () = assert!(
    TOKENS > u32::MAX as usize,
    "no listener's number reaches the tokens of sockets, and every id has a token"
);

/// Most trains that one socket may bring in one turn.
const TRAINS_MAX: usize = 32;
/// Polls in a row that make a socket a busy one, and trains at once that prove it.
const STREAK: u8 = 8;

/// How long after a poll what it did not tell of is taken for empty. Far less than any quarantine of a port.
const POLL_AGE_MAX: Duration = Duration::from_millis(10);

/// An upstream as the worker knows it.
#[derive(Debug, Clone)]
pub struct UpstreamTarget {
    /// Whose it is.
    pub handler: HandlerId,
    /// Where it is now; `None`: nobody knows yet.
    pub address: Option<SocketAddr>,
    /// How its sockets are made.
    pub options: UpstreamSocketOptions,
    /// What it gets leaves under its sender's address.
    pub keeps_source: bool,
    /// How many source ports there may be, over all workers. Each local address has some, and other programs need some too.
    pub budget: Arc<Limit>,
}

/// One socket to an upstream.
#[derive(Debug)]
struct UpstreamSocket {
    send_socket: SendSocket,
    upstream: UpstreamId,
    /// Whether it receives.
    is_leased: bool,
    is_ready: bool,
    /// The poll that last told that it holds something.
    last_report: u32,
    /// Polls in a row that told of it.
    streak: u8,
    /// How many there must be until it is asked for more than one train.
    patience: u8,
    /// The kernel's drop counter when it was last read.
    drops_seen: u32,
}

impl UpstreamSocket {
    fn new(send_socket: SendSocket, upstream: UpstreamId, is_leased: bool) -> UpstreamSocket {
        UpstreamSocket {
            send_socket,
            upstream,
            is_leased,
            is_ready: false,
            last_report: 0,
            streak: 0,
            patience: STREAK,
            drops_seen: 0,
        }
    }

    /// How many trains the next look asks for.
    fn asks(&self) -> usize {
        if self.streak >= self.patience || self.send_socket.gathers() {
            TRAINS_MAX
        } else {
            1
        }
    }

    /// What the kernel dropped since the last call. Its counter has 32 bits and may wrap.
    fn new_kernel_drops(&mut self) -> u64 {
        let drops = option::kernel_drops(self.send_socket.socket()).unwrap_or(self.drops_seen);
        u64::from(drops.wrapping_sub(std::mem::replace(&mut self.drops_seen, drops)))
    }
}

/// A socket that may hold something.
pub struct Ready<'a> {
    /// Its number.
    pub id: UpstreamSocketId,
    /// Whose it is.
    pub handler: HandlerId,
    /// Its socket.
    pub send_socket: &'a SendSocket,
    /// How many trains to ask it for: one, unless it has had more each time.
    pub asks: usize,
}

impl Ready<'_> {
    /// One receive call, beside what other sockets brought this turn. `None` where there is nothing; `reports` are then errors that
    /// came back from the upstream.
    pub fn receive(
        &self,
        receiver: &mut Receiver,
        reports: &mut Vec<(UpstreamSocketId, i32)>,
    ) -> Option<usize> {
        let socket = self.send_socket.socket();
        let received = match self.asks {
            1 => receiver.receive_one(socket),
            asks => receiver.receive_more(socket, asks),
        };
        if received.is_err() {
            // The error itself is one of the queue, which would be told of by every poll if nobody emptied it.
            let _ = error_queue::drain(socket, |failure| {
                if failure.origin == Origin::Icmp {
                    reports.push((self.id, failure.errno));
                }
            });
        }
        received.ok()
    }
}

/// All sockets.
#[derive(Debug)]
pub struct UpstreamSockets {
    targets: Vec<UpstreamTarget>,
    slots: Vec<Option<UpstreamSocket>>,
    free: Vec<UpstreamSocketId>,
    /// Closed by their handler this turn; what is on them is still to be sent.
    closing: Vec<UpstreamSocketId>,
    /// The epoll instance that receiving sockets are registered with; none in a test.
    epoll: Option<Registry>,
    polls: u32,
    /// When the last poll began, and whether it told of all that there was.
    polled: Time,
    is_poll_complete: bool,
    /// Those that may hold something.
    ready: VecDeque<UpstreamSocketId>,
    /// Openings that failed, for the ledger.
    failures: Vec<(UpstreamId, i32)>,
    /// What sending has met.
    troubles: Vec<(UpstreamSocketId, Trouble)>,
    /// Answers that were thrown away, for the ledger.
    discarded: Vec<(UpstreamId, u64)>,
}

impl UpstreamSockets {
    /// No sockets yet; `targets` by upstream number.
    pub fn new(targets: Vec<UpstreamTarget>) -> UpstreamSockets {
        UpstreamSockets {
            targets,
            slots: Vec::new(),
            free: Vec::new(),
            closing: Vec::new(),
            epoll: None,
            polls: 0,
            polled: Time::default(),
            is_poll_complete: false,
            ready: VecDeque::new(),
            failures: Vec::new(),
            troubles: Vec::new(),
            discarded: Vec::new(),
        }
    }

    /// Adds a socket that is there from the start, one way.
    pub fn open_one_way(&mut self, upstream: UpstreamId) -> io::Result<UpstreamSocketId> {
        let target = &self.targets[upstream.index()];
        let send_socket = match target.address {
            Some(address) => SendSocket::to_upstream(address, target.options, target.keeps_source)?,
            None => SendSocket::nowhere(target.options)?,
        };
        Ok(self.add(UpstreamSocket::new(send_socket, upstream, false)))
    }

    /// Registers what receives from now on.
    pub fn register_with(&mut self, epoll: Registry) {
        self.epoll = Some(epoll);
    }

    /// A poll begins.
    pub fn begin_poll(&mut self, now: Time) {
        self.polls = self.polls.wrapping_add(1);
        self.polled = now;
    }

    /// It is over, and may have had no room for all that there was to tell.
    pub fn end_poll(&mut self, is_poll_complete: bool) {
        self.is_poll_complete = is_poll_complete;
    }

    /// Whether the last poll told of all that there was.
    pub fn is_poll_complete(&self) -> bool {
        self.is_poll_complete
    }

    /// The sending side of a socket, and whose upstream it leads to; `None` if it was closed.
    pub fn send_socket(
        &mut self,
        id: UpstreamSocketId,
    ) -> Option<(&mut SendSocket, HandlerId, UpstreamId)> {
        let slot = self.slots.get_mut(id.0 as usize)?.as_mut()?;
        Some((
            &mut slot.send_socket,
            self.targets[slot.upstream.index()].handler,
            slot.upstream,
        ))
    }

    /// An event says that a socket holds something. One that many polls in a row tell of may have a queue.
    pub fn queue(&mut self, id: UpstreamSocketId) {
        let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) else {
            return;
        };
        if slot.is_ready {
            return; // It has waited for its turn all the while.
        }
        let is_again = slot.last_report.wrapping_add(1) == self.polls;
        slot.streak = if is_again {
            slot.streak.saturating_add(1)
        } else {
            0
        };
        slot.last_report = self.polls;
        slot.is_ready = true;
        self.ready.push_back(id);
    }

    /// What a look at a socket has brought. One that has a queue is asked for more at once, and its datagrams may come together;
    /// one that has none, for all that it is told of so often, is left in peace twice as long.
    pub fn had(&mut self, id: UpstreamSocketId, trains: usize) {
        let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) else {
            return;
        };
        if slot.asks() == 1 {
            return;
        }
        if trains > 1 {
            slot.patience = 0;
        } else {
            slot.streak = 0;
            slot.patience = slot.patience.saturating_mul(2).max(STREAK);
        }
        if trains >= usize::from(STREAK) {
            slot.send_socket.gather_trains();
        }
    }

    /// How many sockets hold something.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The next of them. If more is left in it, the next poll tells.
    pub fn next_ready(&mut self) -> Option<Ready<'_>> {
        let id = loop {
            let id = self.ready.pop_front()?;
            if self.slots[id.0 as usize].is_some() {
                break id;
            }
        };
        let slot = self.slots[id.0 as usize].as_mut()?;
        slot.is_ready = false;
        let handler = self.targets[slot.upstream.index()].handler;
        let asks = slot.asks();
        Some(Ready {
            id,
            handler,
            send_socket: &slot.send_socket,
            asks,
        })
    }

    /// The upstream is elsewhere now. One-way sockets follow; leased ones are the handler's business.
    pub fn moved(&mut self, upstream: UpstreamId, to: SocketAddr) {
        self.targets[upstream.index()].address = Some(to);
        let UpstreamTarget {
            options,
            keeps_source,
            ..
        } = self.targets[upstream.index()];
        for slot in self
            .slots
            .iter_mut()
            .flatten()
            .filter(|slot| slot.upstream == upstream && !slot.is_leased)
        {
            match SendSocket::to_upstream(to, options, keeps_source) {
                Ok(send_socket) => slot.send_socket = send_socket,
                Err(error) => self
                    .failures
                    .push((upstream, error.raw_os_error().unwrap_or(0))),
            }
        }
    }

    /// Whose an upstream is.
    pub fn owner(&self, upstream: UpstreamId) -> HandlerId {
        self.targets[upstream.index()].handler
    }

    /// There was trouble on a socket.
    pub fn note(&mut self, id: UpstreamSocketId, trouble: Trouble) {
        self.troubles.push((id, trouble));
    }

    /// Word came back on a socket that something was lost.
    pub fn report(&mut self, id: UpstreamSocketId, errno: i32, ledger: &mut Ledger) {
        if let Some((_, handler, upstream)) = self.send_socket(id) {
            ledger.handlers[handler.index()].record(Sent::Reported(errno));
            ledger.upstreams[upstream.index()].record(Sent::Reported(errno));
            self.note(id, Trouble::Reported(errno));
        }
    }

    /// The next trouble, with the handler that should know.
    pub fn next_trouble(&mut self) -> Option<(HandlerId, UpstreamSocketId, Trouble)> {
        loop {
            let (id, trouble) = self.troubles.pop()?;
            if let Some((_, handler, _)) = self.send_socket(id) {
                return Some((handler, id, trouble));
            }
        }
    }

    /// After a flush: closes what was given up, and writes down what could not be opened.
    pub fn settle(&mut self, ledger: &mut Ledger) {
        for id in self.closing.drain(..) {
            if let Some(mut slot) = self.slots[id.0 as usize].take() {
                ledger.upstreams[slot.upstream.index()].kernel_drops += slot.new_kernel_drops();
                self.targets[slot.upstream.index()].budget.give_back();
                self.free.push(id);
            }
        }
        for (upstream, errno) in self.failures.drain(..) {
            ledger.upstreams[upstream.index()].fail(errno, 1);
        }
        for (upstream, replies) in self.discarded.drain(..) {
            ledger.late(self.targets[upstream.index()].handler, upstream, replies);
        }
    }

    /// Counts the answers that the kernel has dropped: a system call for each socket that receives.
    pub fn read_kernel_drops(&mut self, ledger: &mut Ledger) {
        for slot in self
            .slots
            .iter_mut()
            .flatten()
            .filter(|slot| slot.is_leased)
        {
            ledger.upstreams[slot.upstream.index()].kernel_drops += slot.new_kernel_drops();
        }
    }

    /// What is known of each socket.
    pub fn save(&self) -> Vec<UpstreamSocketState> {
        let numbered = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(id, slot)| Some((id, slot.as_ref()?)));
        let state = |(id, slot): (usize, &UpstreamSocket)| UpstreamSocketState {
            socket: UpstreamSocketId::new(id),
            upstream: slot.upstream,
            is_leased: slot.is_leased,
            drops_seen: slot.drops_seen,
            sticky: slot.send_socket.sticky(),
        };
        numbered.map(state).collect()
    }

    /// The sockets of all upstreams, in the order of [`UpstreamSockets::save`].
    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.slots
            .iter()
            .flatten()
            .map(|slot| slot.send_socket.socket())
    }

    /// The same, for good.
    pub fn into_sockets(self) -> Vec<UdpSocket> {
        self.slots
            .into_iter()
            .flatten()
            .map(|slot| slot.send_socket.into_socket())
            .collect()
    }

    /// Goes on with a socket that another worker has left; `upstream` is its number here. One that is there from the start
    /// keeps its source port.
    pub fn inherit(
        &mut self,
        left: &UpstreamSocketState,
        upstream: UpstreamId,
        socket: UdpSocket,
    ) -> io::Result<Option<UpstreamSocketId>> {
        if !left.is_leased {
            let own = |slot: &&mut UpstreamSocket| slot.upstream == upstream && !slot.is_leased;
            if let Some(slot) = self.slots.iter_mut().flatten().find(own)
                && slot.send_socket.replace_socket(socket, left.sticky)
            {
                slot.drops_seen = left.drops_seen;
            }
            return Ok(None);
        }
        let UpstreamTarget {
            options, budget, ..
        } = &self.targets[upstream.index()];
        // It is open whether or not there are still so many to be had.
        budget.force();
        let send_socket = SendSocket::for_inherited(socket, *options, left.sticky);
        let id = self.add(UpstreamSocket {
            drops_seen: left.drops_seen,
            ..UpstreamSocket::new(send_socket, upstream, true)
        });
        let registered = self.register(id);
        if registered.is_err() {
            self.targets[upstream.index()].budget.give_back();
        }
        registered.map(|()| Some(id))
    }

    fn add(&mut self, slot: UpstreamSocket) -> UpstreamSocketId {
        match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = Some(slot);
                id
            }
            None => {
                self.slots.push(Some(slot));
                UpstreamSocketId::new(self.slots.len() - 1)
            }
        }
    }

    fn open_leased(
        &mut self,
        upstream: UpstreamId,
        address: SocketAddr,
    ) -> io::Result<UpstreamSocketId> {
        let send_socket = SendSocket::for_session(address, self.targets[upstream.index()].options)?;
        let id = self.add(UpstreamSocket::new(send_socket, upstream, true));
        self.register(id).map(|()| id)
    }

    /// Has the poll tell of a new socket; where it cannot, the socket is gone.
    fn register(&mut self, id: UpstreamSocketId) -> io::Result<()> {
        let place = id.0 as usize;
        if let (Some(epoll), Some(slot)) = (&self.epoll, &self.slots[place])
            && let Err(error) =
                epoll::add_level(epoll, slot.send_socket.socket(), (TOKENS + place) as u64)
        {
            self.slots[place] = None;
            self.free.push(id);
            return Err(error);
        }
        Ok(())
    }
}

impl handler::SocketTable for UpstreamSockets {
    fn open(&mut self, upstream: UpstreamId) -> Result<UpstreamSocketId, DropReason> {
        let target = &self.targets[upstream.index()];
        let Some(address) = target.address else {
            return Err(DropReason::NoUpstream);
        };
        let budget = Arc::clone(&target.budget);
        if !budget.take() {
            return Err(DropReason::NoPort);
        }
        self.open_leased(upstream, address).map_err(|error| {
            budget.give_back();
            self.failures
                .push((upstream, error.raw_os_error().unwrap_or(0)));
            if errno::lacks_port(&error) {
                DropReason::NoPort
            } else {
                DropReason::NoUpstream
            }
        })
    }

    fn upstream(&self, id: UpstreamSocketId) -> Option<UpstreamId> {
        self.slots
            .get(id.0 as usize)?
            .as_ref()
            .map(|slot| slot.upstream)
    }

    fn close(&mut self, id: UpstreamSocketId) {
        self.closing.push(id);
    }

    /// Costs a system call only where the socket may hold something: it was told of, or not all could be, or the loop has
    /// stood still, and with it the time that sockets are read in.
    fn discard_queue(&mut self, id: UpstreamSocketId, now: Time) {
        let Some(Some(slot)) = self.slots.get(id.0 as usize) else {
            return;
        };
        let is_reported = slot.is_ready || slot.last_report == self.polls;
        if is_reported || !self.is_poll_complete || now.since(self.polled) > POLL_AGE_MAX {
            let discarded = slot.send_socket.discard_queue();
            if discarded > 0 {
                self.discarded.push((slot.upstream, discarded));
            }
        }
    }
}
