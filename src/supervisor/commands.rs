//! Answers the requests that other threads send, between two signals and one at a time. No answer waits longer than a second
//! for a worker.

use crate::handover::running::Running;
use crate::observe::snapshot::Alarm;
use crate::supervisor::admin_state::AdminState;
use crate::supervisor::explain_live::explain_live;
use crate::supervisor::log_level;
use crate::supervisor::reload::{ReloadRequest, Reloader};
use crate::supervisor::requests::Request;
use crate::supervisor::sessions;

/// Requests that are answered before signals are looked at again.
const REQUESTS_MAX: usize = 16;

/// The parts of the supervisor that answer requests.
pub(crate) struct CommandParts<'a> {
    /// The configuration that runs.
    pub(crate) running: &'a mut Running,
    /// What the supervisor remembers.
    pub(crate) admin_state: &'a mut AdminState,
    /// Takes requests for a reload.
    pub(crate) reloader: &'a mut Reloader,
    /// Returns the alarms of what the host shows.
    pub(crate) found: &'a dyn Fn() -> Vec<Alarm>,
}

/// Answers the requests that wait, at most [`REQUESTS_MAX`] of them; the others wait until signals have been handled. Returns
/// whether the daemon is to stop.
pub(crate) fn respond_to_all(parts: &mut CommandParts<'_>) -> bool {
    for _ in 0..REQUESTS_MAX {
        let Some(request) = parts.admin_state.next_request() else {
            return false;
        };
        if respond(request, parts) {
            return true;
        }
    }
    let _ = parts.admin_state.requests.wake();
    false
}

/// Answers one request. Returns whether the daemon is to stop.
fn respond(request: Request, parts: &mut CommandParts<'_>) -> bool {
    let CommandParts {
        running,
        admin_state,
        reloader,
        found,
    } = parts;
    match request {
        Request::Snapshot(responder) => {
            responder.send(Box::new(admin_state.snapshot(running, found())))
        }
        Request::Sessions(query, responder) => sessions::list(&query, running, responder),
        Request::Explain(imagined, responder) => {
            let snapshot = admin_state.snapshot(running, found());
            explain_live(imagined, running, &snapshot, responder);
        }
        Request::Reload {
            is_dry_run,
            responder,
        } => reloader.request(ReloadRequest {
            is_dry_run,
            responder: Some(responder),
        }),
        Request::Drain {
            upstream,
            drain,
            responder,
        } => responder.send(admin_state.drained.set(&upstream, drain, running)),
        Request::Tap(query, responder) => {
            responder.send(admin_state.tap_readers.begin(query, running))
        }
        Request::Log(level, responder) => responder.send(log_level::set(level)),
        Request::Stop(responder) => {
            responder.send("stopping; what the sockets hold is still handled".to_owned());
            return true;
        }
    }
    false
}
