//! A listing of sessions, one page at a time. The places that a page visits and the sessions that it copies are
//! bounded, so that a listing never delays datagrams.

use std::time::Duration;

use ipnet::IpNet;

use super::session::SessionRecord;
use crate::dispatch::id::{HandlerId, UpstreamId};
use crate::dispatch::time::Time;

/// The most sessions on a page.
pub const FOUND_MAX: usize = 1_000;
/// The most places of a table that are visited for one page.
pub const VISITS_MAX: u32 = 16_384;
/// The most upstreams that are listed for one session. A session of a fan-out may have many.
pub const UPSTREAMS_MAX: usize = 4;

/// A copy of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSession {
    /// The handler that the session belongs to.
    pub handler: HandlerId,
    /// The record of the session.
    pub record: SessionRecord,
    /// The first upstreams that the session uses, at most [`UPSTREAMS_MAX`].
    pub upstreams: Vec<UpstreamId>,
    /// The time since the last datagram in either direction.
    pub idle: Duration,
}

/// The position at which a listing continues: a handler and a place in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCursor {
    /// The number of the handler.
    pub handler: HandlerId,
    /// The next place in the handler's table.
    pub place: u32,
}

/// The query for one page of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// The only handler to list sessions of; `None` for all.
    pub handler: Option<HandlerId>,
    /// The only prefix to list clients of; `None` for all.
    pub client: Option<IpNet>,
    /// The position at which the listing starts.
    pub from: SessionCursor,
}

/// The sessions of one page, and the position at which the listing continues.
#[derive(Debug)]
pub struct SessionPage {
    /// The sessions that match.
    pub found: Vec<ListedSession>,
    /// The position at which the listing continues; `None` if it is complete.
    pub next: Option<SessionCursor>,
    client: Option<IpNet>,
    now: Time,
    visits: u32,
}

impl SessionPage {
    /// Creates an empty page for `query`. `now` is the time from which idle times are computed.
    pub fn new(query: &PageQuery, now: Time) -> SessionPage {
        SessionPage {
            found: Vec::new(),
            next: None,
            client: query.client,
            now,
            visits: 0,
        }
    }

    /// Returns whether the page may visit one more place.
    pub fn has_room(&self) -> bool {
        self.found.len() < FOUND_MAX && self.visits < VISITS_MAX
    }

    /// Counts a visit to a place of a table.
    pub fn count_visit(&mut self) {
        self.visits += 1;
    }

    /// Adds a session, if its client matches.
    pub fn add(
        &mut self,
        handler: HandlerId,
        record: &SessionRecord,
        upstreams: impl Iterator<Item = UpstreamId>,
    ) {
        let client = record.key.client.ip();
        if self.client.is_some_and(|net| !net.contains(&client)) {
            return;
        }
        self.found.push(ListedSession {
            handler,
            record: *record,
            upstreams: upstreams.take(UPSTREAMS_MAX).collect(),
            idle: self.now.since(record.seen),
        });
    }
}
