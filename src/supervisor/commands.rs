//! Responds to the requests of other threads, one at a time, between checks for signals. No response waits longer than
//! a second for a worker.

use crate::handover::running::Running;
use crate::observe::snapshot::Alarm;
use crate::supervisor::admin_state::AdminState;
use crate::supervisor::explain_live::explain_live;
use crate::supervisor::log_level;
use crate::supervisor::reload::{ReloadRequest, Reloader};
use crate::supervisor::requests::Request;
use crate::supervisor::sessions;

/// Largest number of requests that are handled before signals are checked again.
const REQUESTS_MAX: usize = 16;

/// The parts of the supervisor that handle requests.
pub(crate) struct CommandParts<'a> {
    /// The running configuration and its workers.
    pub(crate) running: &'a mut Running,
    /// The state that the supervisor keeps to respond to requests.
    pub(crate) admin_state: &'a mut AdminState,
    /// Queues requests for a reload.
    pub(crate) reloader: &'a mut Reloader,
    /// Returns the alarms that the host watch found.
    pub(crate) found: &'a dyn Fn() -> Vec<Alarm>,
}

/// Handles the waiting requests, at most [`REQUESTS_MAX`] of them. The others wait until signals have been handled.
/// Returns whether the daemon must stop.
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

/// Handles one request. Returns whether the daemon must stop.
fn respond(request: Request, parts: &mut CommandParts<'_>) -> bool {
    let CommandParts {
        running,
        admin_state,
        reloader,
        found,
    } = parts;
    match request {
        Request::Snapshot(responder) => {
            responder.send(Box::new(admin_state.snapshot(running, found())));
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
            responder.send(admin_state.tap_readers.begin(query, running));
        }
        Request::Log(level, responder) => responder.send(log_level::set(level)),
        Request::Stop(responder) => {
            responder.send("stopping after the datagrams in the socket buffers".to_owned());
            return true;
        }
    }
    false
}
