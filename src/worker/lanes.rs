//! The ways to upstreams of one worker: sockets behind the lane numbers that handlers know. Some are there from the start,
//! one way, one for each upstream; the others are opened and closed for sessions, and receive.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use mio::Registry;

use super::estate::LaneEstate;
use super::exit::Exit;
use crate::dispatch::handler::{self, HandlerId, Trouble, UpstreamId};
use crate::dispatch::ledger::{Ledger, Sent};
use crate::dispatch::limit::Limit;
use crate::dispatch::outbox::Lane;
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::net::error_queue::{self, Origin};
use crate::net::receive::Receiver;
use crate::net::upstream::UpstreamOptions;
use crate::net::{epoll, errno, option};

/// Tokens of lanes begin here; listeners have their numbers below.
pub const TOKENS: usize = 1 << 32;
const _: () = assert!(
    TOKENS > u32::MAX as usize,
    "no listener's number reaches the tokens of lanes, and every lane has a token"
);

/// Most trains that one lane may bring in one turn.
const TRAINS_MAX: usize = 32;
/// Polls in a row that make a lane a busy one, and trains at once that prove it.
const STREAK: u8 = 8;

/// How long after a poll what it did not tell of is taken for empty. Far less than any rest of a port.
const TOLD_MAX: Duration = Duration::from_millis(10);

/// An upstream as the worker knows it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whose it is.
    pub handler: HandlerId,
    /// Where it is now; `None`: nobody knows yet.
    pub address: Option<SocketAddr>,
    /// How its sockets are made.
    pub options: UpstreamOptions,
    /// What it gets leaves under its sender's address.
    pub keeps_source: bool,
    /// How many source ports there may be, over all workers. Each local address has some, and other programs need some too.
    pub budget: Arc<Limit>,
}

/// One lane.
#[derive(Debug)]
struct Slot {
    exit: Exit,
    upstream: UpstreamId,
    /// Whether it receives.
    is_leased: bool,
    is_ready: bool,
    /// The poll that last told that it holds something.
    told: u32,
    /// Polls in a row that told of it.
    streak: u8,
    /// How many there must be until it is asked for more than one train.
    patience: u8,
    /// The kernel's drop counter when it was last read.
    drops_seen: u32,
}

impl Slot {
    fn new(exit: Exit, upstream: UpstreamId, is_leased: bool) -> Slot {
        Slot {
            exit,
            upstream,
            is_leased,
            is_ready: false,
            told: 0,
            streak: 0,
            patience: STREAK,
            drops_seen: 0,
        }
    }

    /// How many trains the next look asks for.
    fn asks(&self) -> usize {
        if self.streak >= self.patience || self.exit.gathers() {
            TRAINS_MAX
        } else {
            1
        }
    }

    /// What the kernel dropped since the last call. Its counter has 32 bits and may wrap.
    fn new_kernel_drops(&mut self) -> u64 {
        let drops = option::kernel_drops(self.exit.socket()).unwrap_or(self.drops_seen);
        u64::from(drops.wrapping_sub(std::mem::replace(&mut self.drops_seen, drops)))
    }
}

/// A lane that may hold something.
pub struct Ready<'a> {
    /// Its number.
    pub lane: Lane,
    /// Whose it is.
    pub handler: HandlerId,
    /// Its socket.
    pub exit: &'a Exit,
    /// How many trains to ask it for: one, unless it has had more each time.
    pub asks: usize,
}

impl Ready<'_> {
    /// One receive call, beside what other lanes brought this turn. `None` where there is nothing; `reports` are then errors that
    /// came back from the upstream.
    pub fn receive(
        &self,
        receiver: &mut Receiver,
        reports: &mut Vec<(Lane, i32)>,
    ) -> Option<usize> {
        let socket = self.exit.socket();
        let received = match self.asks {
            1 => receiver.receive_one(socket),
            asks => receiver.receive_more(socket, asks),
        };
        if received.is_err() {
            // The error itself is one of the queue, which would be told of by every poll if nobody emptied it.
            let _ = error_queue::drain(socket, |failure| {
                if failure.origin == Origin::Icmp {
                    reports.push((self.lane, failure.errno));
                }
            });
        }
        received.ok()
    }
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    targets: Vec<Target>,
    slots: Vec<Option<Slot>>,
    free: Vec<Lane>,
    /// Closed by their handler this turn; what is on them is still to be sent.
    closing: Vec<Lane>,
    /// The epoll instance that receiving sockets are registered with; none in a test.
    epoll: Option<Registry>,
    polls: u32,
    /// When the last poll began, and whether it told of all that there was.
    polled: Time,
    is_all_told: bool,
    /// Those that may hold something.
    ready: VecDeque<Lane>,
    /// Openings that failed, for the ledger.
    failures: Vec<(UpstreamId, i32)>,
    /// What sending has met.
    troubles: Vec<(Lane, Trouble)>,
    /// Answers that were thrown away, for the ledger.
    wiped: Vec<(UpstreamId, u64)>,
}

impl Lanes {
    /// No lanes yet; `targets` by upstream number.
    pub fn new(targets: Vec<Target>) -> Lanes {
        Lanes {
            targets,
            slots: Vec::new(),
            free: Vec::new(),
            closing: Vec::new(),
            epoll: None,
            polls: 0,
            polled: Time::default(),
            is_all_told: false,
            ready: VecDeque::new(),
            failures: Vec::new(),
            troubles: Vec::new(),
            wiped: Vec::new(),
        }
    }

    /// Adds a lane that is there from the start, one way.
    pub fn open_one_way(&mut self, upstream: UpstreamId) -> io::Result<Lane> {
        let target = &self.targets[upstream.index()];
        let exit = match target.address {
            Some(address) => Exit::to_upstream(address, target.options, target.keeps_source)?,
            None => Exit::nowhere(target.options)?,
        };
        Ok(self.add(Slot::new(exit, upstream, false)))
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
    pub fn end_poll(&mut self, is_all_told: bool) {
        self.is_all_told = is_all_told;
    }

    /// Whether the last poll told of all that there was.
    pub fn is_all_told(&self) -> bool {
        self.is_all_told
    }

    /// The socket of a lane, and whose upstream it leads to; `None` if it was closed.
    pub fn exit(&mut self, lane: Lane) -> Option<(&mut Exit, HandlerId, UpstreamId)> {
        let slot = self.slots.get_mut(lane.0 as usize)?.as_mut()?;
        Some((
            &mut slot.exit,
            self.targets[slot.upstream.index()].handler,
            slot.upstream,
        ))
    }

    /// An event says that a lane holds something. One that many polls in a row tell of may have a queue.
    pub fn queue(&mut self, lane: Lane) {
        let Some(Some(slot)) = self.slots.get_mut(lane.0 as usize) else {
            return;
        };
        if slot.is_ready {
            return; // It has waited for its turn all the while.
        }
        let is_again = slot.told.wrapping_add(1) == self.polls;
        slot.streak = if is_again {
            slot.streak.saturating_add(1)
        } else {
            0
        };
        slot.told = self.polls;
        slot.is_ready = true;
        self.ready.push_back(lane);
    }

    /// What a look at a lane has brought. One that has a queue is asked for more at once, and its datagrams may come together;
    /// one that has none, for all that it is told of so often, is left in peace twice as long.
    pub fn had(&mut self, lane: Lane, trains: usize) {
        let Some(Some(slot)) = self.slots.get_mut(lane.0 as usize) else {
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
            slot.exit.gather_trains();
        }
    }

    /// How many lanes hold something.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The next of them. If more is left in it, the next poll tells.
    pub fn next_ready(&mut self) -> Option<Ready<'_>> {
        let lane = loop {
            let lane = self.ready.pop_front()?;
            if self.slots[lane.0 as usize].is_some() {
                break lane;
            }
        };
        let slot = self.slots[lane.0 as usize].as_mut()?;
        slot.is_ready = false;
        let handler = self.targets[slot.upstream.index()].handler;
        let asks = slot.asks();
        Some(Ready {
            lane,
            handler,
            exit: &slot.exit,
            asks,
        })
    }

    /// The upstream is elsewhere now. One-way lanes follow; leased ones are the handler's business.
    pub fn moved(&mut self, upstream: UpstreamId, to: SocketAddr) {
        self.targets[upstream.index()].address = Some(to);
        let Target {
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
            match Exit::to_upstream(to, options, keeps_source) {
                Ok(exit) => slot.exit = exit,
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

    /// There was trouble on a lane.
    pub fn note(&mut self, lane: Lane, trouble: Trouble) {
        self.troubles.push((lane, trouble));
    }

    /// Word came back on a lane that something was lost.
    pub fn report(&mut self, lane: Lane, errno: i32, ledger: &mut Ledger) {
        if let Some((_, handler, upstream)) = self.exit(lane) {
            ledger.handlers[handler.index()].record(Sent::Reported(errno));
            ledger.upstreams[upstream.index()].record(Sent::Reported(errno));
            self.note(lane, Trouble::Reported(errno));
        }
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
            if let Some(mut slot) = self.slots[lane.0 as usize].take() {
                ledger.upstreams[slot.upstream.index()].kernel_drops += slot.new_kernel_drops();
                self.targets[slot.upstream.index()].budget.give_back();
                self.free.push(lane);
            }
        }
        for (upstream, errno) in self.failures.drain(..) {
            ledger.upstreams[upstream.index()].fail(errno, 1);
        }
        for (upstream, answers) in self.wiped.drain(..) {
            ledger.late(self.targets[upstream.index()].handler, upstream, answers);
        }
    }

    /// Counts the answers that the kernel has dropped: a system call for each lane that receives.
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

    /// What is known of each lane.
    pub fn leave(&self) -> Vec<LaneEstate> {
        let numbered = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(lane, slot)| Some((lane, slot.as_ref()?)));
        let estate = |(lane, slot): (usize, &Slot)| LaneEstate {
            lane: Lane::new(lane),
            upstream: slot.upstream,
            is_leased: slot.is_leased,
            drops_seen: slot.drops_seen,
            sticky: slot.exit.sticky(),
        };
        numbered.map(estate).collect()
    }

    /// The sockets of all lanes, in the order of [`Lanes::leave`].
    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.slots.iter().flatten().map(|slot| slot.exit.socket())
    }

    /// The same, for good.
    pub fn into_sockets(self) -> Vec<UdpSocket> {
        self.slots
            .into_iter()
            .flatten()
            .map(|slot| slot.exit.into_socket())
            .collect()
    }

    /// Goes on with a lane that another worker has left; `upstream` is its number here. One that is there from the start
    /// keeps its source port.
    pub fn inherit(
        &mut self,
        left: &LaneEstate,
        upstream: UpstreamId,
        socket: UdpSocket,
    ) -> io::Result<Option<Lane>> {
        if !left.is_leased {
            let own = |slot: &&mut Slot| slot.upstream == upstream && !slot.is_leased;
            if let Some(slot) = self.slots.iter_mut().flatten().find(own)
                && slot.exit.replace_socket(socket, left.sticky)
            {
                slot.drops_seen = left.drops_seen;
            }
            return Ok(None);
        }
        let Target {
            options, budget, ..
        } = &self.targets[upstream.index()];
        // It is open whether or not there are still so many to be had.
        budget.force();
        let exit = Exit::for_inherited(socket, *options, left.sticky);
        let lane = self.add(Slot {
            drops_seen: left.drops_seen,
            ..Slot::new(exit, upstream, true)
        });
        let registered = self.register(lane);
        if registered.is_err() {
            self.targets[upstream.index()].budget.give_back();
        }
        registered.map(|()| Some(lane))
    }

    fn add(&mut self, slot: Slot) -> Lane {
        match self.free.pop() {
            Some(lane) => {
                self.slots[lane.0 as usize] = Some(slot);
                lane
            }
            None => {
                self.slots.push(Some(slot));
                Lane::new(self.slots.len() - 1)
            }
        }
    }

    fn open_leased(&mut self, upstream: UpstreamId, address: SocketAddr) -> io::Result<Lane> {
        let exit = Exit::for_session(address, self.targets[upstream.index()].options)?;
        let lane = self.add(Slot::new(exit, upstream, true));
        self.register(lane).map(|()| lane)
    }

    /// Has the poll tell of a new lane; where it cannot, the lane is gone.
    fn register(&mut self, lane: Lane) -> io::Result<()> {
        let place = lane.0 as usize;
        if let (Some(epoll), Some(slot)) = (&self.epoll, &self.slots[place])
            && let Err(error) = epoll::add_level(epoll, slot.exit.socket(), (TOKENS + place) as u64)
        {
            self.slots[place] = None;
            self.free.push(lane);
            return Err(error);
        }
        Ok(())
    }
}

impl handler::Lanes for Lanes {
    fn open(&mut self, upstream: UpstreamId) -> Result<Lane, DropReason> {
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

    fn upstream(&self, lane: Lane) -> Option<UpstreamId> {
        self.slots
            .get(lane.0 as usize)?
            .as_ref()
            .map(|slot| slot.upstream)
    }

    fn close(&mut self, lane: Lane) {
        self.closing.push(lane);
    }

    /// Costs a system call only where the lane may hold something: it was told of, or not all could be, or the loop has
    /// stood still, and with it the time that lanes are read in.
    fn wipe(&mut self, lane: Lane, now: Time) {
        let Some(Some(slot)) = self.slots.get(lane.0 as usize) else {
            return;
        };
        let is_told = slot.is_ready || slot.told == self.polls;
        if is_told || !self.is_all_told || now.since(self.polled) > TOLD_MAX {
            let wiped = slot.exit.wipe();
            if wiped > 0 {
                self.wiped.push((slot.upstream, wiped));
            }
        }
    }
}
