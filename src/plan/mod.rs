//! Makes a plan from a configuration and the machine: the necessary sockets, the facts that each must receive, and
//! the route table that they share. Nothing is opened here, so `check` and `explain` make the same plan as `run`.

pub mod diff;
pub mod explain;
pub mod file_tests;
pub mod forwarding_loops;
pub mod host;
pub mod identity;
mod listener;
pub mod listener_lookups;
mod listener_set;
mod role;
pub mod route_conflicts;
pub mod row_map;
pub mod targets;
pub mod upstreams;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use ipnet::IpNet;

pub use self::listener::{ListenerPlan, Role};
use crate::config::limits::WORKERS_MAX;
use crate::config::{Config, InterfaceRef, Problem, Problems, Route, Workers};
use crate::dispatch::handler::Names;
use crate::dispatch::reply_policy::ReplyFilter;
use crate::dispatch::route_table::{Match, RouteId, RouteTable};
use crate::plan::forwarding_loops::LoopInputs;
use crate::plan::host::Host;
use crate::plan::listener_lookups::ListenerLookups;
use crate::plan::listener_set::ListenerSet;
use crate::plan::upstreams::Upstreams;

/// Everything that has to be built for a configuration.
pub struct Plan {
    /// The listeners, in the order in which the file first requires them.
    pub listeners: Vec<ListenerPlan>,
    /// The table of all routes, which the listeners share.
    pub table: Arc<RouteTable>,
    /// The number of workers.
    pub workers: usize,
    /// The names that messages and labels use.
    pub names: Arc<Names>,
    /// The addresses that are never replied to.
    pub reply_filter: Arc<ReplyFilter>,
    /// The upstreams with their addresses on this machine.
    pub upstreams: Upstreams,
    /// Notes for the user to read before the start.
    pub notes: Vec<String>,
}

impl Plan {
    /// Makes a plan for this machine. Host names are resolved, which can block.
    ///
    /// # Errors
    ///
    /// Returns every problem that only the machine can show, such as a missing interface, if at least one of them is
    /// an error.
    pub fn new(config: &Config, host: &Host, workers: usize) -> Result<Plan, Problems> {
        Plan::with_known_addresses(config, host, workers, &HashMap::new())
    }

    /// Makes a plan as [`Plan::new`] does, but does not look up the upstreams whose addresses are in `known`. Its
    /// keys are upstreams as they are displayed.
    ///
    /// # Errors
    ///
    /// Returns every problem that only the machine can show, if at least one of them is an error.
    pub fn with_known_addresses(
        config: &Config,
        host: &Host,
        workers: usize,
        known: &HashMap<String, SocketAddr>,
    ) -> Result<Plan, Problems> {
        let mut problems = Problems::new(config.source.clone());
        let interfaces = resolve_interfaces(config, host, &mut problems);
        let rows = rows(config, &interfaces);
        if problems.errors() == 0 {
            route_conflicts::find(&rows, &mut problems);
        }
        let table = Arc::new(RouteTable::new(
            rows.into_iter().map(|(row, _)| row).collect(),
        ));
        let mut set = ListenerSet::new(host);
        for (route, interface) in config.routes.iter().zip(&interfaces) {
            set.add(route, *interface, &mut problems);
        }
        let (mut listeners, mut notes) = set.finish();
        let listener_lookups = ListenerLookups {
            config,
            table: &table,
            workers,
        };
        listener_lookups.set_lookups(&mut listeners, &mut problems);
        let upstreams = Upstreams::look_up(config, host, known);
        let forwarding = LoopInputs {
            config,
            table: &table,
            upstreams: &upstreams,
        };
        forwarding_loops::find(forwarding, host, &mut problems);
        notes.extend(upstreams.problems().map(str::to_owned));
        if problems.errors() > 0 {
            return Err(problems);
        }
        let reply_filter = ReplyFilter::new(
            listeners.iter().map(|listener| listener.address),
            host.addresses(),
            host.broadcasts(),
        );
        let names = names(config, host, &listeners, &upstreams);
        Ok(Plan {
            listeners,
            table,
            workers,
            names: Arc::new(names),
            reply_filter: Arc::new(reply_filter),
            upstreams,
            notes,
        })
    }
}

/// Returns the names of all rows, for messages and labels.
fn names(config: &Config, host: &Host, listeners: &[ListenerPlan], upstreams: &Upstreams) -> Names {
    Names {
        routes: config
            .routes
            .iter()
            .map(|route| route.label.clone())
            .collect(),
        interfaces: host
            .interfaces
            .iter()
            .map(|interface| (interface.index, interface.name.clone()))
            .collect(),
        listeners: listeners
            .iter()
            .map(|listener| listener.label.clone())
            .collect(),
        handlers: config
            .handlers
            .iter()
            .map(|handler| handler.name.clone())
            .collect(),
        upstreams: upstreams
            .iter()
            .map(|(_, planned)| planned.upstream.to_string())
            .collect(),
    }
}

/// Returns the number of workers that the configuration requests.
pub fn worker_count(config: &Config) -> usize {
    match config.daemon.workers {
        Workers::Count(count) => count.get(),
        Workers::Auto => {
            thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
        }
    }
}

/// Returns the index of the interface that each route names. Reports interfaces that this machine does not have.
fn resolve_interfaces(config: &Config, host: &Host, problems: &mut Problems) -> Vec<Option<u32>> {
    let resolve = |route: &Route| {
        let requested = route.interface.as_ref()?;
        let found = host.interface(&requested.value.to_string());
        if found.is_none() {
            let message = match &requested.value {
                InterfaceRef::Name(name) => format!("this host has no interface `{name}`"),
                InterfaceRef::Address(address) => {
                    format!("no interface of this host has the address {address}")
                }
            };
            problems.push(
                Problem::error(requested.at.clone(), message)
                    .hint(format!("it has: {}", host.list())),
            );
        }
        found
    };
    config.routes.iter().map(resolve).collect()
}

/// Returns one row for each combination of destination and source, with its place in the file.
fn rows(config: &Config, interfaces: &[Option<u32>]) -> Vec<(Match, Range<usize>)> {
    let mut rows = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        for destination in &route.destinations {
            let net = destination.value.net;
            let row = |source| {
                let ports = (
                    destination.value.ports.first(),
                    destination.value.ports.last(),
                );
                let (interface, route) = (interfaces[index], RouteId::new(index));
                (
                    Match {
                        net,
                        ports,
                        interface,
                        source,
                        route,
                    },
                    destination.at.clone(),
                )
            };
            let sources = route.sources.iter().map(|source| source.value);
            let same_family = |source: &IpNet| source.addr().is_ipv4() == net.addr().is_ipv4();
            if route.sources.is_empty() {
                rows.push(row(None));
            } else {
                rows.extend(sources.filter(same_family).map(|source| row(Some(source))));
            }
        }
    }
    rows
}
