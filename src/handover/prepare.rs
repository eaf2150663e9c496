//! Prepares a configuration to run, beside the one that runs now if there is one. Everything that can fail or block
//! happens here, and nothing that runs is changed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::build;
use crate::build::error::{DaemonError, system};
use crate::build::inherited_sockets::{LentSockets, lend};
use crate::build::worker_threads::WorkerThreads;
use crate::config::kind::BuildError;
use crate::config::{Config, NamedHandler};
use crate::dispatch::sink::Job;
use crate::plan::diff::{Diff, RowMap};
use crate::plan::file_tests;
use crate::plan::host::Host;
use crate::plan::identity::Identity;
use crate::plan::{ListenerPlan, Plan, worker_count};
use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;

/// State of the running configuration that a new one may continue with.
#[derive(Default)]
pub struct Present {
    /// Identity of the running configuration.
    pub identity: Identity,
    /// Handlers of the running configuration, by number; `None` for one that this program does not understand.
    pub handlers: Vec<Option<NamedHandler>>,
    /// Number of open sessions of each handler.
    pub sessions: Vec<u64>,
    /// Current addresses of upstreams that are given by name.
    pub addresses: HashMap<String, SocketAddr>,
    /// Running workers, which lend their listeners' sockets.
    pub workers: Vec<Handle>,
    /// Number of reloads and takeovers so far.
    pub generation: u64,
}

/// A configuration that has been compared with the running one; no socket is open for it yet.
pub struct ConfigDraft {
    /// The parsed file, and retired handlers that only serve sessions of older files.
    pub config: Config,
    plan: Plan,
    identity: Identity,
    row_map: RowMap,
    /// Differences from the running configuration.
    pub diff: Diff,
    /// Running workers, which lend their listeners' sockets.
    workers: Vec<Handle>,
    old: Identity,
}

/// A configuration with everything that it needs to run.
pub struct Prepared {
    /// The parsed file, and retired handlers that only serve sessions of older files.
    pub config: Config,
    /// Sockets, lookups and upstreams that the configuration needs on this host.
    pub plan: Plan,
    /// Identity of the configuration, for comparison with the next one.
    pub identity: Identity,
    /// Workers that do not run yet.
    pub workers: Vec<(Worker, Handle)>,
    /// Threads that will run the workers.
    pub worker_threads: WorkerThreads,
    /// Maps each row of the running configuration to its row in this one.
    pub row_map: RowMap,
    /// Differences from the running configuration.
    pub diff: Diff,
}

/// Plans a configuration, runs the tests of its file, and compares it with the running one. Failed tests refuse the
/// configuration only if another one runs, which it could harm.
///
/// # Errors
///
/// Fails if the host's interfaces cannot be listed, if the plan has problems, or if a test of the file fails.
pub fn draft(mut config: Config, present: Present) -> Result<ConfigDraft, DaemonError> {
    let host = Host::this().map_err(system("cannot list the interfaces of this host"))?;
    let retired = succeed(&mut config, &present);
    let plan = Plan::beside(&config, &host, worker_count(&config), &present.addresses)
        .map_err(|problems| DaemonError::Configuration(Box::new(problems)))?;
    let failed = file_tests::run(&config, &plan, &host);
    if failed.errors() > 0 && !present.identity.listeners.is_empty() {
        return Err(DaemonError::Configuration(Box::new(failed)));
    }
    let identity = Identity::new(&config, &plan);
    let row_map = RowMap::new(&present.identity, &identity, &retired);
    let diff = Diff::new(&present.identity, &identity);
    let Present {
        identity: old,
        workers,
        ..
    } = present;
    Ok(ConfigDraft {
        config,
        plan,
        identity,
        row_map,
        diff,
        workers,
        old,
    })
}

impl ConfigDraft {
    /// Listeners of the new configuration.
    pub fn listeners(&self) -> &[ListenerPlan] {
        &self.plan.listeners
    }

    /// Opens all sockets of the configuration, builds its workers and starts their threads. `lent_sockets` are open
    /// already, and complement those that the running workers lend.
    ///
    /// # Errors
    ///
    /// Fails if a worker does not lend its sockets, if a socket or handler cannot be made, or if a thread cannot start.
    /// Nothing that runs has changed then.
    pub fn prepare(
        self,
        mut lent_sockets: LentSockets,
        output: &Sender<Job>,
        epoch: Instant,
        ended: &Arc<Waker>,
    ) -> Result<Prepared, DaemonError> {
        let ConfigDraft {
            config,
            plan,
            identity,
            row_map,
            diff,
            workers,
            old,
        } = self;
        borrow(&workers, &old, &mut lent_sockets)?;
        let workers = build::build(&config, &plan, output, lent_sockets, epoch)?;
        let worker_threads =
            WorkerThreads::new(workers.len(), ended).map_err(system("cannot start a thread"))?;
        Ok(Prepared {
            config,
            plan,
            identity,
            workers,
            worker_threads,
            row_map,
            diff,
        })
    }
}

/// Lets unchanged handlers continue with what their workers share (rates, quotas). An old handler is retired if it has
/// no replacement, or if that lacks one of its upstreams. A retired handler has no routes, and lives while it has
/// sessions. Returns the new number of each retired handler by its old number.
fn succeed(config: &mut Config, present: &Present) -> HashMap<usize, usize> {
    let mut retired = HashMap::new();
    for (number, old) in present.handlers.iter().enumerate() {
        let Some(old) = old else { continue };
        let replacement = config
            .handlers
            .iter_mut()
            .find(|replacement| is_replacement(old, replacement));
        if let Some(replacement) = &replacement
            && replacement.contents() == old.contents()
        {
            let spec = Arc::clone(&old.spec);
            config
                .handlers
                .iter_mut()
                .filter(|replacement| is_replacement(old, replacement))
                .for_each(|replacement| replacement.spec = Arc::clone(&spec));
            continue;
        }
        let is_replaced = replacement.is_some_and(|replacement| leads_wherever(replacement, old));
        if is_replaced
            || !old.spec.has_sessions()
            || (old.is_retired && present.sessions[number] == 0)
        {
            continue;
        }
        let name = match old.is_retired {
            true => old.name.clone(),
            false => format!("{} (retired {})", old.name, present.generation),
        };
        retired.insert(number, config.handlers.len());
        config.handlers.push(NamedHandler {
            name,
            is_retired: true,
            ..old.clone()
        });
    }
    retired
}

fn is_replacement(old: &NamedHandler, new: &NamedHandler) -> bool {
    !old.is_retired && !new.is_retired && old.name == new.name && old.kind.name == new.kind.name
}

/// Whether the new handler has every upstream of the old one, so that all sessions can continue.
fn leads_wherever(new: &NamedHandler, old: &NamedHandler) -> bool {
    let (new_upstreams, old_upstreams) = (new.spec.upstreams(), old.spec.upstreams());
    new.spec.has_sessions()
        && old_upstreams.iter().all(|old| {
            new_upstreams
                .iter()
                .any(|new| new.to_string() == old.to_string() && new.egress == old.egress)
        })
}

/// Adds duplicated descriptors of the running listeners' sockets to `lent_sockets`.
fn borrow(
    workers: &[Handle],
    identity: &Identity,
    lent_sockets: &mut LentSockets,
) -> Result<(), DaemonError> {
    let lent =
        lend(workers).map_err(|unlent| DaemonError::Start(BuildError(unlent.to_string())))?;
    for (slot, socket) in lent {
        lent_sockets.add(
            identity.listeners[slot.listener.index()].key.clone(),
            socket,
        );
    }
    Ok(())
}
