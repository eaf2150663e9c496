//! The sockets of one worker to its upstreams, addressed by the ids that handlers use. Each stateless upstream has a
//! one-way socket from the start. The others are opened and closed for sessions, and receive.

mod socket;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use mio::Registry;

pub use self::socket::Ready;
use self::socket::{STREAK, UpstreamSocket};
use super::send_socket::SendSocket;
use super::worker_state::UpstreamSocketState;
use crate::dispatch::handler::{self, HandlerId, Trouble, UpstreamId};
use crate::dispatch::id::UpstreamSocketId;
use crate::dispatch::ledger::{Ledger, Sent};
use crate::dispatch::limit::Limit;
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::net::upstream::UpstreamSocketOptions;
use crate::net::{epoll, errno};

/// The first token of an upstream socket; lower tokens are indexes of listeners.
pub const TOKENS: usize = 1 << 32;
const _: () = assert!(
    TOKENS > u32::MAX as usize,
    "no listener's number reaches the tokens of sockets, and every id has a token"
);

/// A socket that the last poll did not report is assumed to be empty for this long after that poll. Must stay far below
/// the shortest port quarantine.
const POLL_AGE_MAX: Duration = Duration::from_millis(10);

/// A worker's view of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamTarget {
    /// The handler that the upstream belongs to.
    pub handler: HandlerId,
    /// The current address; `None` until it is resolved.
    pub address: Option<SocketAddr>,
    /// The options that its sockets are made with.
    pub options: UpstreamSocketOptions,
    /// Whether datagrams leave with their sender's address as source.
    pub keeps_source: bool,
    /// The limit of source ports over all workers. Each local address has a limited range, and other programs need some
    /// of it.
    pub budget: Arc<Limit>,
}

/// All upstream sockets of one worker.
#[derive(Debug)]
pub struct UpstreamSockets {
    targets: Vec<UpstreamTarget>,
    slots: Vec<Option<UpstreamSocket>>,
    free: Vec<UpstreamSocketId>,
    /// Sockets that a handler closed this turn; datagrams for them are still to be sent.
    closing: Vec<UpstreamSocketId>,
    /// The epoll instance that receiving sockets are registered with; `None` before the worker is built, and in tests.
    epoll: Option<Registry>,
    polls: u32,
    /// The time at which the last poll began.
    polled: Time,
    is_poll_complete: bool,
    /// Sockets that may hold datagrams.
    ready: VecDeque<UpstreamSocketId>,
    /// Sockets that could not be opened, as errnos, for the ledger.
    failures: Vec<(UpstreamId, i32)>,
    /// Errors of send calls, for the handlers.
    troubles: Vec<(UpstreamSocketId, Trouble)>,
    /// The number of discarded replies, for the ledger.
    discarded: Vec<(UpstreamId, u64)>,
}

impl UpstreamSockets {
    /// Makes an empty set. `targets` are indexed by upstream number.
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

    /// Opens a one-way socket to an upstream. It stays open as long as the worker.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be made or connected: see [`SendSocket::to_upstream`].
    pub fn open_one_way(&mut self, upstream: UpstreamId) -> io::Result<UpstreamSocketId> {
        let target = &self.targets[upstream.index()];
        let send_socket = match target.address {
            Some(address) => SendSocket::to_upstream(address, target.options, target.keeps_source)?,
            None => SendSocket::unresolved(target.options)?,
        };
        Ok(self.add(UpstreamSocket::new(send_socket, upstream, false)))
    }

    /// Sets the epoll instance that receiving sockets are registered with from now on.
    pub fn register_with(&mut self, epoll: Registry) {
        self.epoll = Some(epoll);
    }

    /// Records that a poll begins.
    pub fn begin_poll(&mut self, now: Time) {
        self.polls = self.polls.wrapping_add(1);
        self.polled = now;
    }

    /// Records that a poll has ended, and whether it could report every ready socket.
    pub fn end_poll(&mut self, is_poll_complete: bool) {
        self.is_poll_complete = is_poll_complete;
    }

    /// Returns whether the last poll could report every ready socket.
    pub fn is_poll_complete(&self) -> bool {
        self.is_poll_complete
    }

    /// Returns the sending side of a socket, the handler that owns it and the upstream that it leads to; `None` if the
    /// socket was closed.
    pub fn send_socket(
        &mut self,
        id: UpstreamSocketId,
    ) -> Option<(&mut SendSocket, HandlerId, UpstreamId)> {
        let slot = self.slots.get_mut(id.index())?.as_mut()?;
        Some((
            &mut slot.send_socket,
            self.targets[slot.upstream.index()].handler,
            slot.upstream,
        ))
    }

    /// Queues a socket that an event reported as readable. A socket that many consecutive polls report may have a
    /// queue.
    pub fn queue(&mut self, id: UpstreamSocketId) {
        let Some(Some(slot)) = self.slots.get_mut(id.index()) else {
            return;
        };
        if slot.is_ready {
            return; // An earlier report has queued it.
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

    /// Adapts the batch size after a read. A socket that returned more than one train is read in batches, with GRO once
    /// a read returned `STREAK` trains. A socket that is reported often but holds a single datagram is read singly,
    /// with a back-off that doubles each time.
    pub fn adapt(&mut self, id: UpstreamSocketId, trains: usize) {
        let Some(Some(slot)) = self.slots.get_mut(id.index()) else {
            return;
        };
        if slot.trains_max() == 1 {
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

    /// Returns the number of sockets that may hold datagrams.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the next ready socket. If the read leaves datagrams in it, the next poll reports it again.
    pub fn next_ready(&mut self) -> Option<Ready<'_>> {
        let id = loop {
            let id = self.ready.pop_front()?;
            if self.slots[id.index()].is_some() {
                break id;
            }
        };
        let slot = self.slots[id.index()].as_mut()?;
        slot.is_ready = false;
        let handler = self.targets[slot.upstream.index()].handler;
        let trains_max = slot.trains_max();
        Some(Ready {
            id,
            handler,
            send_socket: &slot.send_socket,
            trains_max,
        })
    }

    /// Records a new address of an upstream. One-way sockets are replaced; the handler decides about leased ones.
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

    /// Returns the handler that an upstream belongs to.
    pub fn owner(&self, upstream: UpstreamId) -> HandlerId {
        self.targets[upstream.index()].handler
    }

    /// Records an error on a socket, for its handler.
    pub fn note(&mut self, id: UpstreamSocketId, trouble: Trouble) {
        self.troubles.push((id, trouble));
    }

    /// Counts an ICMP error that came back on a socket, and records it for the handler.
    pub fn report(&mut self, id: UpstreamSocketId, errno: i32, ledger: &mut Ledger) {
        if let Some((_, handler, upstream)) = self.send_socket(id) {
            ledger.handlers[handler.index()].record(Sent::Reported(errno));
            ledger.upstreams[upstream.index()].record(Sent::Reported(errno));
            self.note(id, Trouble::Reported(errno));
        }
    }

    /// Takes the next recorded error, with the handler to notify.
    pub fn next_trouble(&mut self) -> Option<(HandlerId, UpstreamSocketId, Trouble)> {
        loop {
            let (id, trouble) = self.troubles.pop()?;
            if let Some((_, handler, _)) = self.send_socket(id) {
                return Some((handler, id, trouble));
            }
        }
    }

    /// Closes the sockets that handlers have closed, and counts failed openings and discarded replies. Called after a
    /// flush.
    pub fn settle(&mut self, ledger: &mut Ledger) {
        for id in self.closing.drain(..) {
            if let Some(mut slot) = self.slots[id.index()].take() {
                ledger.upstreams[slot.upstream.index()]
                    .counters
                    .kernel_drops += slot.new_kernel_drops();
                self.targets[slot.upstream.index()].budget.give_back();
                self.free.push(id);
            }
        }
        for (upstream, errno) in self.failures.drain(..) {
            ledger.upstreams[upstream.index()].fail(errno, 1);
        }
        for (upstream, replies) in self.discarded.drain(..) {
            ledger.count_late_replies(self.targets[upstream.index()].handler, upstream, replies);
        }
    }

    /// Counts the replies that the kernel dropped. This takes one system call for each socket that receives.
    pub fn read_kernel_drops(&mut self, ledger: &mut Ledger) {
        for slot in self
            .slots
            .iter_mut()
            .flatten()
            .filter(|slot| slot.is_leased)
        {
            ledger.upstreams[slot.upstream.index()]
                .counters
                .kernel_drops += slot.new_kernel_drops();
        }
    }

    /// Exports the state of each socket for the next worker.
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

    /// Returns the sockets of all upstreams, in the order of [`UpstreamSockets::save`].
    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.slots
            .iter()
            .flatten()
            .map(|slot| slot.send_socket.socket())
    }

    /// Takes out the sockets of all upstreams, in the order of [`UpstreamSockets::save`].
    pub fn into_sockets(self) -> Vec<UdpSocket> {
        self.slots
            .into_iter()
            .flatten()
            .map(|slot| slot.send_socket.into_socket())
            .collect()
    }

    /// Takes over a socket of another worker; `upstream` is the number of its upstream in this worker. A one-way socket
    /// only replaces the one that is open already, so that the source port stays. Returns the id of a leased socket,
    /// and `None` for a one-way one.
    ///
    /// # Errors
    ///
    /// Fails if epoll cannot register the socket; it is closed then.
    pub fn inherit(
        &mut self,
        saved: &UpstreamSocketState,
        upstream: UpstreamId,
        socket: UdpSocket,
    ) -> io::Result<Option<UpstreamSocketId>> {
        if !saved.is_leased {
            let own = |slot: &&mut UpstreamSocket| slot.upstream == upstream && !slot.is_leased;
            if let Some(slot) = self.slots.iter_mut().flatten().find(own)
                && slot.send_socket.replace_socket(socket, saved.sticky)
            {
                slot.drops_seen = saved.drops_seen;
            }
            return Ok(None);
        }
        let UpstreamTarget {
            options, budget, ..
        } = &self.targets[upstream.index()];
        // The socket is open already, even if the limit is exhausted.
        budget.force();
        let send_socket = SendSocket::for_inherited(socket, *options, saved.sticky);
        let id = self.add(UpstreamSocket {
            drops_seen: saved.drops_seen,
            ..UpstreamSocket::new(send_socket, upstream, true)
        });
        let registered = self.register(id);
        if registered.is_err() {
            self.targets[upstream.index()].budget.give_back();
        }
        registered.map(|()| Some(id))
    }

    fn add(&mut self, slot: UpstreamSocket) -> UpstreamSocketId {
        if let Some(id) = self.free.pop() {
            self.slots[id.index()] = Some(slot);
            id
        } else {
            self.slots.push(Some(slot));
            UpstreamSocketId::new(self.slots.len() - 1)
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

    /// Registers a new socket with epoll. If that fails, the socket is closed.
    fn register(&mut self, id: UpstreamSocketId) -> io::Result<()> {
        let place = id.index();
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
            .get(id.index())?
            .as_ref()
            .map(|slot| slot.upstream)
    }

    fn close(&mut self, id: UpstreamSocketId) {
        self.closing.push(id);
    }

    /// Makes a system call only if the socket may hold datagrams: if a poll reported it, or if the last poll was
    /// incomplete or too long ago.
    fn discard_queue(&mut self, id: UpstreamSocketId, now: Time) {
        let Some(Some(slot)) = self.slots.get(id.index()) else {
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
