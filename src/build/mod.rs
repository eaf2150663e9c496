//! From a plan to workers that are ready to run: sockets bound, groups joined, upstreams connected, handlers built.

pub mod error;
pub mod inherited_sockets;
pub mod line_writer;
mod listeners;
pub mod log_writer;
pub mod port_owners;
pub mod service_manager;
pub mod socket_activation;
pub mod worker_threads;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use ipnet::IpNet;

use crate::build::error::explain;
use crate::build::inherited_sockets::LentSockets;
use crate::build::listeners::{bind_all, probe};
use crate::config::kind::{BuildContext, BuildError, OpenedUpstream};
use crate::config::upstream::{SendFrom, Upstream};
use crate::config::{Config, Route};
use crate::dispatch::dispatcher::{Dispatcher, DispatcherParts, ListenerRouting};
use crate::dispatch::handler::{Handler, HandlerId};
use crate::dispatch::route_table::RouteId;
use crate::dispatch::sink::{Job, LineSink};
use crate::net::kept_source;
use crate::plan::Plan;
use crate::plan::targets;
use crate::plan::upstreams::{PlannedUpstream, Upstreams};
use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;
use crate::worker::listener::Listener;
use crate::worker::upstream_sockets::{UpstreamSockets, UpstreamTarget};

/// What workers are built from.
#[derive(Clone, Copy)]
pub struct BuildInputs<'a> {
    /// The configuration to run.
    pub config: &'a Config,
    /// The plan of the configuration.
    pub plan: &'a Plan,
    /// The queue of lines for standard output.
    pub output: &'a Sender<Job>,
    /// The moment from which the workers count time.
    pub epoch: Instant,
}

/// Builds all workers around the existing sockets.
///
/// # Errors
///
/// Returns a [`BuildError`] with cause and cure if a socket cannot be opened, bound or joined, or if a handler cannot
/// be built. No new socket stays bound then.
pub fn build(
    inputs: BuildInputs<'_>,
    lent_sockets: LentSockets,
) -> Result<Vec<(Worker, Handle)>, BuildError> {
    let BuildInputs { config, plan, .. } = inputs;
    probe(plan, &lent_sockets)?;
    let targets = targets::of(config, plan);
    let actors = || -> Result<Vec<WorkerActors>, BuildError> {
        (0..plan.workers)
            .map(|number| build_actors(inputs, &targets, number))
            .collect()
    };
    // If sockets serve already, bind the new ones last. A new socket beside them may receive datagrams at once, which
    // would be lost if a later step failed. If none serves yet, bind the listeners first. The kernel might otherwise
    // give their ports to upstream sockets.
    let (listeners, actors) = if lent_sockets.is_empty() {
        (bind_all(&config.daemon, plan, lent_sockets)?, actors()?)
    } else {
        let actors = actors()?;
        (bind_all(&config.daemon, plan, lent_sockets)?, actors)
    };
    let numbered = listeners.into_iter().zip(actors).enumerate();
    numbered
        .map(|(number, (listeners, actors))| build_worker(inputs, listeners, actors, number))
        .collect()
}

/// The handlers of a worker, and the sockets that they send through.
struct WorkerActors {
    handlers: Vec<Box<dyn Handler>>,
    upstream_sockets: UpstreamSockets,
}

fn build_actors(
    inputs: BuildInputs<'_>,
    targets: &[UpstreamTarget],
    number: usize,
) -> Result<WorkerActors, BuildError> {
    let upstream_sockets = UpstreamSockets::new(targets.to_vec());
    let mut context = WorkerBuildContext {
        upstreams: &inputs.plan.upstreams,
        output: inputs.output,
        number,
        handler: HandlerId(0),
        upstream_sockets,
    };
    let handlers = build_handlers(inputs.config, &mut context)?;
    Ok(WorkerActors {
        handlers,
        upstream_sockets: context.upstream_sockets,
    })
}

fn build_worker(
    inputs: BuildInputs<'_>,
    listeners: Vec<Listener>,
    actors: WorkerActors,
    number: usize,
) -> Result<(Worker, Handle), BuildError> {
    let BuildInputs {
        config,
        plan,
        epoch,
        ..
    } = inputs;
    let routing = |listener: &Listener| {
        let planned = &plan.listeners[listener.slot.listener.index()];
        let claim = planned.claim(listener.slot.index);
        ListenerRouting {
            id: listener.slot.listener,
            lookup: planned.lookup.clone(),
            claim,
        }
    };
    let routings = listeners.iter().map(routing).collect();
    let WorkerActors {
        handlers,
        upstream_sockets,
    } = actors;
    let routes = config
        .routes
        .iter()
        .map(|route| route.handlers.clone())
        .collect();
    let (reply_filter, names) = (Arc::clone(&plan.reply_filter), Arc::clone(&plan.names));
    let upstreams = plan.upstreams.count();
    let mut dispatcher = Dispatcher::new(DispatcherParts {
        listeners: routings,
        routes,
        handlers,
        reply_filter,
        names,
        listener_total: plan.listeners.len(),
        upstream_total: upstreams,
    });
    if config.daemon.latency {
        dispatcher.measure_latency();
    }
    for (route, prefixes) in expecting(config) {
        dispatcher.expect(route, &prefixes);
    }
    Worker::new(listeners, upstream_sockets, dispatcher, epoch).map_err(|error| {
        explain(
            format!("cannot set up the event loop of worker {number}"),
            &error,
        )
    })
}

/// Returns the routes that expect traffic from prefixes, with those prefixes, in the order of the routes.
fn expecting(config: &Config) -> impl Iterator<Item = (RouteId, Vec<IpNet>)> {
    let prefixes = |route: &Route| {
        route
            .expectations
            .iter()
            .filter_map(|expectation| expectation.source)
            .collect()
    };
    let routes = config
        .routes
        .iter()
        .enumerate()
        .map(move |(number, route)| (RouteId::new(number), prefixes(route)));
    routes.filter(|(_, prefixes): &(_, Vec<IpNet>)| !prefixes.is_empty())
}

/// Builds every handler. The build context is set to the handler that is being built.
fn build_handlers(
    config: &Config,
    context: &mut WorkerBuildContext<'_>,
) -> Result<Vec<Box<dyn Handler>>, BuildError> {
    let mut handlers = Vec::new();
    for (index, handler) in config.handlers.iter().enumerate() {
        context.handler = HandlerId::new(index);
        let built = handler.spec.build(context);
        handlers.push(
            built.map_err(|error| BuildError(format!("handler `{}`: {error}", handler.name)))?,
        );
    }
    Ok(handlers)
}

fn cannot_reach(upstream: &Upstream, error: &io::Error) -> BuildError {
    let what = format!("cannot reach upstream {upstream}");
    match kept_source::hint(error).filter(|_| upstream.egress.from == SendFrom::Keep) {
        Some(hint) => BuildError(format!("{what}: {hint}")),
        None => explain(what, error),
    }
}

/// The build context of one worker's handlers.
struct WorkerBuildContext<'a> {
    upstreams: &'a Upstreams,
    output: &'a Sender<Job>,
    number: usize,
    handler: HandlerId,
    upstream_sockets: UpstreamSockets,
}

impl BuildContext for WorkerBuildContext<'_> {
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError> {
        let id = self.upstreams.id(self.handler, place);
        let PlannedUpstream {
            upstream,
            address,
            is_optional,
            ..
        } = self.upstreams.get(id);
        if let Err(why) = address
            && !is_optional
        {
            return Err(BuildError(why.clone()));
        }
        let socket = self
            .upstream_sockets
            .open_one_way(id)
            .map_err(|error| cannot_reach(upstream, &error))?;
        let unreachable = self
            .upstream_sockets
            .send_socket(socket)
            .is_some_and(|(socket, _, _)| socket.unreachable().is_some());
        if unreachable && address.is_ok() && self.number == 0 {
            log::warn!(
                "upstream {upstream}: this host has no route to it; datagrams to it are lost until there is one"
            );
        }
        Ok(OpenedUpstream {
            upstream: id,
            socket,
            address: address.as_ref().ok().copied(),
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        Ok(LineSink::new(self.output.clone()))
    }

    fn seed(&mut self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        // The kernel seeds RandomState once per process.
        RandomState::new().hash_one((self.number, self.handler))
    }
}
