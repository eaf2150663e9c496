//! Which session has which lane, and the free ones of each upstream.

use crate::dispatch::handler::{Cx, UpstreamId};
use crate::dispatch::legacy::{LegLegacy, PortLegacy};
use crate::dispatch::outbox::Lane;
use crate::dispatch::sessions::SessionId;
use crate::dispatch::sessions::ports::{Lease, Ports, RETRY, RETRY_WAY};
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// Ports that are closed in one call for the sake of time, half a millisecond's worth.
const CLOSES_MAX: usize = 256;
/// Time between two looks for ports that nobody needs.
const SHRINK_NS: u64 = 1_000_000_000;
/// The same where one look has found more than it may close: others may be waiting for ports.
const SHRINK_ON_NS: u64 = 10_000_000;

/// What is known of one lane.
#[derive(Debug, Clone, Copy)]
struct Held {
    session: Option<SessionId>,
    /// The place of the upstream that it leads to.
    place: u16,
    /// The upstream's generation when it was opened.
    generation: u32,
    /// Datagrams that its session sent and got.
    asked: u32,
    answered: u32,
    is_spoilt: bool,
}

/// What a lane's session is owed there.
#[derive(Debug, Clone, Copy)]
pub struct Debt {
    /// The place of the upstream.
    pub place: usize,
    /// Datagrams that went out.
    pub asked: u32,
    /// Datagrams that came back.
    pub answered: u32,
}

/// One upstream's part.
struct Branch {
    id: UpstreamId,
    /// The lane that is there from the start.
    one_way: Lane,
    ports: Ports,
    /// Why none could be opened when that was last tried.
    lacks: DropReason,
    /// How often the upstream has moved.
    generation: u32,
    sessions: u64,
    replies: u64,
}

/// All lanes of one forwarder in one worker.
pub struct Leases {
    branches: Vec<Branch>,
    /// By lane number.
    held: Vec<Option<Held>>,
    /// Whether sessions have ports of their own; otherwise they share the one-way lanes.
    is_leasing: bool,
    open: u64,
    /// When to look for ports that nobody needs.
    look_at: Time,
}

impl Leases {
    /// Of upstreams and their one-way lanes.
    pub fn new(upstreams: impl Iterator<Item = (UpstreamId, Lane)>, is_leasing: bool) -> Leases {
        let branch = |(id, one_way)| {
            let (ports, lacks) = (Ports::default(), DropReason::NoPort);
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
        let mut leases = Leases {
            branches,
            held: Vec::new(),
            is_leasing,
            open: 0,
            look_at: Time::default(),
        };
        for place in 0..leases.branches.len() {
            leases.hold(leases.branches[place].one_way, place);
        }
        leases
    }

    /// A lane to an upstream for a new session; it is to be assigned.
    pub fn lease(&mut self, place: usize, cx: &mut Cx<'_>) -> Result<Lane, DropReason> {
        let branch = &mut self.branches[place];
        if !self.is_leasing {
            branch.sessions += 1;
            return Ok(branch.one_way);
        }
        let mut lease = branch.ports.lease(cx.now());
        if lease == Lease::Open {
            match cx.open(branch.id) {
                Ok(lane) => {
                    self.open += 1;
                    self.branches[place].sessions += 1;
                    self.hold(lane, place);
                    return Ok(lane);
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
        let Lease::Rested(lane) = lease else {
            return Err(branch.lacks);
        };
        branch.sessions += 1;
        cx.wipe(lane);
        Ok(lane)
    }

    /// Says whose a leased lane is.
    pub fn assign(&mut self, lane: Lane, session: SessionId) {
        if self.is_leasing
            && let Some(Some(held)) = self.held.get_mut(lane.0 as usize)
        {
            (held.session, held.asked, held.answered) = (Some(session), 0, 0);
        }
    }

    /// So many datagrams went out on a lane.
    #[inline]
    pub fn asked(&mut self, lane: Lane, datagrams: u32) {
        if let Some(Some(held)) = self.held.get_mut(lane.0 as usize) {
            held.asked = held.asked.saturating_add(datagrams);
        }
    }

    /// So many came back.
    #[inline]
    pub fn answered(&mut self, lane: Lane, datagrams: u32) {
        if let Some(Some(held)) = self.held.get_mut(lane.0 as usize) {
            held.answered = held.answered.saturating_add(datagrams);
        }
    }

    /// What went out on a lane and came back since its session has it.
    pub fn debt(&self, lane: Lane) -> Option<Debt> {
        let Held {
            place,
            asked,
            answered,
            ..
        } = (*self.held.get(lane.0 as usize)?)?;
        Some(Debt {
            place: usize::from(place),
            asked,
            answered,
        })
    }

    /// A session gives a lane back. `seen` is when its last datagram passed. Whether answers are owed is the lane's own
    /// matter: of several upstreams that were asked, one may have answered for all.
    pub fn release(&mut self, lane: Lane, seen: Time, cx: &mut Cx<'_>) {
        let Some(Some(held)) = self.held.get_mut(lane.0 as usize) else {
            return;
        };
        held.session = None;
        let held = *held;
        let branch = &mut self.branches[usize::from(held.place)];
        branch.sessions -= 1;
        if !self.is_leasing {
            return;
        }
        if held.generation != branch.generation || held.is_spoilt {
            return self.close(lane, cx);
        }
        branch
            .ports
            .release(lane, cx.now(), seen, held.answered < held.asked);
    }

    /// Nothing can be sent on a lane any more: it is not leased again.
    pub fn spoil(&mut self, lane: Lane) {
        if let Some(Some(held)) = self.held.get_mut(lane.0 as usize) {
            held.is_spoilt = true;
        }
    }

    /// The upstream is elsewhere now: free lanes are closed at once, leased ones when they come back.
    pub fn moved(&mut self, place: usize, cx: &mut Cx<'_>) {
        self.branches[place].generation += 1;
        let free: Vec<Lane> = self.branches[place].ports.clear().collect();
        free.into_iter().for_each(|lane| self.close(lane, cx));
    }

    /// Closes some of those that nobody needs.
    pub fn shrink(&mut self, now: Time, cx: &mut Cx<'_>) {
        if now < self.look_at {
            return;
        }
        let mut closes = 0;
        for place in 0..self.branches.len() {
            while closes < CLOSES_MAX
                && let Some(lane) = self.branches[place].ports.spare(now)
            {
                self.close(lane, cx);
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
    pub fn due(&self) -> Option<Time> {
        let is_any = self.branches.iter().any(|branch| !branch.ports.is_empty());
        is_any.then_some(self.look_at)
    }

    /// Whether a session has fewer answers than requests from an upstream.
    pub fn is_owed(&self) -> bool {
        self.held
            .iter()
            .flatten()
            .any(|held| held.session.is_some() && held.answered < held.asked)
    }

    /// Whether sessions have ports of their own.
    pub fn is_leasing(&self) -> bool {
        self.is_leasing
    }

    /// The free ports of each upstream.
    pub fn ports(&self) -> impl Iterator<Item = &Ports> {
        self.branches.iter().map(|branch| &branch.ports)
    }

    /// Whether a lane is to be closed when its session ends: nothing can be sent on it, or its upstream is elsewhere now.
    pub fn is_spoilt(&self, lane: Lane) -> bool {
        let Some(Some(held)) = self.held.get(lane.0 as usize) else {
            return true;
        };
        held.is_spoilt || held.generation != self.branches[usize::from(held.place)].generation
    }

    /// Goes on with a lane of a session that another forwarder has left.
    pub fn inherit_leg(&mut self, left: &LegLegacy, session: SessionId) -> Lane {
        let place = usize::from(left.place);
        self.branches[place].sessions += 1;
        let Some(lane) = left.lane else {
            return self.branches[place].one_way;
        };
        self.open += 1;
        self.hold(lane, place);
        if let Some(held) = &mut self.held[lane.0 as usize] {
            (held.session, held.asked, held.answered) = (Some(session), left.asked, left.answered);
            held.is_spoilt = left.is_spoilt;
        }
        lane
    }

    /// The same with a free port.
    pub fn inherit_port(&mut self, left: &PortLegacy, cx: &mut Cx<'_>) {
        let place = usize::from(left.place);
        if !self.is_leasing || place >= self.branches.len() {
            return cx.close(left.lane);
        }
        self.open += 1;
        self.hold(left.lane, place);
        self.branches[place].ports.restore(
            left.lane,
            left.until,
            left.released,
            left.is_owed,
            cx.now(),
        );
    }

    /// Whose a lane is, and the place of its upstream.
    #[inline]
    pub fn session(&self, lane: Lane) -> Option<(SessionId, usize)> {
        let held = (*self.held.get(lane.0 as usize)?)?;
        Some((held.session?, usize::from(held.place)))
    }

    /// The place of the upstream that a lane leads to.
    #[inline]
    pub fn place(&self, lane: Lane) -> Option<usize> {
        Some(usize::from((*self.held.get(lane.0 as usize)?)?.place))
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

    fn hold(&mut self, lane: Lane, place: usize) {
        if self.held.len() <= lane.0 as usize {
            self.held.resize(lane.0 as usize + 1, None);
        }
        let generation = self.branches[place].generation;
        let (session, place, asked, answered) = (None, number::to_u16(place), 0, 0);
        self.held[lane.0 as usize] = Some(Held {
            session,
            place,
            generation,
            asked,
            answered,
            is_spoilt: false,
        });
    }

    fn close(&mut self, lane: Lane, cx: &mut Cx<'_>) {
        self.held[lane.0 as usize] = None;
        self.open -= 1;
        cx.close(lane);
    }
}
