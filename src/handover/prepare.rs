//! Makes everything ready for a configuration to run, beside the one that runs now if there is one: all that can fail or block
//! happens here, and nothing of what runs is touched.

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

/// What is to go on in the new configuration.
#[derive(Default)]
pub struct Present {
    /// What the running configuration amounts to.
    pub identity: Identity,
    /// Its handlers, by number; `None` where this program does not understand one.
    pub handlers: Vec<Option<NamedHandler>>,
    /// How many sessions each of them has.
    pub sessions: Vec<u64>,
    /// Where upstreams with names are.
    pub addresses: HashMap<String, SocketAddr>,
    /// Who lends the listeners' sockets.
    pub workers: Vec<Handle>,
    /// How many configurations there were before.
    pub generation: u64,
}

/// A configuration that has been compared with the one that runs; nothing is open for it yet.
pub struct ConfigDraft {
    /// What the file says, and handlers that only serve sessions of older files.
    pub config: Config,
    plan: Plan,
    identity: Identity,
    row_map: RowMap,
    /// What is new.
    pub diff: Diff,
    /// Who lends the listeners' sockets, and which of them each slot's is.
    workers: Vec<Handle>,
    old: Identity,
}

/// A configuration with everything that it needs to run.
pub struct Prepared {
    /// What the file says, and handlers that only serve sessions of older files.
    pub config: Config,
    /// What that means on this machine.
    pub plan: Plan,
    /// What it amounts to.
    pub identity: Identity,
    /// Workers that do not run yet.
    pub workers: Vec<(Worker, Handle)>,
    /// Their threads.
    pub worker_threads: WorkerThreads,
    /// Where what runs now goes on.
    pub row_map: RowMap,
    /// What is new.
    pub diff: Diff,
}

/// Plans a configuration, runs its tests where something runs that it could harm, and compares it with what runs.
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
    /// The listeners that it will have.
    pub fn listeners(&self) -> &[ListenerPlan] {
        &self.plan.listeners
    }

    /// Opens everything that it needs. `lent_sockets` are sockets that are open already, besides those that workers lend.
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

/// Handlers that are kept go on with what their workers share (rates, quotas). Those that are gone or lead elsewhere live on
/// behind the others, without routes, as long as they have sessions. Returns who that is: new number by old.
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

/// Whether every session of the old one finds its upstreams at the new one.
fn leads_wherever(new: &NamedHandler, old: &NamedHandler) -> bool {
    let (new_upstreams, old_upstreams) = (new.spec.upstreams(), old.spec.upstreams());
    new.spec.has_sessions()
        && old_upstreams.iter().all(|old| {
            new_upstreams
                .iter()
                .any(|new| new.to_string() == old.to_string() && new.egress == old.egress)
        })
}

/// Second descriptors of all listeners' sockets that run now.
fn borrow(
    workers: &[Handle],
    identity: &Identity,
    lent_sockets: &mut LentSockets,
) -> Result<(), DaemonError> {
    let lent =
        lend(workers).map_err(|unlent| DaemonError::Start(BuildError(unlent.to_string())))?;
    for (slot, socket) in lent {
        lent_sockets.add(identity.listeners[slot.listener].key.clone(), socket);
    }
    Ok(())
}
