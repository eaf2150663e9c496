//! Makes everything ready for a configuration to run, beside the one that runs now if there is one: all that can fail or block
//! happens here, and nothing of what runs is touched.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::build;
use crate::build::error::{Failure, system};
use crate::build::inherited_sockets::{Held, lend};
use crate::build::worker_threads::Crew;
use crate::config::kind::BuildError;
use crate::config::{Config, NamedHandler};
use crate::dispatch::sink::Job;
use crate::plan::diff::{Difference, Successors};
use crate::plan::file_tests;
use crate::plan::host::Host;
use crate::plan::identity::Outline;
use crate::plan::{ListenerPlan, Plan, worker_count};
use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;

/// What is to go on in the new configuration.
#[derive(Default)]
pub struct Present {
    /// What the running configuration amounts to.
    pub outline: Outline,
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
pub struct Draft {
    /// What the file says, and handlers that only serve sessions of older files.
    pub config: Config,
    plan: Plan,
    outline: Outline,
    successors: Successors,
    /// What is new.
    pub difference: Difference,
    /// Who lends the listeners' sockets, and which of them each seat's is.
    workers: Vec<Handle>,
    old: Outline,
}

/// A configuration with everything that it needs to run.
pub struct Prepared {
    /// What the file says, and handlers that only serve sessions of older files.
    pub config: Config,
    /// What that means on this machine.
    pub plan: Plan,
    /// What it amounts to.
    pub outline: Outline,
    /// Workers that do not run yet.
    pub workers: Vec<(Worker, Handle)>,
    /// Their threads.
    pub crew: Crew,
    /// Where what runs now goes on.
    pub successors: Successors,
    /// What is new.
    pub difference: Difference,
}

/// Plans a configuration, runs its tests where something runs that it could harm, and compares it with what runs.
pub fn draft(mut config: Config, present: Present) -> Result<Draft, Failure> {
    let host = Host::this().map_err(system("cannot list the interfaces of this host"))?;
    let retired = succeed(&mut config, &present);
    let plan = Plan::beside(&config, &host, worker_count(&config), &present.addresses)
        .map_err(|problems| Failure::Configuration(Box::new(problems)))?;
    let failed = file_tests::run(&config, &plan, &host);
    if failed.errors() > 0 && !present.outline.listeners.is_empty() {
        return Err(Failure::Configuration(Box::new(failed)));
    }
    let outline = Outline::new(&config, &plan);
    let successors = Successors::new(&present.outline, &outline, &retired);
    let difference = Difference::new(&present.outline, &outline);
    let Present {
        outline: old,
        workers,
        ..
    } = present;
    Ok(Draft {
        config,
        plan,
        outline,
        successors,
        difference,
        workers,
        old,
    })
}

impl Draft {
    /// The listeners that it will have.
    pub fn listeners(&self) -> &[ListenerPlan] {
        &self.plan.listeners
    }

    /// Opens everything that it needs. `held` are sockets that are open already, besides those that workers lend.
    pub fn prepare(
        self,
        mut held: Held,
        output: &Sender<Job>,
        epoch: Instant,
        ended: &Arc<Waker>,
    ) -> Result<Prepared, Failure> {
        let Draft {
            config,
            plan,
            outline,
            successors,
            difference,
            workers,
            old,
        } = self;
        borrow(&workers, &old, &mut held)?;
        let workers = build::build(&config, &plan, output, held, epoch)?;
        let crew = Crew::new(workers.len(), ended).map_err(system("cannot start a thread"))?;
        Ok(Prepared {
            config,
            plan,
            outline,
            workers,
            crew,
            successors,
            difference,
        })
    }
}

/// Handlers that are kept go on with what their workers share (rates, quotas). Those that are gone or lead elsewhere live on
/// behind the others, without routes, as long as they have sessions. Returns who that is: new number by old.
fn succeed(config: &mut Config, present: &Present) -> HashMap<usize, usize> {
    let mut retired = HashMap::new();
    for (number, old) in present.handlers.iter().enumerate() {
        let Some(old) = old else { continue };
        let heir = config.handlers.iter_mut().find(|heir| is_heir(old, heir));
        if let Some(heir) = &heir
            && heir.contents() == old.contents()
        {
            let recipe = Arc::clone(&old.recipe);
            config
                .handlers
                .iter_mut()
                .filter(|heir| is_heir(old, heir))
                .for_each(|heir| heir.recipe = Arc::clone(&recipe));
            continue;
        }
        let is_replaced = heir.is_some_and(|heir| leads_wherever(heir, old));
        if is_replaced
            || !old.recipe.has_sessions()
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

fn is_heir(old: &NamedHandler, new: &NamedHandler) -> bool {
    !old.is_retired && !new.is_retired && old.name == new.name && old.kind.name == new.kind.name
}

/// Whether every session of the old one finds its upstreams at the new one.
fn leads_wherever(new: &NamedHandler, old: &NamedHandler) -> bool {
    let (new_upstreams, old_upstreams) = (new.recipe.upstreams(), old.recipe.upstreams());
    new.recipe.has_sessions()
        && old_upstreams.iter().all(|old| {
            new_upstreams
                .iter()
                .any(|new| new.to_string() == old.to_string() && new.leave == old.leave)
        })
}

/// Second descriptors of all listeners' sockets that run now.
fn borrow(workers: &[Handle], outline: &Outline, held: &mut Held) -> Result<(), Failure> {
    let lent = lend(workers).map_err(|unlent| Failure::Start(BuildError(unlent.to_string())))?;
    for (seat, socket) in lent {
        held.add(outline.listeners[seat.listener].key.clone(), socket);
    }
    Ok(())
}
