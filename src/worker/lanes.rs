//! The ways to upstreams of one worker: sockets behind the lane numbers that handlers know. Some are there from the start,
//! one way, one for each upstream; the others are opened and closed for sessions, and receive.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::exit::Exit;
use crate::dispatch::handler::{self, HandlerId, Trouble, UpstreamId};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::outbox::Lane;
use crate::dispatch::verdict::DropReason;
use crate::net::errno;
use crate::net::upstream::UpstreamOptions;

/// Tokens of lanes begin here; listeners have their numbers below.
pub const TOKENS: usize = 1 << 32;

/// An upstream as the worker knows it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whose it is.
    pub handler: HandlerId,
    /// Where it is now; `None`: nobody knows yet.
    pub address: Option<SocketAddr>,
    /// How its sockets are made.
    pub options: UpstreamOptions,
    /// How many of them there may be.
    pub budget: Arc<Budget>,
}

/// How many source ports there may be, over all workers. Each local address has some, and other programs need some too.
#[derive(Debug)]
pub struct Budget {
    max: u32,
    used: AtomicU32,
}

impl Budget {
    /// At most so many.
    pub fn new(max: u32) -> Budget {
        Budget { max, used: AtomicU32::new(0) }
    }

    fn take(&self) -> bool {
        let room = |used: u32| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One lane.
#[derive(Debug)]
struct Slot {
    exit: Exit,
    upstream: UpstreamId,
    /// Whether it receives.
    is_leased: bool,
    is_ready: bool,
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    targets: Vec<Target>,
    slots: Vec<Option<Slot>>,
    free: Vec<Lane>,
    /// Closed by their handler this turn; what is on them is still to be sent.
    closing: Vec<Lane>,
    /// Where receiving sockets are registered; none in a test.
    registry: Option<Registry>,
    /// Those that may hold something.
    ready: VecDeque<Lane>,
    /// Openings that failed, for the ledger.
    failures: Vec<(UpstreamId, i32)>,
    /// What sending has met.
    troubles: Vec<(Lane, Trouble)>,
}

impl Lanes {
    /// No lanes yet; `targets` by upstream number.
    pub fn new(targets: Vec<Target>) -> Lanes {
        Lanes {
            targets,
            slots: Vec::new(),
            free: Vec::new(),
            closing: Vec::new(),
            registry: None,
            ready: VecDeque::new(),
            failures: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Adds a lane that is there from the start, one way.
    pub fn open_one_way(&mut self, upstream: UpstreamId) -> io::Result<Lane> {
        let target = &self.targets[upstream.index()];
        let exit = match target.address {
            Some(address) => Exit::to_upstream(address, target.options)?,
            None => Exit::nowhere(target.options)?,
        };
        Ok(self.add(Slot { exit, upstream, is_leased: false, is_ready: false }))
    }

    /// Registers what receives from now on.
    pub fn register_with(&mut self, registry: Registry) {
        self.registry = Some(registry);
    }

    /// The socket of a lane, and whose upstream it leads to; `None` if it was closed.
    pub fn exit(&mut self, lane: Lane) -> Option<(&mut Exit, HandlerId, UpstreamId)> {
        let slot = self.slots.get_mut(lane.0 as usize)?.as_mut()?;
        Some((&mut slot.exit, self.targets[slot.upstream.index()].handler, slot.upstream))
    }

    /// An event says that a lane may hold something.
    pub fn queue(&mut self, lane: Lane) {
        if let Some(Some(slot)) = self.slots.get_mut(lane.0 as usize)
            && !std::mem::replace(&mut slot.is_ready, true)
        {
            self.ready.push_back(lane);
        }
    }

    /// How many lanes may hold something.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The next of them; it is [queued](Lanes::queue) again if it has more.
    pub fn next_ready(&mut self) -> Option<Lane> {
        loop {
            let lane = self.ready.pop_front()?;
            if let Some(Some(slot)) = self.slots.get_mut(lane.0 as usize) {
                slot.is_ready = false;
                return Some(lane);
            }
        }
    }

    /// The upstream is elsewhere now. One-way lanes follow; leased ones are the handler's business.
    pub fn moved(&mut self, upstream: UpstreamId, to: SocketAddr) {
        self.targets[upstream.index()].address = Some(to);
        let options = self.targets[upstream.index()].options;
        for slot in self.slots.iter_mut().flatten().filter(|slot| slot.upstream == upstream && !slot.is_leased) {
            match Exit::to_upstream(to, options) {
                Ok(exit) => slot.exit = exit,
                Err(error) => self.failures.push((upstream, error.raw_os_error().unwrap_or(0))),
            }
        }
    }

    /// Whose an upstream is.
    pub fn owner(&self, upstream: UpstreamId) -> HandlerId {
        self.targets[upstream.index()].handler
    }

    /// There was trouble on a lane.
    pub fn note(&mut self, lane: Lane, trouble: Trouble) {
        self.troubles.push((lane, trouble));
    }

    /// The next trouble, with the handler that should know.
    pub fn next_trouble(&mut self) -> Option<(HandlerId, Lane, Trouble)> {
        loop {
            let (lane, trouble) = self.troubles.pop()?;
            if let Some((_, handler, _)) = self.exit(lane) {
                return Some((handler, lane, trouble));
            }
        }
    }

    /// After a flush: closes what was given up, and writes down what could not be opened.
    pub fn settle(&mut self, ledger: &mut Ledger) {
        for lane in self.closing.drain(..) {
            if let Some(slot) = self.slots[lane.0 as usize].take() {
                self.targets[slot.upstream.index()].budget.give_back();
                self.free.push(lane);
            }
        }
        for (upstream, errno) in self.failures.drain(..) {
            ledger.upstreams[upstream.index()].fail(errno, 1);
        }
    }

    fn add(&mut self, slot: Slot) -> Lane {
        match self.free.pop() {
            Some(lane) => {
                self.slots[lane.0 as usize] = Some(slot);
                lane
            }
            None => {
                self.slots.push(Some(slot));
                Lane(self.slots.len() as u32 - 1)
            }
        }
    }

    fn open_leased(&mut self, upstream: UpstreamId, address: SocketAddr) -> io::Result<Lane> {
        let exit = Exit::for_session(address, self.targets[upstream.index()].options)?;
        let fd = exit.socket().as_raw_fd();
        let lane = self.add(Slot { exit, upstream, is_leased: true, is_ready: false });
        if let Some(registry) = &self.registry
            && let Err(error) =
                registry.register(&mut SourceFd(&fd), Token(TOKENS + lane.0 as usize), Interest::READABLE)
        {
            self.slots[lane.0 as usize] = None;
            self.free.push(lane);
            return Err(error);
        }
        Ok(lane)
    }
}

impl handler::Lanes for Lanes {
    fn open(&mut self, upstream: UpstreamId) -> Result<Lane, DropReason> {
        let target = &self.targets[upstream.index()];
        let Some(address) = target.address else { return Err(DropReason::NoUpstream) };
        let budget = Arc::clone(&target.budget);
        if !budget.take() {
            return Err(DropReason::NoPort);
        }
        self.open_leased(upstream, address).map_err(|error| {
            budget.give_back();
            self.failures.push((upstream, error.raw_os_error().unwrap_or(0)));
            if errno::lacks_port(&error) { DropReason::NoPort } else { DropReason::NoUpstream }
        })
    }

    fn close(&mut self, lane: Lane) {
        self.closing.push(lane);
    }
}
