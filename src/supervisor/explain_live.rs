//! What the running daemon would do with a datagram now: the explanation of `explain.rs` with what is known of the upstreams'
//! health, and what it has seen of the route and of the client so far.

use std::thread;

use crate::config::{Config, Kind};
use crate::dispatch::change::Change;
use crate::dispatch::id::UpstreamId;
use crate::observe::snapshot::Snapshot;
use crate::plan::explain::{Explanation, Question, explain, line};
use crate::plan::host::Host;
use crate::supervisor::Supervisor;
use crate::supervisor::requests::{Imagined, Refusal, Reply};
use crate::supervisor::sessions::{Lister, SessionQuery};

/// Sessions of the client that are told.
const SESSIONS_TOLD_MAX: usize = 8;

impl Supervisor {
    /// Explains, and answers on a thread of its own: finding the client's session may take many turns of the workers.
    pub(crate) fn explain_live(
        &mut self,
        imagined: Imagined,
        reply: Reply<Result<String, Refusal>>,
    ) {
        let client = imagined.from;
        let snapshot = self.snapshot();
        let mut text = match self.explanation(imagined, &snapshot) {
            Ok(text) => text,
            Err(refusal) => return reply.send(Err(refusal)),
        };
        let Some(client) = client else {
            return reply.send(Ok(text));
        };
        let workers = self.running.handles().cloned().collect();
        let query = SessionQuery {
            client: Some(client.to_string()),
            limit: Some(SESSIONS_TOLD_MAX),
            ..SessionQuery::default()
        };
        let lister = match Lister::new(&query, &self.running.config, &self.running.plan, workers) {
            Ok(lister) => lister,
            Err(refusal) => return reply.send(Err(refusal)),
        };
        let work = move || {
            let list = lister.list();
            for (place, session) in list.sessions.iter().enumerate() {
                let what = format!(
                    "{} has one with {} by handler {}, asked at {}: {} requests, {} replies, idle for {} ms; what belongs to \
                     it goes there",
                    session.client,
                    session.upstreams.join(", "),
                    session.handler,
                    session.local,
                    session.requests,
                    session.replies,
                    session.idle_ms
                );
                line(&mut text, if place == 0 { "session" } else { "" }, &what);
            }
            if list.sessions.is_empty() {
                line(&mut text, "session", &format!("{client} has none now"));
            }
            reply.send(Ok(text));
        };
        // Where no thread can be had, the reply is dropped, which tells who waits.
        let _ = thread::Builder::new()
            .name("explain".to_owned())
            .spawn(work);
    }

    fn explanation(&self, imagined: Imagined, snapshot: &Snapshot) -> Result<String, Refusal> {
        let host = Host::this().map_err(|error| {
            Refusal::Unable(format!("cannot list the interfaces of this host: {error}"))
        })?;
        let question = Question::new(imagined, &host).map_err(Refusal::Unknown)?;
        // The running recipes share quotas and rates with the workers: to imagine with them would use those up.
        let kinds: Vec<Kind> = self
            .running
            .config
            .handlers
            .iter()
            .map(|handler| handler.kind)
            .collect();
        let fresh = Config::parse(
            self.running.config.source.path(),
            self.running.config.source.text(),
            &kinds,
        )
        .map_err(|_| {
            Refusal::Unable("the running configuration cannot be read again".to_owned())
        })?;
        let changes = changes(snapshot);
        let explained = explain(&fresh, &self.running.plan, &host, &question, &changes);
        let Explanation { mut text, route } =
            explained.map_err(|error| Refusal::Unable(error.to_string()))?;
        if let Some(row) = route.and_then(|route| snapshot.routes.get(route.0 as usize)) {
            let account = &row.account;
            let seen = format!(
                "route {} has seen {} datagrams so far: {} handled, {} dropped, {} in flight",
                row.route, account.received, account.handled, account.dropped, account.in_flight
            );
            line(&mut text, "seen", &seen);
        }
        let handlers = route.map_or(&[][..], |route| {
            &self.running.config.routes[route.0 as usize].handlers
        });
        for handler in handlers {
            tell_health(
                &mut text,
                snapshot,
                &self.running.config.handler(*handler).name,
            );
        }
        Ok(text)
    }
}

/// What is to be told of the upstreams as they are now.
fn changes(snapshot: &Snapshot) -> Vec<(UpstreamId, Change)> {
    let mut changes = Vec::new();
    for (index, row) in snapshot.upstreams.iter().enumerate() {
        let id = UpstreamId::new(index);
        if let Some(Ok(address)) = row.address.as_ref().map(|address| address.parse()) {
            changes.push((id, Change::Moved(address)));
        }
        changes.push((id, Change::Alive(row.alive)));
        changes.push((id, Change::Drain(row.draining)));
    }
    changes
}

fn tell_health(text: &mut String, snapshot: &Snapshot, handler: &str) {
    for row in snapshot
        .upstreams
        .iter()
        .filter(|row| row.handler == handler)
    {
        let mut what = format!(
            "{}: {}",
            row.upstream,
            if row.alive { "alive" } else { "thought dead" }
        );
        if row.draining {
            what += ", draining";
        }
        what += &format!(", {} sessions, {} sent", row.sessions, row.sent);
        if let (false, Some(failure)) = (row.alive, &row.last_failure) {
            what += &format!("; last probe: {}", failure.text);
        }
        line(text, "upstream", &what);
    }
}
