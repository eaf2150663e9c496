//! The leases of upstream sockets by sessions, and the free source ports of each upstream.

use crate::dispatch::handler::{Context, UpstreamId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::SavedPort;
use crate::dispatch::sessions::ports::{FreePorts, Lease, RETRY, RETRY_UNREACHABLE};
use crate::dispatch::sessions::{LegRecord, SessionId};
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// The most ports that one call closes; this takes about half a millisecond.
const CLOSES_MAX: usize = 256;
/// The time between two searches for unused ports.
const SHRINK_NS: u64 = 1_000_000_000;
/// The time to the next search if the last one found more ports than it may close. Other workers may need the ports.
const SHRINK_ON_NS: u64 = 10_000_000;

/// The lease state of one socket.
#[derive(Debug, Clone, Copy)]
struct PortLease {
    session: Option<SessionId>,
    /// The upstream's generation when the socket was opened.
    generation: u32,
    /// The record of the present session on this socket.
    leg: LegRecord,
}

/// The leases and free ports of one upstream.
struct Branch {
    id: UpstreamId,
    /// The one-way socket, which is open from the start.
    one_way: UpstreamSocketId,
    ports: FreePorts,
    /// The reason why no port could be opened at the last attempt.
    last_failure: DropReason,
    /// The number of address changes of the upstream.
    generation: u32,
    sessions: u64,
    replies: u64,
}

/// All leases of one forwarder in one worker.
pub struct SourcePorts {
    branches: Vec<Branch>,
    /// The leases by socket number.
    by_socket: Vec<Option<PortLease>>,
    /// Whether sessions lease their own ports; otherwise they share the one-way sockets.
    is_leasing: bool,
    open: u64,
    /// The time of the next search for unused ports.
    search_at: Time,
}

impl SourcePorts {
    /// Starts without leased ports. `upstreams` are the upstreams with their one-way sockets.
    pub fn new(
        upstreams: impl Iterator<Item = (UpstreamId, UpstreamSocketId)>,
        is_leasing: bool,
    ) -> SourcePorts {
        let branch = |(id, one_way)| Branch {
            id,
            one_way,
            ports: FreePorts::default(),
            last_failure: DropReason::NoPort,
            generation: 0,
            sessions: 0,
            replies: 0,
        };
        let branches = upstreams.map(branch).collect::<Vec<_>>();
        let mut source_ports = SourcePorts {
            branches,
            by_socket: Vec::new(),
            is_leasing,
            open: 0,
            search_at: Time::default(),
        };
        for place in 0..source_ports.branches.len() {
            source_ports.track(source_ports.branches[place].one_way, place);
        }
        source_ports
    }

    /// Leases a socket to an upstream for a new session. The caller then calls [`SourcePorts::assign`].
    ///
    /// # Errors
    ///
    /// Returns the drop reason of the last failed attempt if no port is free and none can be opened.
    pub fn lease(
        &mut self,
        place: usize,
        cx: &mut Context<'_>,
    ) -> Result<UpstreamSocketId, DropReason> {
        let branch = &mut self.branches[place];
        if !self.is_leasing {
            branch.sessions += 1;
            return Ok(branch.one_way);
        }
        let mut lease = branch.ports.lease(cx.now());
        if lease == Lease::Open {
            match cx.open(branch.id) {
                Ok(socket) => {
                    self.open += 1;
                    self.branches[place].sessions += 1;
                    self.track(socket, place);
                    return Ok(socket);
                }
                Err(reason) => branch.last_failure = reason,
            }
            let retry = if branch.last_failure == DropReason::NoPort {
                RETRY
            } else {
                RETRY_UNREACHABLE
            };
            lease = branch.ports.failed(cx.now(), retry);
        }
        let Lease::Reusable(socket) = lease else {
            return Err(branch.last_failure);
        };
        branch.sessions += 1;
        cx.discard_queue(socket);
        Ok(socket)
    }

    /// Assigns a leased socket to a session.
    pub fn assign(&mut self, socket: UpstreamSocketId, session: SessionId) {
        if self.is_leasing
            && let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize)
        {
            lease.session = Some(session);
            lease.leg.requests = 0;
            lease.leg.replies = 0;
        }
    }

    /// Counts requests that were sent on a socket.
    #[inline]
    pub fn requested(&mut self, socket: UpstreamSocketId, datagrams: u32) {
        if let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) {
            lease.leg.requests = lease.leg.requests.saturating_add(datagrams);
        }
    }

    /// Counts replies that were received on a socket.
    #[inline]
    pub fn replied(&mut self, socket: UpstreamSocketId, datagrams: u32) {
        if let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) {
            lease.leg.replies = lease.leg.replies.saturating_add(datagrams);
        }
    }

    /// Returns the record of the session on a socket, since the session leased it.
    pub fn leg(&self, socket: UpstreamSocketId) -> Option<LegRecord> {
        Some((*self.by_socket.get(socket.0 as usize)?)?.leg)
    }

    /// Ends the lease of a socket. `seen` is the time of the session's last datagram. Each socket counts its own
    /// outstanding replies: a session's single reply may come from another upstream.
    pub fn release(&mut self, socket: UpstreamSocketId, seen: Time, cx: &mut Context<'_>) {
        let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) else {
            return;
        };
        lease.session = None;
        let lease = *lease;
        let branch = &mut self.branches[usize::from(lease.leg.place)];
        branch.sessions -= 1;
        if !self.is_leasing {
            return;
        }
        if lease.generation != branch.generation || lease.leg.is_spoilt {
            return self.close(socket, cx);
        }
        branch.ports.release(
            socket,
            cx.now(),
            seen,
            lease.leg.replies < lease.leg.requests,
        );
    }

    /// Marks a socket that can no longer send, so that it is not leased again.
    pub fn spoil(&mut self, socket: UpstreamSocketId) {
        if let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) {
            lease.leg.is_spoilt = true;
        }
    }

    /// Handles a new address of the upstream: free sockets are closed at once, and leased ones when they are released.
    pub fn moved(&mut self, place: usize, cx: &mut Context<'_>) {
        self.branches[place].generation += 1;
        let free: Vec<UpstreamSocketId> = self.branches[place].ports.clear().collect();
        free.into_iter().for_each(|socket| self.close(socket, cx));
    }

    /// Closes some of the unused ports, if a search is due.
    pub fn shrink(&mut self, now: Time, cx: &mut Context<'_>) {
        if now < self.search_at {
            return;
        }
        let mut closes = 0;
        for place in 0..self.branches.len() {
            while closes < CLOSES_MAX
                && let Some(socket) = self.branches[place].ports.take_idle(now)
            {
                self.close(socket, cx);
                closes += 1;
            }
        }
        self.search_at = Time(
            now.0
                + if closes < CLOSES_MAX {
                    SHRINK_NS
                } else {
                    SHRINK_ON_NS
                },
        );
    }

    /// Returns the time of the next search for unused ports; `None` without free ports.
    pub fn deadline(&self) -> Option<Time> {
        let has_free_ports = self.branches.iter().any(|branch| !branch.ports.is_empty());
        has_free_ports.then_some(self.search_at)
    }

    /// Returns whether a session has received fewer replies than it sent requests.
    pub fn has_outstanding(&self) -> bool {
        self.by_socket
            .iter()
            .flatten()
            .any(|lease| lease.session.is_some() && lease.leg.replies < lease.leg.requests)
    }

    /// Returns whether sessions lease their own ports.
    pub fn is_leasing(&self) -> bool {
        self.is_leasing
    }

    /// Returns the free ports of each upstream.
    pub fn ports(&self) -> impl Iterator<Item = &FreePorts> {
        self.branches.iter().map(|branch| &branch.ports)
    }

    /// Returns the record of the session on a socket, for another forwarder. In that record, the socket is also spoilt
    /// if its upstream has moved to another address.
    pub fn save_leg(&self, socket: UpstreamSocketId) -> Option<LegRecord> {
        let PortLease {
            generation, leg, ..
        } = (*self.by_socket.get(socket.0 as usize)?)?;
        let has_moved = generation != self.branches[usize::from(leg.place)].generation;
        Some(LegRecord {
            is_spoilt: leg.is_spoilt || has_moved,
            ..leg
        })
    }

    /// Takes over the socket of a session that another forwarder saved.
    pub fn inherit_leg(&mut self, saved: LegRecord, session: SessionId) -> UpstreamSocketId {
        let place = usize::from(saved.place);
        self.branches[place].sessions += 1;
        let Some(socket) = saved.socket else {
            return self.branches[place].one_way;
        };
        self.open += 1;
        self.track(socket, place);
        if let Some(lease) = &mut self.by_socket[socket.0 as usize] {
            lease.session = Some(session);
            lease.leg = saved;
        }
        socket
    }

    /// Takes over a free port that another forwarder saved.
    pub fn inherit_port(&mut self, saved: SavedPort, cx: &mut Context<'_>) {
        let place = usize::from(saved.place);
        if !self.is_leasing || place >= self.branches.len() {
            return cx.close(saved.port.socket);
        }
        self.open += 1;
        self.track(saved.port.socket, place);
        self.branches[place].ports.restore(saved.port, cx.now());
    }

    /// Returns the session that leases a socket, and the index of its upstream.
    #[inline]
    pub fn session(&self, socket: UpstreamSocketId) -> Option<(SessionId, usize)> {
        let lease = (*self.by_socket.get(socket.0 as usize)?)?;
        Some((lease.session?, usize::from(lease.leg.place)))
    }

    /// Returns the index of the upstream that a socket leads to.
    #[inline]
    pub fn place(&self, socket: UpstreamSocketId) -> Option<usize> {
        Some(usize::from(
            (*self.by_socket.get(socket.0 as usize)?)?.leg.place,
        ))
    }

    /// Returns the number of sessions of an upstream.
    pub fn sessions(&self, place: usize) -> u64 {
        self.branches[place].sessions
    }

    /// Counts replies of an upstream.
    pub fn count_replies(&mut self, place: usize, datagrams: u32) {
        self.branches[place].replies += u64::from(datagrams);
    }

    /// Returns the number of replies from an upstream.
    pub fn replies(&self, place: usize) -> u64 {
        self.branches[place].replies
    }

    /// Returns the number of open source ports.
    pub fn open(&self) -> u64 {
        self.open
    }

    fn track(&mut self, socket: UpstreamSocketId, place: usize) {
        if self.by_socket.len() <= socket.0 as usize {
            self.by_socket.resize(socket.0 as usize + 1, None);
        }
        let generation = self.branches[place].generation;
        self.by_socket[socket.0 as usize] = Some(PortLease {
            session: None,
            generation,
            leg: LegRecord {
                place: number::to_u16(place),
                socket: self.is_leasing.then_some(socket),
                requests: 0,
                replies: 0,
                is_spoilt: false,
            },
        });
    }

    fn close(&mut self, socket: UpstreamSocketId, cx: &mut Context<'_>) {
        self.by_socket[socket.0 as usize] = None;
        self.open -= 1;
        cx.close(socket);
    }
}
