//! The table of sessions of one handler in one worker: who asked whom through which listener, and when that is over.
//!
//! Pure: time comes in as a number, sockets are numbers. Its memory is bounded by the [`Quota`](quota::Quota), which all
//! workers share. Three structures over one slab: an index by client, a wheel of deadlines, and a queue of the unreplied
//! ones, the oldest first.

mod link;
mod list;
pub mod page;
pub mod ports;
pub mod quota;
mod session;
mod wheel;

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use self::link::{Link, NONE};
use self::list::{Linked, Queue};
use self::page::SessionPage;
pub use self::session::{Session, SessionId, SessionKey};
use self::wheel::Wheel;
use super::id::{HandlerId, LocalListener, UpstreamId};
use super::outbox::UpstreamSocketId;
use super::saved_state::SavedSession;
use super::time::{Time, nanoseconds};
use crate::number;

/// Entries that memory is set aside for at once; a larger table grows on the way. Pages that were never used cost nothing.
const SET_ASIDE_MAX: usize = 1 << 17;

/// The same for the index, whose memory is written to at once: thousands of handlers may have one each.
const INDEX_SET_ASIDE_MAX: usize = 1 << 12;

/// The same for sockets, of which a session of a fan-out has many.
const LEGS_SET_ASIDE_MAX: usize = 1 << 20;

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// An answered one ends after so long without traffic.
    pub idle: Duration,
    /// One that was never answered ends after so long without traffic.
    pub unreplied: Duration,
}

/// The table.
#[derive(Debug)]
pub struct Sessions {
    hasher: FixedState,
    index: HashTable<u32>,
    slab: Vec<Session>,
    /// Upstream sockets of each session, side by side: as many for every session.
    legs: Vec<Option<UpstreamSocketId>>,
    legs_each: usize,
    free: u32,
    open: u32,
    idle_ns: u64,
    unreplied_ns: u64,
    wheel: Wheel,
    unreplied: Queue,
}

impl Sessions {
    /// A table for about `count_max` sessions of `legs_each` upstreams. `seed` makes it hard to guess which clients
    /// collide.
    pub fn new(count_max: u32, legs_each: usize, lifetimes: Lifetimes, seed: u64) -> Sessions {
        let set_aside = (count_max as usize).min(SET_ASIDE_MAX);
        Sessions {
            hasher: FixedState::with_seed(seed),
            index: HashTable::with_capacity(set_aside.min(INDEX_SET_ASIDE_MAX)),
            slab: Vec::with_capacity(set_aside),
            legs: Vec::with_capacity((set_aside * legs_each).min(LEGS_SET_ASIDE_MAX)),
            legs_each,
            free: NONE,
            open: 0,
            idle_ns: nanoseconds(lifetimes.idle),
            unreplied_ns: nanoseconds(lifetimes.unreplied),
            wheel: Wheel::new(
                nanoseconds(lifetimes.unreplied),
                nanoseconds(lifetimes.idle),
            ),
            unreplied: Queue::default(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.open
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The session that a client's next datagram belongs to.
    #[inline]
    pub fn find(&self, key: &SessionKey) -> Option<SessionId> {
        let is_it = |place: &u32| self.slab[*place as usize].key == *key;
        self.index
            .find(self.hasher.hash_one(key), is_it)
            .map(|place| SessionId(*place))
    }

    /// One of them.
    #[inline]
    pub fn get(&self, id: SessionId) -> &Session {
        &self.slab[id.0 as usize]
    }

    /// The same, to note what happens to it.
    #[inline]
    pub fn get_mut(&mut self, id: SessionId) -> &mut Session {
        &mut self.slab[id.0 as usize]
    }

    /// All that are open.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        let numbered = self
            .slab
            .iter()
            .enumerate()
            .filter(|(_, session)| session.is_open);
        numbered.map(|(place, session)| (SessionId::new(place), session))
    }

    /// Whether the client's next datagram belongs to it.
    pub fn is_bound(&self, id: SessionId) -> bool {
        self.slab[id.0 as usize].is_bound
    }

    /// Its sockets, to look at.
    pub fn legs_of(&self, id: SessionId) -> &[Option<UpstreamSocketId>] {
        let first = id.0 as usize * self.legs_each;
        &self.legs[first..first + self.legs_each]
    }

    /// Takes those from a place on into the page, as far as that has room. The place to go on at; `None` when that was all.
    pub fn look(
        &self,
        handler: HandlerId,
        from: u32,
        page: &mut SessionPage,
        upstream: impl Fn(UpstreamSocketId) -> Option<UpstreamId>,
    ) -> Option<u32> {
        for (place, session) in self.slab.iter().enumerate().skip(from as usize) {
            if !page.has_room() {
                return Some(number::to_u32(place));
            }
            page.look();
            if session.is_open {
                let legs = &self.legs[place * self.legs_each..(place + 1) * self.legs_each];
                page.add(
                    handler,
                    session,
                    legs.iter().flatten().filter_map(|socket| upstream(*socket)),
                );
            }
        }
        None
    }

    /// Its sockets, one for each upstream that it uses.
    #[inline]
    pub fn legs(&mut self, id: SessionId) -> &mut [Option<UpstreamSocketId>] {
        let first = id.0 as usize * self.legs_each;
        &mut self.legs[first..first + self.legs_each]
    }

    /// Begins a session. Its key must be new. It is unreplied until [`Sessions::assure`].
    pub fn insert(
        &mut self,
        key: SessionKey,
        listener: LocalListener,
        interface: u32,
        now: Time,
    ) -> SessionId {
        debug_assert!(
            self.find(&key).is_none(),
            "a client has one session at a time"
        );
        let session = Session {
            key,
            listener,
            interface,
            seen: now,
            ttl: None,
            requests: 0,
            replies: 0,
            winner: None,
            is_assured: false,
            is_bound: true,
            is_open: true,
            wheel: Link::default(),
            waiting: Link::default(),
        };
        self.put(session, now)
    }

    /// Goes on with a session that another table has left. Its key must be new where it is bound.
    pub fn restore(
        &mut self,
        key: SessionKey,
        listener: LocalListener,
        left: &SavedSession,
        now: Time,
    ) -> SessionId {
        debug_assert!(
            !left.is_bound || self.find(&key).is_none(),
            "a client has one session at a time"
        );
        let session = Session {
            key,
            listener,
            interface: left.interface,
            seen: left.seen,
            ttl: left.ttl,
            requests: left.requests,
            replies: left.replies,
            winner: left.winner,
            is_assured: left.is_assured,
            is_bound: left.is_bound,
            is_open: true,
            wheel: Link::default(),
            waiting: Link::default(),
        };
        self.put(session, now)
    }

    fn put(&mut self, session: Session, now: Time) -> SessionId {
        let (key, is_bound, is_assured) = (session.key, session.is_bound, session.is_assured);
        let deadline = Time(session.seen.0.saturating_add(self.unreplied_ns));
        let place = match self.free {
            NONE => {
                self.slab.push(session);
                self.legs.resize(self.legs.len() + self.legs_each, None);
                number::to_u32(self.slab.len() - 1)
            }
            place => {
                self.free = self.slab[place as usize].wheel.next;
                self.slab[place as usize] = session;
                place
            }
        };
        if is_bound {
            let slab = &self.slab;
            let hash_of = |place: &u32| self.hasher.hash_one(slab[*place as usize].key);
            self.index
                .insert_unique(self.hasher.hash_one(key), place, hash_of);
        }
        self.wheel.insert(&mut self.slab, place, deadline, now);
        if !is_assured {
            self.unreplied.push(&mut self.slab, place);
        }
        self.open += 1;
        SessionId(place)
    }

    /// The first answer: it is a session that stays.
    pub fn assure(&mut self, id: SessionId) {
        if !std::mem::replace(&mut self.slab[id.0 as usize].is_assured, true) {
            self.unreplied.remove(&mut self.slab, id.0);
        }
    }

    /// The client's next datagram begins a new session; answers of this one still reach the client.
    pub fn unbind(&mut self, id: SessionId) {
        let session = &mut self.slab[id.0 as usize];
        if std::mem::replace(&mut session.is_bound, false) {
            let hash = self.hasher.hash_one(session.key);
            if let Ok(entry) = self.index.find_entry(hash, |place| *place == id.0) {
                entry.remove();
            }
        }
    }

    /// Ends a session. Its sockets must have been taken from its legs.
    pub fn remove(&mut self, id: SessionId) {
        debug_assert!(self.slab[id.0 as usize].is_open, "a session ends once");
        debug_assert!(
            self.legs(id).iter().all(Option::is_none),
            "a session's sockets are released before it ends"
        );
        self.unbind(id);
        self.wheel.remove(&mut self.slab, id.0);
        let session = &mut self.slab[id.0 as usize];
        session.is_open = false;
        if !session.is_assured {
            self.unreplied.remove(&mut self.slab, id.0);
        }
        self.slab[id.0 as usize].wheel.next = self.free;
        self.free = id.0;
        self.open -= 1;
    }

    /// How many were never answered.
    pub fn unreplied(&self) -> u32 {
        self.unreplied.len()
    }

    /// The one that has been unreplied longest.
    pub fn oldest_unreplied(&self) -> Option<SessionId> {
        self.unreplied.first().map(SessionId)
    }

    /// One whose time is over; call until there is none.
    pub fn expired(&mut self, now: Time) -> Option<SessionId> {
        let (idle, unreplied) = (self.idle_ns, self.unreplied_ns);
        let deadline = |session: &Session| {
            Time(
                session
                    .seen
                    .0
                    .saturating_add(if session.is_assured { idle } else { unreplied }),
            )
        };
        self.wheel
            .expired(&mut self.slab, now, deadline)
            .map(SessionId)
    }

    /// When [`Sessions::expired`] should be asked again.
    pub fn deadline(&self) -> Option<Time> {
        (self.open > 0).then(|| self.wheel.deadline())
    }
}

/// The prefix that a source's share is counted by: /24 or /56, as a number.
pub fn prefix_of(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        // The top bit tells the families apart: 56 bits of address are below it.
        IpAddr::V6(ip) => 1 << 63 | (ip.to_bits() >> 72) as u64,
    }
}

impl Linked<wheel::InWheel> for Session {
    fn link(&mut self) -> &mut Link {
        &mut self.wheel
    }
}

impl Linked<list::InQueue> for Session {
    fn link(&mut self) -> &mut Link {
        &mut self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that nobody uses costs little, however many sessions it may have one day.
    #[test]
    fn an_idle_table_is_small() {
        let lifetimes = Lifetimes {
            idle: Duration::from_secs(60),
            unreplied: Duration::from_secs(5),
        };
        let table = Sessions::new(1 << 20, 1, lifetimes, 1);
        assert!(table.index.allocation_size() < 64 << 10);
    }
}
