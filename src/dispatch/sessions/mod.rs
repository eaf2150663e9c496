//! The table of sessions of one handler in one worker. A session holds the client, the address of this host that the
//! client sent to, and the time at which the session expires.
//!
//! The table is pure: times and sockets are numbers that the caller passes. Its memory is bounded by the
//! [`Quota`](quota::Quota), which all workers share. Three structures refer to one slab: an index by client, a wheel
//! of deadlines, and a queue of the unreplied sessions, the oldest first.

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
use self::session::Session;
pub use self::session::{LegRecord, SessionId, SessionKey, SessionRecord};
use self::wheel::Wheel;
use super::id::{HandlerId, LocalListener, UpstreamId};
use super::outbox::UpstreamSocketId;
use super::time::{Time, nanoseconds};
use crate::number;

/// The most entries for which memory is reserved at first. A larger table grows when needed. Pages that are never used
/// cost nothing.
const RESERVED_MAX: usize = 1 << 17;

/// The most entries that the index reserves at first. Its memory is written to at once, and thousands of handlers may
/// have an index each.
const INDEX_RESERVED_MAX: usize = 1 << 12;

/// The most upstream sockets for which memory is reserved at first. A session of a fan-out has many.
const LEGS_RESERVED_MAX: usize = 1 << 20;

/// The times after which sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// The time without traffic after which an assured session ends.
    pub idle: Duration,
    /// The time without traffic after which an unreplied session ends.
    pub unreplied: Duration,
}

/// The table of sessions.
#[derive(Debug)]
pub struct Sessions {
    hasher: FixedState,
    index: HashTable<u32>,
    slab: Vec<Session>,
    /// The upstream sockets of all sessions, side by side. Each session has the same number of places.
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
    /// Creates a table for about `count_max` sessions of `legs_each` upstreams. `seed` makes it hard to guess which
    /// clients collide in the index.
    pub fn new(count_max: u32, legs_each: usize, lifetimes: Lifetimes, seed: u64) -> Sessions {
        let reserved = (count_max as usize).min(RESERVED_MAX);
        Sessions {
            hasher: FixedState::with_seed(seed),
            index: HashTable::with_capacity(reserved.min(INDEX_RESERVED_MAX)),
            slab: Vec::with_capacity(reserved),
            legs: Vec::with_capacity((reserved * legs_each).min(LEGS_RESERVED_MAX)),
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

    /// Returns the number of open sessions.
    pub fn len(&self) -> u32 {
        self.open
    }

    /// Returns whether no session is open.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Returns the session that a client's next datagram belongs to.
    #[inline]
    pub fn find(&self, key: &SessionKey) -> Option<SessionId> {
        let is_it = |place: &u32| self.slab[*place as usize].record.key == *key;
        self.index
            .find(self.hasher.hash_one(key), is_it)
            .map(|place| SessionId(*place))
    }

    /// Returns the record of a session.
    #[inline]
    pub fn get(&self, id: SessionId) -> &SessionRecord {
        &self.slab[id.0 as usize].record
    }

    /// Returns the record of a session for changes, such as counting its datagrams. The key, `is_assured` and
    /// `is_bound` are left to the methods of the table.
    #[inline]
    pub fn get_mut(&mut self, id: SessionId) -> &mut SessionRecord {
        &mut self.slab[id.0 as usize].record
    }

    /// Returns all open sessions.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &SessionRecord)> {
        let numbered = self
            .slab
            .iter()
            .enumerate()
            .filter(|(_, session)| session.is_open());
        numbered.map(|(place, session)| (SessionId::new(place), &session.record))
    }

    /// Returns the session's upstream sockets, one place for each upstream.
    pub fn legs_of(&self, id: SessionId) -> &[Option<UpstreamSocketId>] {
        let first = id.0 as usize * self.legs_each;
        &self.legs[first..first + self.legs_each]
    }

    /// Adds the sessions from the place `from` on to the page, until the page is full. Returns the place to continue
    /// at, or `None` after the last one.
    pub fn list(
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
            page.count_visit();
            if session.is_open() {
                let legs = &self.legs[place * self.legs_each..(place + 1) * self.legs_each];
                page.add(
                    handler,
                    &session.record,
                    legs.iter().flatten().filter_map(|socket| upstream(*socket)),
                );
            }
        }
        None
    }

    /// Returns the session's upstream sockets for changes, one place for each upstream.
    #[inline]
    pub fn legs(&mut self, id: SessionId) -> &mut [Option<UpstreamSocketId>] {
        let first = id.0 as usize * self.legs_each;
        &mut self.legs[first..first + self.legs_each]
    }

    /// Begins a session, which is unreplied until [`Sessions::assure`]. No other session may have its key.
    pub fn insert(
        &mut self,
        key: SessionKey,
        listener: LocalListener,
        interface: u32,
        now: Time,
    ) -> SessionId {
        let record = SessionRecord {
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
        };
        self.restore(record, now)
    }

    /// Continues a session of another table. If it is bound, no other session may have its key.
    pub fn restore(&mut self, record: SessionRecord, now: Time) -> SessionId {
        debug_assert!(
            !record.is_bound || self.find(&record.key).is_none(),
            "a client has one session at a time"
        );
        let session = Session {
            record,
            wheel: Link::default(),
            waiting: Link::default(),
        };
        let deadline = Time(record.seen.0.saturating_add(self.unreplied_ns));
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
        if record.is_bound {
            let slab = &self.slab;
            let hash_of = |place: &u32| self.hasher.hash_one(slab[*place as usize].record.key);
            self.index
                .insert_unique(self.hasher.hash_one(record.key), place, hash_of);
        }
        self.wheel.insert(&mut self.slab, place, deadline, now);
        if !record.is_assured {
            self.unreplied.push(&mut self.slab, place);
        }
        self.open += 1;
        SessionId(place)
    }

    /// Records the first reply, after which the session is assured.
    pub fn assure(&mut self, id: SessionId) {
        if !std::mem::replace(&mut self.slab[id.0 as usize].record.is_assured, true) {
            self.unreplied.remove(&mut self.slab, id.0);
        }
    }

    /// Detaches the session from its client: the client's next datagram begins a new session. Replies of this session
    /// still reach the client.
    pub fn unbind(&mut self, id: SessionId) {
        let record = &mut self.slab[id.0 as usize].record;
        if std::mem::replace(&mut record.is_bound, false) {
            let hash = self.hasher.hash_one(record.key);
            if let Ok(entry) = self.index.find_entry(hash, |place| *place == id.0) {
                entry.remove();
            }
        }
    }

    /// Ends a session. Its sockets must have been taken from its legs.
    pub fn remove(&mut self, id: SessionId) {
        debug_assert!(self.slab[id.0 as usize].is_open(), "a session ends once");
        debug_assert!(
            self.legs(id).iter().all(Option::is_none),
            "a session's sockets are released before it ends"
        );
        self.unbind(id);
        self.wheel.remove(&mut self.slab, id.0);
        let session = &mut self.slab[id.0 as usize];
        if !session.record.is_assured {
            self.unreplied.remove(&mut self.slab, id.0);
        }
        self.slab[id.0 as usize].wheel.next = self.free;
        self.free = id.0;
        self.open -= 1;
    }

    /// Returns the number of unreplied sessions.
    pub fn unreplied(&self) -> u32 {
        self.unreplied.len()
    }

    /// Returns the session that has been unreplied longest.
    pub fn oldest_unreplied(&self) -> Option<SessionId> {
        self.unreplied.first().map(SessionId)
    }

    /// Returns a session that has expired. The caller removes it and calls again until there is none.
    pub fn expired(&mut self, now: Time) -> Option<SessionId> {
        let idle = self.idle_ns;
        let unreplied = self.unreplied_ns;
        let deadline = |session: &Session| {
            let record = &session.record;
            let lifetime = if record.is_assured { idle } else { unreplied };
            Time(record.seen.0.saturating_add(lifetime))
        };
        self.wheel
            .expired(&mut self.slab, now, deadline)
            .map(SessionId)
    }

    /// Returns when [`Sessions::expired`] must be called again, or `None` if no session is open.
    pub fn deadline(&self) -> Option<Time> {
        (self.open > 0).then(|| self.wheel.deadline())
    }
}

/// Returns the prefix by which a source's share is counted, as a number. It has 24 bits for IPv4 and 56 bits for
/// IPv6.
pub fn prefix_of(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        // The top bit distinguishes the families. The 56 bits of the address are below it.
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

    /// An empty table takes little memory, however many sessions it may hold later.
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
