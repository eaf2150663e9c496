//! Lists the current sessions. It requests them from the workers one page at a time, so that no worker is delayed and
//! the list is bounded. It runs on a separate thread, since a thousand pages take some time.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::build::error::Refusal;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::dispatch::id::HandlerId;
use crate::dispatch::sessions::page::{ListedSession, PageQuery, SessionCursor, SessionPage};
use crate::handover::running::Running;
use crate::supervisor::responder::Responder;
use crate::worker::command::{Command, Handle};

/// Largest number of sessions in one list.
pub const LIST_MAX: usize = 10_000;
/// Longest time to make a list.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only sessions of this handler.
    pub handler: Option<String>,
    /// Only sessions of this client: an address, an address and a port, or a prefix.
    pub client: Option<String>,
    /// Largest number of sessions to list, up to [`LIST_MAX`].
    pub limit: Option<usize>,
}

/// The sessions that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// The sessions, in the order in which the workers keep them.
    pub sessions: Vec<SessionRow>,
    /// Whether sessions are left out, because the limit was reached or the time was over.
    pub is_cut: bool,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The number of the worker that has the session.
    pub worker: usize,
    /// The address and port of the client.
    pub client: String,
    /// The local address and port that the client sent to.
    pub local: String,
    /// The route of the session.
    pub route: String,
    /// The handler of the session.
    pub handler: String,
    /// The upstreams that the session uses; the first few if it uses many.
    pub upstreams: Vec<String>,
    /// Time since the last datagram in either direction, in milliseconds.
    pub idle_ms: u64,
    /// Number of datagrams from the client.
    pub requests: u32,
    /// Number of datagrams to the client.
    pub replies: u32,
    /// Whether the session ever had a reply; without one it is unreplied.
    pub is_answered: bool,
}

/// Lists sessions and responds from a separate thread, since a list may take a thousand turns of the workers.
pub(crate) fn list(
    query: &SessionQuery,
    running: &Running,
    responder: Responder<Result<SessionList, Refusal>>,
) {
    match Lister::new(query, running) {
        Ok(lister) => {
            let list = move || responder.send(Ok(lister.list()));
            // If no thread can be started, the responder is dropped, which notifies the waiting side.
            let _ = thread::Builder::new()
                .name("sessions".to_owned())
                .spawn(list);
        }
        Err(refusal) => responder.send(Err(refusal)),
    }
}

/// A parsed query, with what is needed to list the sessions that match it.
pub struct Lister {
    workers: Vec<Handle>,
    handlers: Vec<String>,
    routes: Vec<String>,
    upstreams: Vec<String>,
    handler: Option<HandlerId>,
    client: Option<IpNet>,
    port: Option<u16>,
    limit: usize,
}

impl Lister {
    /// Parses the query.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the query names a handler that does not exist, or a client that cannot be parsed.
    pub fn new(query: &SessionQuery, running: &Running) -> Result<Lister, Refusal> {
        let Running { config, plan, .. } = running;
        let handlers: Vec<String> = config
            .handlers
            .iter()
            .map(|handler| handler.name.clone())
            .collect();
        let handler = match &query.handler {
            Some(name) => Some(handler(name, &handlers)?),
            None => None,
        };
        let (client, port) = match &query.client {
            Some(text) => client(text)?,
            None => (None, None),
        };
        Ok(Lister {
            workers: running.handles().cloned().collect(),
            handlers,
            routes: config
                .routes
                .iter()
                .map(|route| route.label.clone())
                .collect(),
            upstreams: plan
                .upstreams
                .iter()
                .map(|(_, located)| located.upstream.to_string())
                .collect(),
            handler,
            client,
            port,
            limit: query.limit.unwrap_or(LIST_MAX).min(LIST_MAX),
        })
    }

    /// Queries one worker after the other, until there is one more session than requested.
    pub fn list(&self) -> SessionList {
        let deadline = Instant::now() + TIMEOUT;
        let mut sessions = Vec::new();
        let is_whole =
            (0..self.workers.len()).all(|worker| self.add(worker, deadline, &mut sessions));
        let is_cut = !is_whole || sessions.len() > self.limit;
        sessions.truncate(self.limit);
        SessionList { sessions, is_cut }
    }

    /// Adds the matching sessions of one worker. Returns whether all of its sessions were checked.
    fn add(&self, worker: usize, deadline: Instant, sessions: &mut Vec<SessionRow>) -> bool {
        let mut from = SessionCursor {
            handler: HandlerId(0),
            place: 0,
        };
        while sessions.len() <= self.limit {
            let Some(page) = self.page(worker, from, deadline) else {
                return false;
            };
            let matching = page.found.iter().filter(|seen| self.has_port(seen));
            sessions.extend(matching.map(|seen| self.row(worker, seen)));
            match page.next {
                Some(next) => from = next,
                None => return true,
            }
        }
        false
    }

    fn page(&self, worker: usize, from: SessionCursor, deadline: Instant) -> Option<SessionPage> {
        let (responder, page) = bounded(1);
        let query = PageQuery {
            handler: self.handler,
            client: self.client,
            from,
        };
        self.workers[worker]
            .send(Command::Sessions(query, responder))
            .then_some(())?;
        page.recv_deadline(deadline).ok()
    }

    fn has_port(&self, seen: &ListedSession) -> bool {
        self.port
            .is_none_or(|port| seen.record.key.client.port() == port)
    }

    fn row(&self, worker: usize, seen: &ListedSession) -> SessionRow {
        let name = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
        let record = &seen.record;
        let route = record
            .key
            .route
            .map(|route| name(&self.routes, route.index()));
        SessionRow {
            worker,
            client: record.key.client.to_string(),
            local: record.key.local.to_string(),
            route: route.unwrap_or_default(),
            handler: name(&self.handlers, seen.handler.index()),
            upstreams: seen
                .upstreams
                .iter()
                .map(|id| name(&self.upstreams, id.index()))
                .collect(),
            idle_ms: u64::try_from(seen.idle.as_millis()).unwrap_or(u64::MAX),
            requests: record.requests,
            replies: record.replies,
            is_answered: record.is_assured,
        }
    }
}

fn handler(name: &str, handlers: &[String]) -> Result<HandlerId, Refusal> {
    let found = handlers.iter().position(|known| known == name);
    found.map(HandlerId::new).ok_or_else(|| {
        let meant = did_you_mean(name, handlers.iter().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("; {meant}"));
        Refusal::Unknown(format!("there is no handler {}{meant}", quoted(name)))
    })
}

fn client(text: &str) -> Result<(Option<IpNet>, Option<u16>), Refusal> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Some(IpNet::from(address.ip())), Some(address.port())));
    }
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| (Some(net), None)).map_err(|_| {
        let text = quoted(text);
        Refusal::Unknown(format!(
            "{text} is not a client address; write 192.0.2.1, 192.0.2.1:5000, 192.0.2.0/24 or [2001:db8::1]:53"
        ))
    })
}
