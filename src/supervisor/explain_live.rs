//! Explains what the running daemon would do with a datagram now. It extends the explanation of `plan/explain/` by the
//! health of the upstreams, the counts of the route, and the sessions of the client.

use std::thread;

use crate::build::error::Refusal;
use crate::config::{Config, Kind};
use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::handover::running::Running;
use crate::observe::snapshot::Snapshot;
use crate::plan::explain::{Explanation, Imagined, Question, explain, line};
use crate::plan::host::Host;
use crate::supervisor::responder::Responder;
use crate::supervisor::sessions::{Lister, SessionQuery};

/// Largest number of the client's sessions that are shown.
const SESSIONS_SHOWN_MAX: usize = 8;

/// Explains a datagram and responds from a separate thread, since the search for the client's sessions may take many
/// turns of the workers.
pub(crate) fn explain_live(
    imagined: Imagined,
    running: &Running,
    snapshot: &Snapshot,
    responder: Responder<Result<String, Refusal>>,
) {
    let client = imagined.from;
    let mut text = match explanation(imagined, running, snapshot) {
        Ok(text) => text,
        Err(refusal) => return responder.send(Err(refusal)),
    };
    let Some(client) = client else {
        return responder.send(Ok(text));
    };
    let query = SessionQuery {
        client: Some(client.to_string()),
        limit: Some(SESSIONS_SHOWN_MAX),
        ..SessionQuery::default()
    };
    let lister = match Lister::new(&query, running) {
        Ok(lister) => lister,
        Err(refusal) => return responder.send(Err(refusal)),
    };
    let work = move || {
        let list = lister.list();
        for (place, session) in list.sessions.iter().enumerate() {
            let what = format!(
                "{} has a session with {}, by handler {}, on {}: {} requests, {} replies, idle for {} ms; its datagrams go to that \
                 upstream",
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
            line(&mut text, "session", &format!("{client} has no session"));
        }
        responder.send(Ok(text));
    };
    // If no thread can be started, the responder is dropped, which notifies the waiting side.
    let _ = thread::Builder::new()
        .name("explain".to_owned())
        .spawn(work);
}

fn explanation(
    imagined: Imagined,
    running: &Running,
    snapshot: &Snapshot,
) -> Result<String, Refusal> {
    let host = Host::this().map_err(|error| {
        Refusal::Unable(format!("cannot list the interfaces of this host: {error}"))
    })?;
    let question = Question::new(imagined, &host).map_err(Refusal::Unknown)?;
    // The running handler specs share quotas and rates with the workers, and a dry run would use those up. Read new
    // ones.
    let kinds: Vec<Kind> = running
        .config
        .handlers
        .iter()
        .map(|handler| handler.kind)
        .collect();
    let fresh = Config::parse(
        running.config.source.path(),
        running.config.source.text(),
        &kinds,
    )
    .map_err(|_| Refusal::Unable("cannot read the running configuration".to_owned()))?;
    let changes = changes(snapshot);
    let explained = explain(&fresh, &running.plan, &host, &question, &changes);
    let Explanation { mut text, route } =
        explained.map_err(|error| Refusal::Unable(error.to_string()))?;
    if let Some(row) = route.and_then(|route| snapshot.routes.get(route.index())) {
        let account = &row.account;
        let seen = format!(
            "route {} has received {} datagrams so far: {} handled, {} dropped, {} in flight",
            row.route, account.received, account.handled, account.dropped, account.in_flight
        );
        line(&mut text, "seen", &seen);
    }
    let handlers = route.map_or(&[][..], |route| {
        &running.config.routes[route.index()].handlers
    });
    for handler in handlers {
        add_health(&mut text, snapshot, &running.config.handler(*handler).name);
    }
    Ok(text)
}

/// Returns the events that give the upstreams their present state.
fn changes(snapshot: &Snapshot) -> Vec<(UpstreamId, UpstreamEvent)> {
    let mut changes = Vec::new();
    for (index, row) in snapshot.upstreams.iter().enumerate() {
        let id = UpstreamId::new(index);
        if let Some(Ok(address)) = row.address.as_ref().map(|address| address.parse()) {
            changes.push((id, UpstreamEvent::Moved(address)));
        }
        changes.push((id, UpstreamEvent::Alive(row.alive)));
        changes.push((id, UpstreamEvent::Drain(row.draining)));
    }
    changes
}

fn add_health(text: &mut String, snapshot: &Snapshot, handler: &str) {
    for row in snapshot
        .upstreams
        .iter()
        .filter(|row| row.handler == handler)
    {
        let mut what = format!(
            "{}: {}",
            row.upstream,
            if row.alive { "alive" } else { "dead" }
        );
        if row.draining {
            what += ", draining";
        }
        what += &format!(
            ", {} sessions, {} sent",
            row.counters.sessions, row.counters.sent
        );
        if let (false, Some(failure)) = (row.alive, &row.last_failure) {
            what += &format!("; last probe: {}", failure.text);
        }
        line(text, "upstream", &what);
    }
}
