//! Upstreams that operators have drained by command. They receive no new sessions, and stay drained when the
//! configuration changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::error::Refusal;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::dispatch::id::UpstreamId;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::handover::running::Running;
use crate::plan::upstreams::PlannedUpstream;
use crate::worker::command::Command;

/// The upstreams that are drained by command, by handler and text.
#[derive(Debug, Default)]
pub(crate) struct Drained(BTreeSet<(String, String)>);

impl Drained {
    /// Returns the upstreams that were drained in another process.
    pub(crate) fn inherited(names: Vec<(String, String)>) -> Drained {
        Drained(names.into_iter().collect())
    }

    /// Returns the drained upstreams, each as the name of its handler and its text.
    pub(crate) fn names(&self) -> &BTreeSet<(String, String)> {
        &self.0
    }

    /// Drains an upstream, or ends its drain. Returns a sentence that says what was done.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the text does not name exactly one upstream.
    pub(crate) fn set(
        &mut self,
        text: &str,
        drain: bool,
        running: &Running,
    ) -> Result<String, Refusal> {
        let (handler, upstream, ids) = find_upstream(text, running)?;
        let name = (handler.clone(), upstream.clone());
        let is_new = if drain {
            self.0.insert(name)
        } else {
            self.0.remove(&name)
        };
        notify_workers(&ids, drain, running);
        let done = match (drain, is_new) {
            (true, true) => "gets no new sessions; its existing sessions continue until they end",
            (true, false) => "is already drained",
            (false, true) => "gets new sessions again",
            (false, false) => "was not drained by a command; it gets new sessions as the file says",
        };
        let done = format!("upstream {upstream} of handler {handler} {done}");
        log::info!("{done}");
        Ok(done)
    }

    /// Sends the drained upstreams to the workers again, since new workers do not know them.
    pub(crate) fn apply_again(&self, running: &Running) {
        for (handler, upstream) in &self.0 {
            notify_workers(&ids_of(handler, upstream, running), true, running);
        }
    }
}

fn notify_workers(ids: &[UpstreamId], drain: bool, running: &Running) {
    for handle in running.handles() {
        for id in ids {
            // The supervisor detects a worker that has ended.
            handle.send(Command::UpstreamEvent(*id, UpstreamEvent::Drain(drain)));
        }
    }
}

fn ids_of(handler: &str, upstream: &str, running: &Running) -> Vec<UpstreamId> {
    let is_named = |planned: &PlannedUpstream| {
        running.config.handler(planned.handler).name == handler
            && planned.upstream.to_string() == upstream
    };
    let all = running.plan.upstreams.iter();
    all.filter(|(_, planned)| is_named(planned))
        .map(|(id, _)| id)
        .collect()
}

/// Returns the handler, the text and the numbers of the upstream that `text` names. An address alone never names an upstream
/// of a handler that a reload has retired, since that handler is not in the file.
fn find_upstream(
    text: &str,
    running: &Running,
) -> Result<(String, String, Vec<UpstreamId>), Refusal> {
    let all = running.plan.upstreams.iter().map(|(_, planned)| {
        let handler = running.config.handler(planned.handler);
        (
            (handler.name.clone(), planned.upstream.to_string()),
            handler.is_retired,
        )
    });
    let all: BTreeMap<(String, String), bool> = all.collect();
    let full = |(handler, upstream): &(String, String)| format!("{handler}/{upstream}");
    let short = || {
        all.iter()
            .filter(|(_, is_retired)| !**is_retired)
            .map(|(name, _)| name)
    };
    let exact = all.keys().filter(|name| full(name) == text);
    let meant: BTreeSet<_> = exact.chain(short().filter(|name| name.1 == text)).collect();
    match meant.into_iter().collect::<Vec<_>>().as_slice() {
        [(handler, upstream)] => Ok((
            handler.clone(),
            upstream.clone(),
            ids_of(handler, upstream, running),
        )),
        [] => {
            let names: Vec<String> = all.keys().map(full).collect();
            let candidates = names
                .iter()
                .chain(short().map(|name| &name.1))
                .map(String::as_str);
            let meant = did_you_mean(text, candidates)
                .unwrap_or_else(|| "`udispatch upstreams` lists them".to_owned());
            Err(Refusal::Unknown(format!(
                "there is no upstream {}; {meant}",
                quoted(text)
            )))
        }
        several => {
            let names: Vec<String> = several.iter().map(|name| full(name)).collect();
            let text = quoted(text);
            Err(Refusal::Unknown(format!(
                "several handlers have the upstream {text}; write one of {}",
                names.join(", ")
            )))
        }
    }
}
