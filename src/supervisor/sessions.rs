//! Who talks to whom now: asks the workers for their sessions, a page at a time, so that no worker is held up and the list has
//! an end. Runs on a thread of its own, since a thousand pages take their time.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::build::error::Refusal;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::dispatch::id::HandlerId;
use crate::dispatch::sessions::page::{Seen, SessionCursor, SessionPage, Wanted};
use crate::handover::running::Running;
use crate::supervisor::responder::Responder;
use crate::worker::command::{Command, Handle};

/// Sessions in one list.
pub const LIST_MAX: usize = 10_000;
/// Longest time for a list.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which sessions are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only this handler's.
    pub handler: Option<String>,
    /// Only those of this client: an address, an address and a port, or a prefix.
    pub client: Option<String>,
    /// At most so many, and never more than [`LIST_MAX`].
    pub limit: Option<usize>,
}

/// The sessions that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// In the order in which the workers keep them.
    pub sessions: Vec<SessionRow>,
    /// Whether there are more: the limit was reached, or the time was over.
    pub is_cut: bool,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The number of the worker that has it.
    pub worker: usize,
    /// The client.
    pub client: String,
    /// The address of ours that it asked.
    pub local: String,
    /// The route that brought it here.
    pub route: String,
    /// The handler that has it.
    pub handler: String,
    /// The upstreams that it uses; of a fan-out the first few.
    pub upstreams: Vec<String>,
    /// How long nothing has passed, either way.
    pub idle_ms: u64,
    /// Datagrams from the client.
    pub requests: u32,
    /// Datagrams to the client.
    pub replies: u32,
    /// Whether it ever got an answer; those that did not are unreplied.
    pub is_answered: bool,
}

/// Lists sessions on a thread of its own: it may take a thousand turns of the workers.
pub(crate) fn list(
    query: &SessionQuery,
    running: &Running,
    responder: Responder<Result<SessionList, Refusal>>,
) {
    match Lister::new(query, running) {
        Ok(lister) => {
            let list = move || responder.send(Ok(lister.list()));
            // Where no thread can be had, the reply is dropped, which tells who waits.
            let _ = thread::Builder::new()
                .name("sessions".to_owned())
                .spawn(list);
        }
        Err(refusal) => responder.send(Err(refusal)),
    }
}

/// A list that is about to be made.
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
    /// Understands the query.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the query names a handler that does not exist, or a client that cannot be read.
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

    /// Asks one worker after the other, until there is one more than is wanted.
    pub fn list(&self) -> SessionList {
        let deadline = Instant::now() + TIMEOUT;
        let mut sessions = Vec::new();
        let is_whole =
            (0..self.workers.len()).all(|worker| self.add(worker, deadline, &mut sessions));
        let is_cut = !is_whole || sessions.len() > self.limit;
        sessions.truncate(self.limit);
        SessionList { sessions, is_cut }
    }

    /// Adds those of one worker. Whether that was all of them.
    fn add(&self, worker: usize, deadline: Instant, sessions: &mut Vec<SessionRow>) -> bool {
        let mut from = SessionCursor {
            handler: HandlerId(0),
            place: 0,
        };
        while sessions.len() <= self.limit {
            let Some(page) = self.page(worker, from, deadline) else {
                return false;
            };
            let query = page.found.iter().filter(|seen| self.is_wanted(seen));
            sessions.extend(query.map(|seen| self.row(worker, seen)));
            match page.next {
                Some(next) => from = next,
                None => return true,
            }
        }
        false
    }

    fn page(&self, worker: usize, from: SessionCursor, deadline: Instant) -> Option<SessionPage> {
        let (responder, page) = bounded(1);
        let query = Wanted {
            handler: self.handler,
            client: self.client,
            from,
        };
        self.workers[worker]
            .send(Command::Sessions(query, responder))
            .then_some(())?;
        page.recv_deadline(deadline).ok()
    }

    fn is_wanted(&self, seen: &Seen) -> bool {
        self.port.is_none_or(|port| seen.client.port() == port)
    }

    fn row(&self, worker: usize, seen: &Seen) -> SessionRow {
        let name = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
        SessionRow {
            worker,
            client: seen.client.to_string(),
            local: seen.local.to_string(),
            route: name(&self.routes, seen.route.0 as usize),
            handler: name(&self.handlers, seen.handler.index()),
            upstreams: seen
                .upstreams
                .iter()
                .map(|id| name(&self.upstreams, id.index()))
                .collect(),
            idle_ms: u64::try_from(seen.idle.as_millis()).unwrap_or(u64::MAX),
            requests: seen.requests,
            replies: seen.replies,
            is_answered: seen.is_assured,
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
            "{text} is no client; write 192.0.2.1, 192.0.2.1:5000, 192.0.2.0/24 or [2001:db8::1]:53"
        ))
    })
}
