//! Prepares a configuration to run, beside the one that runs now if there is one. Everything that can fail or block
//! happens here, and nothing that runs is changed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::build::error::{DaemonError, system};
use crate::build::inherited_sockets::{LentSockets, lend};
use crate::build::worker_threads::WorkerThreads;
use crate::build::{self, BuildInputs};
use crate::config::kind::BuildError;
use crate::config::{Config, NamedHandler};
use crate::dispatch::id::HandlerId;
use crate::dispatch::sink::Job;
use crate::plan::diff::Diff;
use crate::plan::file_tests;
use crate::plan::host::Host;
use crate::plan::identity::{HandlerIdentity, Identity};
use crate::plan::row_map::{HandlerMap, RowMaps};
use crate::plan::{ListenerPlan, Plan, worker_count};
use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;

/// State of the running configuration that a new one may continue with.
#[derive(Default)]
pub struct Present {
    /// Identity of the running configuration.
    pub identity: Identity,
    /// Handlers of the running configuration, by number; `None` for one that this program cannot read.
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
    row_maps: Arc<RowMaps>,
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
    pub row_maps: Arc<RowMaps>,
    /// Differences from the running configuration.
    pub diff: Diff,
}

/// Plans a configuration, runs the tests of its file, and compares it with the running one. Failed tests refuse the
/// configuration only if another one runs, which it could harm.
///
/// # Errors
///
/// Returns an error if the host's interfaces cannot be listed, if the plan has problems, or if a test of the file
/// fails.
pub fn draft(mut config: Config, present: Present) -> Result<ConfigDraft, DaemonError> {
    let host = Host::this().map_err(system("cannot list the interfaces of this host"))?;
    let handlers = map_handlers(&mut config, &present);
    let plan =
        Plan::with_known_addresses(&config, &host, worker_count(&config), &present.addresses)
            .map_err(|problems| DaemonError::Configuration(Box::new(problems)))?;
    let failed = file_tests::run(&config, &plan, &host);
    if failed.errors() > 0 && !present.identity.listeners.is_empty() {
        return Err(DaemonError::Configuration(Box::new(failed)));
    }
    let identity = Identity::new(&config, &plan);
    let row_maps = Arc::new(RowMaps::new(&present.identity, &identity, handlers));
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
        row_maps,
        diff,
        workers,
        old,
    })
}

impl ConfigDraft {
    /// Returns the listeners of the new configuration.
    pub fn listeners(&self) -> &[ListenerPlan] {
        &self.plan.listeners
    }

    /// Opens all sockets of the configuration, builds its workers and starts their threads. `lent_sockets` are open
    /// already, and complement those that the running workers lend.
    ///
    /// # Errors
    ///
    /// Returns an error if a worker does not lend its sockets, if a socket or handler cannot be made, or if a thread
    /// cannot start. Nothing that runs has changed then.
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
            row_maps,
            diff,
            workers,
            old,
        } = self;
        borrow(&workers, &old, &mut lent_sockets)?;
        let inputs = BuildInputs {
            config: &config,
            plan: &plan,
            output,
            epoch,
        };
        let workers = build::build(inputs, lent_sockets)?;
        let worker_threads =
            WorkerThreads::new(workers.len(), ended).map_err(system("cannot start a thread"))?;
        Ok(Prepared {
            config,
            plan,
            identity,
            workers,
            worker_threads,
            row_maps,
            diff,
        })
    }
}

/// Maps each running handler to the handlers that continue it. Unchanged handlers keep the state that their workers
/// share (rates, quotas). A handler is retired if it has no replacement, or if that lacks one of its upstreams. A
/// retired handler has no routes, and lives while it has sessions.
fn map_handlers(config: &mut Config, present: &Present) -> Vec<HandlerMap> {
    let new: Vec<_> = config.handlers.iter().map(HandlerIdentity::new).collect();
    let old = present.identity.handlers.iter();
    let mut maps: Vec<_> = old.map(|old| HandlerMap::new(old, &new)).collect();
    for (number, (old, map)) in present.handlers.iter().zip(&mut maps).enumerate() {
        let Some(old) = old else { continue };
        let replacement = map.replacement.map(HandlerId::index);
        if let Some(replacement) = replacement.map(|index| &mut config.handlers[index])
            && replacement.contents() == old.contents()
        {
            replacement.spec = Arc::clone(&old.spec);
            continue;
        }
        if map.takes_every_session()
            || !old.spec.has_sessions()
            || (old.is_retired && present.sessions[number] == 0)
        {
            continue;
        }
        let name = if old.is_retired {
            old.name.clone()
        } else {
            format!("{} (retired {})", old.name, present.generation)
        };
        map.retired = Some(HandlerId::new(config.handlers.len()));
        config.handlers.push(NamedHandler {
            name,
            is_retired: true,
            ..old.clone()
        });
    }
    maps
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
