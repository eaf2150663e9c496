//! Which session has which socket, and the free ones of each upstream.

use crate::dispatch::handler::{Context, UpstreamId};
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::{SavedLeg, SavedPort};
use crate::dispatch::sessions::SessionId;
use crate::dispatch::sessions::ports::{FreePorts, Lease, RETRY, RETRY_WAY};
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// Ports that are closed in one call for the sake of time, half a millisecond's worth.
const CLOSES_MAX: usize = 256;
/// Time between two looks for ports that nobody needs.
const SHRINK_NS: u64 = 1_000_000_000;
/// The same where one look has found more than it may close: others may be waiting for ports.
const SHRINK_ON_NS: u64 = 10_000_000;

/// What is known of one socket.
#[derive(Debug, Clone, Copy)]
struct PortLease {
    session: Option<SessionId>,
    /// The place of the upstream that it leads to.
    place: u16,
    /// The upstream's generation when it was opened.
    generation: u32,
    /// Datagrams that its session sent and got.
    requests: u32,
    replies: u32,
    is_spoilt: bool,
}

/// What a socket's session is owed there.
#[derive(Debug, Clone, Copy)]
pub struct Outstanding {
    /// The place of the upstream.
    pub place: usize,
    /// Datagrams that went out.
    pub requests: u32,
    /// Datagrams that came back.
    pub replies: u32,
}

/// One upstream's part.
struct Branch {
    id: UpstreamId,
    /// The socket that is there from the start.
    one_way: UpstreamSocketId,
    ports: FreePorts,
    /// Why none could be opened when that was last tried.
    lacks: DropReason,
    /// How often the upstream has moved.
    generation: u32,
    sessions: u64,
    replies: u64,
}

/// All sockets of one forwarder in one worker.
pub struct SourcePorts {
    branches: Vec<Branch>,
    /// By socket number.
    by_socket: Vec<Option<PortLease>>,
    /// Whether sessions have ports of their own; otherwise they share the one-way sockets.
    is_leasing: bool,
    open: u64,
    /// When to look for ports that nobody needs.
    look_at: Time,
}

impl SourcePorts {
    /// Of upstreams and their one-way sockets.
    pub fn new(
        upstreams: impl Iterator<Item = (UpstreamId, UpstreamSocketId)>,
        is_leasing: bool,
    ) -> SourcePorts {
        let branch = |(id, one_way)| {
            let (ports, lacks) = (FreePorts::default(), DropReason::NoPort);
            Branch {
                id,
                one_way,
                ports,
                lacks,
                generation: 0,
                sessions: 0,
                replies: 0,
            }
        };
        let branches = upstreams.map(branch).collect::<Vec<_>>();
        let mut source_ports = SourcePorts {
            branches,
            by_socket: Vec::new(),
            is_leasing,
            open: 0,
            look_at: Time::default(),
        };
        for place in 0..source_ports.branches.len() {
            source_ports.track(source_ports.branches[place].one_way, place);
        }
        source_ports
    }

    /// A socket to an upstream for a new session; it is to be assigned.
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
                Err(reason) => branch.lacks = reason,
            }
            let retry = if branch.lacks == DropReason::NoPort {
                RETRY
            } else {
                RETRY_WAY
            };
            lease = branch.ports.failed(cx.now(), retry);
        }
        let Lease::Reusable(socket) = lease else {
            return Err(branch.lacks);
        };
        branch.sessions += 1;
        cx.discard_queue(socket);
        Ok(socket)
    }

    /// Says whose a leased socket is.
    pub fn assign(&mut self, socket: UpstreamSocketId, session: SessionId) {
        if self.is_leasing
            && let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize)
        {
            (lease.session, lease.requests, lease.replies) = (Some(session), 0, 0);
        }
    }

    /// So many datagrams went out on a socket.
    #[inline]
    pub fn requested(&mut self, socket: UpstreamSocketId, datagrams: u32) {
        if let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) {
            lease.requests = lease.requests.saturating_add(datagrams);
        }
    }

    /// So many came back.
    #[inline]
    pub fn replied(&mut self, socket: UpstreamSocketId, datagrams: u32) {
        if let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) {
            lease.replies = lease.replies.saturating_add(datagrams);
        }
    }

    /// What went out on a socket and came back since its session has it.
    pub fn outstanding(&self, socket: UpstreamSocketId) -> Option<Outstanding> {
        let PortLease {
            place,
            requests,
            replies,
            ..
        } = (*self.by_socket.get(socket.0 as usize)?)?;
        Some(Outstanding {
            place: usize::from(place),
            requests,
            replies,
        })
    }

    /// A session gives a socket back. `seen` is when its last datagram passed. Whether answers are owed is the socket's own
    /// matter: of several upstreams that were asked, one may have answered for all.
    pub fn release(&mut self, socket: UpstreamSocketId, seen: Time, cx: &mut Context<'_>) {
        let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) else {
            return;
        };
        lease.session = None;
        let lease = *lease;
        let branch = &mut self.branches[usize::from(lease.place)];
        branch.sessions -= 1;
        if !self.is_leasing {
            return;
        }
        if lease.generation != branch.generation || lease.is_spoilt {
            return self.close(socket, cx);
        }
        branch
            .ports
            .release(socket, cx.now(), seen, lease.replies < lease.requests);
    }

    /// Nothing can be sent on a socket any more: it is not leased again.
    pub fn spoil(&mut self, socket: UpstreamSocketId) {
        if let Some(Some(lease)) = self.by_socket.get_mut(socket.0 as usize) {
            lease.is_spoilt = true;
        }
    }

    /// The upstream is elsewhere now: free sockets are closed at once, leased ones when they come back.
    pub fn moved(&mut self, place: usize, cx: &mut Context<'_>) {
        self.branches[place].generation += 1;
        let free: Vec<UpstreamSocketId> = self.branches[place].ports.clear().collect();
        free.into_iter().for_each(|socket| self.close(socket, cx));
    }

    /// Closes some of those that nobody needs.
    pub fn shrink(&mut self, now: Time, cx: &mut Context<'_>) {
        if now < self.look_at {
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
        self.look_at = Time(
            now.0
                + if closes < CLOSES_MAX {
                    SHRINK_NS
                } else {
                    SHRINK_ON_NS
                },
        );
    }

    /// When to look for them.
    pub fn deadline(&self) -> Option<Time> {
        let is_any = self.branches.iter().any(|branch| !branch.ports.is_empty());
        is_any.then_some(self.look_at)
    }

    /// Whether a session has fewer answers than requests from an upstream.
    pub fn has_outstanding(&self) -> bool {
        self.by_socket
            .iter()
            .flatten()
            .any(|lease| lease.session.is_some() && lease.replies < lease.requests)
    }

    /// Whether sessions have ports of their own.
    pub fn is_leasing(&self) -> bool {
        self.is_leasing
    }

    /// The free ports of each upstream.
    pub fn ports(&self) -> impl Iterator<Item = &FreePorts> {
        self.branches.iter().map(|branch| &branch.ports)
    }

    /// Whether a socket is to be closed when its session ends: nothing can be sent on it, or its upstream is elsewhere now.
    pub fn is_spoilt(&self, socket: UpstreamSocketId) -> bool {
        let Some(Some(lease)) = self.by_socket.get(socket.0 as usize) else {
            return true;
        };
        lease.is_spoilt || lease.generation != self.branches[usize::from(lease.place)].generation
    }

    /// Goes on with a socket of a session that another forwarder has left.
    pub fn inherit_leg(&mut self, left: &SavedLeg, session: SessionId) -> UpstreamSocketId {
        let place = usize::from(left.place);
        self.branches[place].sessions += 1;
        let Some(socket) = left.socket else {
            return self.branches[place].one_way;
        };
        self.open += 1;
        self.track(socket, place);
        if let Some(lease) = &mut self.by_socket[socket.0 as usize] {
            (lease.session, lease.requests, lease.replies) =
                (Some(session), left.requests, left.replies);
            lease.is_spoilt = left.is_spoilt;
        }
        socket
    }

    /// The same with a free port.
    pub fn inherit_port(&mut self, left: &SavedPort, cx: &mut Context<'_>) {
        let place = usize::from(left.place);
        if !self.is_leasing || place >= self.branches.len() {
            return cx.close(left.socket);
        }
        self.open += 1;
        self.track(left.socket, place);
        self.branches[place].ports.restore(
            left.socket,
            left.until,
            left.released,
            left.has_outstanding,
            cx.now(),
        );
    }

    /// Whose a socket is, and the place of its upstream.
    #[inline]
    pub fn session(&self, socket: UpstreamSocketId) -> Option<(SessionId, usize)> {
        let lease = (*self.by_socket.get(socket.0 as usize)?)?;
        Some((lease.session?, usize::from(lease.place)))
    }

    /// The place of the upstream that a socket leads to.
    #[inline]
    pub fn place(&self, socket: UpstreamSocketId) -> Option<usize> {
        Some(usize::from(
            (*self.by_socket.get(socket.0 as usize)?)?.place,
        ))
    }

    /// How many sessions an upstream has.
    pub fn sessions(&self, place: usize) -> u64 {
        self.branches[place].sessions
    }

    /// Counts what an upstream answered.
    pub fn count_replies(&mut self, place: usize, datagrams: u32) {
        self.branches[place].replies += u64::from(datagrams);
    }

    /// How much an upstream answered.
    pub fn replies(&self, place: usize) -> u64 {
        self.branches[place].replies
    }

    /// How many source ports are open.
    pub fn open(&self) -> u64 {
        self.open
    }

    fn track(&mut self, socket: UpstreamSocketId, place: usize) {
        if self.by_socket.len() <= socket.0 as usize {
            self.by_socket.resize(socket.0 as usize + 1, None);
        }
        let generation = self.branches[place].generation;
        let (session, place, requests, replies) = (None, number::to_u16(place), 0, 0);
        self.by_socket[socket.0 as usize] = Some(PortLease {
            session,
            place,
            generation,
            requests,
            replies,
            is_spoilt: false,
        });
    }

    fn close(&mut self, socket: UpstreamSocketId, cx: &mut Context<'_>) {
        self.by_socket[socket.0 as usize] = None;
        self.open -= 1;
        cx.close(socket);
    }
}
