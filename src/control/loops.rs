//! Finds forwards that come back: a handler that sends to an address of this daemon, whose route's handlers send on, and
//! so on, until the first one is reached again. Refused before anything starts.
//!
//! Only what the file shows can be found: a loop over another machine dies by its TTL (`dispatch/guard.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::host::Host;
use super::upstreams::Upstreams;
use crate::config::upstream::Upstream;
use crate::config::{Config, Problem, Problems};
use crate::dispatch::route_table::{RouteId, RouteTable};
use crate::net::fib::DestinationKind;

/// Reports every upstream that closes a loop.
pub fn find(config: &Config, table: &RouteTable, upstreams: &Upstreams, host: &Host, problems: &mut Problems) {
    let graph = Graph::new(config, table, upstreams, host);
    for handler in 0..config.handlers.len() {
        for (upstream, targets) in &graph.edges[handler] {
            if let Some(path) = graph.path_back(targets, handler) {
                let name = &config.handlers[handler].name;
                let via: Vec<_> = path.iter().map(|route| config.routes[route.0 as usize].label.as_str()).collect();
                let message = format!(
                    "forwarding to {upstream} closes a loop: it comes back to handler `{name}` by route {}",
                    via.join(", then ")
                );
                let hint =
                    "every datagram would be sent round and round; forward to an address that is not a route here";
                problems.push(Problem::error(upstream.at.clone(), message).label("comes back to us").hint(hint));
            }
        }
    }
}

/// Handlers, and the routes that each of their upstreams leads to.
struct Graph<'a> {
    edges: Vec<Vec<(&'a Upstream, Vec<RouteId>)>>,
    /// The handlers of each route.
    handlers: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(config: &Config, table: &RouteTable, upstreams: &'a Upstreams, host: &Host) -> Graph<'a> {
        let mut edges: Vec<Vec<(&Upstream, Vec<RouteId>)>> = config.handlers.iter().map(|_| Vec::new()).collect();
        for (_, located) in upstreams.iter() {
            let targets = located.address.as_ref().map_or(Vec::new(), |address| routes_of(*address, table, host));
            edges[located.handler.index()].push((&located.upstream, targets));
        }
        let handlers = config.routes.iter().map(|route| route.handlers.iter().map(|id| id.0 as usize).collect());
        Graph { edges, handlers: handlers.collect() }
    }

    /// The routes from these targets back to the handler, if there is a way.
    fn path_back(&self, targets: &[RouteId], handler: usize) -> Option<Vec<RouteId>> {
        let mut seen = vec![false; self.handlers.len()];
        let mut open: Vec<Vec<RouteId>> = targets.iter().map(|target| vec![*target]).collect();
        while let Some(path) = open.pop() {
            let last = *path.last()?;
            if std::mem::replace(&mut seen[last.0 as usize], true) {
                continue;
            }
            for &next in &self.handlers[last.0 as usize] {
                if next == handler {
                    return Some(path);
                }
                for target in self.edges[next].iter().flat_map(|(_, targets)| targets) {
                    open.push(path.iter().copied().chain([*target]).collect());
                }
            }
        }
        None
    }
}

/// The routes that a datagram sent from this host to `address` may take: all down to the first without a condition.
fn routes_of(address: SocketAddr, table: &RouteTable, host: &Host) -> Vec<RouteId> {
    // Sent to the unspecified address, it goes to this host's loopback (ip(7)).
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if !is_ours(ip, host) {
        return Vec::new();
    }
    let mut routes = Vec::new();
    for row in table.matches() {
        let port = address.port();
        if row.net.contains(&ip) && row.ports.0 <= port && port <= row.ports.1 {
            routes.push(row.route);
            if row.interface.is_none() && row.source.is_none() {
                break;
            }
        }
    }
    routes
}

/// Whether this host receives what it sends there itself.
fn is_ours(ip: IpAddr, host: &Host) -> bool {
    ip.is_loopback()
        || ip.is_multicast()
        || (host.look_up)(ip).is_ok_and(|answer| {
            matches!(answer.kind, DestinationKind::Local | DestinationKind::Broadcast | DestinationKind::Multicast)
        })
}
