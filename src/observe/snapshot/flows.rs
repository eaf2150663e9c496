//! The flow graph: which routes take datagrams from each listener, which handlers each route has, and which upstreams
//! each handler has. It is built once per plan, since it changes only with the configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::dispatch::dispatcher::Lookup;
use crate::dispatch::route_table::Match;
use crate::plan::{ListenerPlan, Plan, Role};

/// Largest number of edges of one kind. A larger graph cannot be read as a picture.
const EDGES_MAX: usize = 10_000;
/// Largest number of comparisons between a listener and a row of the route table. They take some hundredths of a
/// second.
const COMPARISONS_MAX: usize = 4_000_000;

/// The flow graph. Edges refer to positions in the lists of the same snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Edges from a listener to a route that takes datagrams from it.
    pub listener_to_route: Vec<Edge>,
    /// Edges from a route to one of its handlers.
    pub route_to_handler: Vec<Edge>,
    /// Edges from a handler to one of its upstreams.
    pub handler_to_upstream: Vec<Edge>,
    /// Whether some edges were left out because there are too many.
    pub is_cut: bool,
}

/// An edge of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// Position of the source in its list.
    pub from: usize,
    /// Position of the target in its list.
    pub to: usize,
}

impl Flows {
    /// Returns the flow graph of a plan.
    pub fn of(config: &Config, plan: &Plan) -> Flows {
        let mut flows = Flows::default();
        flows.listener_to_route = listeners(plan, &mut flows.is_cut);
        let routes = config.routes.iter().enumerate();
        let routes = routes.flat_map(|(from, route)| {
            route.handlers.iter().map(move |handler| Edge {
                from,
                to: handler.index(),
            })
        });
        flows.route_to_handler = limited(routes, &mut flows.is_cut);
        let upstreams = plan.upstreams.iter().map(|(id, located)| Edge {
            from: located.handler.index(),
            to: id.index(),
        });
        flows.handler_to_upstream = limited(upstreams, &mut flows.is_cut);
        flows
    }
}

fn limited(edges: impl Iterator<Item = Edge>, is_cut: &mut bool) -> Vec<Edge> {
    let mut edges: Vec<Edge> = edges.take(EDGES_MAX + 1).collect();
    *is_cut |= edges.len() > EDGES_MAX;
    edges.truncate(EDGES_MAX);
    edges
}

fn listeners(plan: &Plan, is_cut: &mut bool) -> Vec<Edge> {
    let mut edges = BTreeSet::new();
    let mut by_port: BTreeMap<u16, Vec<(usize, &ListenerPlan)>> = BTreeMap::new();
    for (index, listener) in plan.listeners.iter().enumerate() {
        match listener.lookup {
            Lookup::Fixed(route) => {
                _ = edges.insert(Edge {
                    from: index,
                    to: route.index(),
                });
            }
            Lookup::Table(_) => by_port
                .entry(listener.address.port())
                .or_default()
                .push((index, listener)),
        }
    }
    let mut left = COMPARISONS_MAX;
    'rows: for row in plan.table.matches() {
        for (index, listener) in by_port
            .range(row.ports.0..=row.ports.1)
            .flat_map(|(_, listeners)| listeners)
        {
            if left == 0 || edges.len() >= EDGES_MAX {
                *is_cut = true;
                break 'rows;
            }
            left -= 1;
            if may_take(row, listener) {
                edges.insert(Edge {
                    from: *index,
                    to: row.route.index(),
                });
            }
        }
    }
    limited(edges.into_iter(), is_cut)
}

/// Returns whether a row may match a datagram that the listener received.
fn may_take(row: &Match, listener: &ListenerPlan) -> bool {
    match &listener.role {
        Role::Wildcard { .. } => {
            row.net.addr().is_ipv4() == listener.address.is_ipv4() && !is_elsewhere(row)
        }
        Role::Group { interface, .. } => {
            row.net.contains(&listener.address.ip())
                && row.interface.is_none_or(|required| required == *interface)
        }
        _ => row.net.contains(&listener.address.ip()),
    }
}

/// Returns whether the address of the row has its own listener, so that a wildcard never receives its datagrams.
fn is_elsewhere(row: &Match) -> bool {
    row.net.prefix_len() == row.net.max_prefix_len()
}
