//! Answers the requests that other threads send, between two signals and one at a time. No answer waits longer than a second
//! for a worker.

use crate::handover::running::Running;
use crate::observe::snapshot::Alarm;
use crate::supervisor::explain_live::explain_live;
use crate::supervisor::log_level;
use crate::supervisor::office::Office;
use crate::supervisor::reload::{Reloader, Wish};
use crate::supervisor::requests::Request;
use crate::supervisor::sessions;

/// Requests that are answered before signals are looked at again.
const ANSWERS_MAX: usize = 16;

/// The parts of the supervisor that answer requests.
pub(crate) struct CommandParts<'a> {
    /// The configuration that runs.
    pub(crate) running: &'a mut Running,
    /// What the supervisor remembers.
    pub(crate) office: &'a mut Office,
    /// Takes requests for a reload.
    pub(crate) reloader: &'a mut Reloader,
    /// Returns the alarms of what the host shows.
    pub(crate) found: &'a dyn Fn() -> Vec<Alarm>,
}

/// Answers the requests that wait, at most [`ANSWERS_MAX`] of them; the others wait until signals have been handled. Returns
/// whether the daemon is to stop.
pub(crate) fn respond_to_all(parts: &mut CommandParts<'_>) -> bool {
    for _ in 0..ANSWERS_MAX {
        let Some(request) = parts.office.next_request() else {
            return false;
        };
        if respond(request, parts) {
            return true;
        }
    }
    let _ = parts.office.requests.wake();
    false
}

/// Answers one request. Returns whether the daemon is to stop.
fn respond(request: Request, parts: &mut CommandParts<'_>) -> bool {
    let CommandParts {
        running,
        office,
        reloader,
        found,
    } = parts;
    match request {
        Request::Snapshot(reply) => reply.send(Box::new(office.snapshot(running, found()))),
        Request::Sessions(query, reply) => sessions::list(&query, running, reply),
        Request::Explain(imagined, reply) => {
            let snapshot = office.snapshot(running, found());
            explain_live(imagined, running, &snapshot, reply);
        }
        Request::Reload { is_dry_run, reply } => reloader.request(Wish {
            is_dry_run,
            reply: Some(reply),
        }),
        Request::Drain {
            upstream,
            drain,
            reply,
        } => reply.send(office.drained.set(&upstream, drain, running)),
        Request::Tap(query, reply) => reply.send(office.lookers.begin(query, running)),
        Request::Log(level, reply) => reply.send(log_level::set(level)),
        Request::Stop(reply) => {
            reply.send("stopping; what the sockets hold is still handled".to_owned());
            return true;
        }
    }
    false
}
