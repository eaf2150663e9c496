//! A look at sessions for people, a page at a time: bounded in what it looks at and in what it copies, so that it never holds
//! up the datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::session::Session;
use crate::dispatch::id::{HandlerId, UpstreamId};
use crate::dispatch::route_table::RouteId;
use crate::dispatch::time::Time;

/// Sessions that a page holds.
pub const FOUND_MAX: usize = 1_000;
/// Places of a table that are looked at for one page.
pub const LOOKED_MAX: u32 = 16_384;
/// Upstreams of one session that are told; one of a fan-out may have many.
pub const UPSTREAMS_MAX: usize = 4;

/// One session, as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub handler: HandlerId,
    /// Who asked.
    pub client: SocketAddr,
    /// Which address of ours.
    pub local: SocketAddr,
    /// The route that brought it here.
    pub route: RouteId,
    /// The first of the upstreams that it uses.
    pub upstreams: Vec<UpstreamId>,
    /// How long nothing has passed, either way.
    pub idle: Duration,
    /// Datagrams from the client.
    pub requests: u32,
    /// Datagrams to the client.
    pub replies: u32,
    /// Whether it ever got an answer.
    pub is_assured: bool,
}

/// Where to go on: a handler, and a place in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCursor {
    /// The handler.
    pub handler: HandlerId,
    /// The next place.
    pub place: u32,
}

/// Which sessions are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Only this handler's.
    pub handler: Option<HandlerId>,
    /// Only of clients in here.
    pub client: Option<IpNet>,
    /// From here on.
    pub from: SessionCursor,
}

/// What was found, and where to go on.
#[derive(Debug)]
pub struct SessionPage {
    /// The sessions.
    pub found: Vec<Seen>,
    /// Where to go on; `None` when that was all.
    pub next: Option<SessionCursor>,
    client: Option<IpNet>,
    now: Time,
    looked: u32,
}

impl SessionPage {
    /// An empty one.
    pub fn new(wanted: &Wanted, now: Time) -> SessionPage {
        SessionPage {
            found: Vec::new(),
            next: None,
            client: wanted.client,
            now,
            looked: 0,
        }
    }

    /// Whether there is room for one more look.
    pub fn has_room(&self) -> bool {
        self.found.len() < FOUND_MAX && self.looked < LOOKED_MAX
    }

    /// Counts a look at a place of a table.
    pub fn look(&mut self) {
        self.looked += 1;
    }

    /// Takes a session in, if it is wanted.
    pub fn add(
        &mut self,
        handler: HandlerId,
        session: &Session,
        upstreams: impl Iterator<Item = UpstreamId>,
    ) {
        let Session {
            key,
            seen,
            requests,
            replies,
            is_assured,
            ..
        } = *session;
        if self
            .client
            .is_some_and(|net| !net.contains(&key.client.ip()))
        {
            return;
        }
        let upstreams = upstreams.take(UPSTREAMS_MAX).collect();
        let idle = self.now.since(seen);
        let (client, local, route) = (key.client, key.local, key.route);
        self.found.push(Seen {
            handler,
            client,
            local,
            route,
            upstreams,
            idle,
            requests,
            replies,
            is_assured,
        });
    }
}
