//! Finds forwarding loops. In a loop, a handler sends to an address of this daemon, and the route of that address leads
//! back to the handler, directly or through other handlers. A file with a loop is rejected before anything starts.
//!
//! Only loops within the file can be found. A loop through another machine ends by its TTL
//! (`dispatch/reply_policy.rs`). A host name may resolve to another address later, so a [`LoopWatch`] repeats the
//! check.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::config::{Config, Problem, Problems};
use crate::dispatch::handler::Names;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::route_table::{RouteId, RouteTable};
use crate::net::fib::{DestinationKind, KernelRoute};
use crate::plan::host::Host;
use crate::plan::upstreams::{PlannedUpstream, Upstreams};

/// The facts that decide which route a forwarded datagram reaches.
#[derive(Clone, Copy)]
pub struct LoopInputs<'a> {
    /// The routes and handlers of the file.
    pub config: &'a Config,
    /// The table of all routes.
    pub table: &'a Arc<RouteTable>,
    /// The upstreams with their current addresses.
    pub upstreams: &'a Upstreams,
}

/// Reports every upstream that closes a loop.
pub fn find(forwarding: LoopInputs<'_>, host: &Host, problems: &mut Problems) {
    let LoopInputs {
        config, upstreams, ..
    } = forwarding;
    let graph = Graph::new(forwarding, &host.look_up);
    for handler in 0..config.handlers.len() {
        for (id, targets) in &graph.edges[handler] {
            if let Some(path) = graph.path_back(targets, handler) {
                let upstream = &upstreams.get(*id).upstream;
                let via = route_labels(&path, |route| &config.routes[route.index()].label);
                let message = format!(
                    "forwarding to {upstream} closes a loop: it comes back to handler `{}` by route {via}",
                    config.handlers[handler].name
                );
                let hint = "every datagram would circulate; forward to an address that no route of this file matches";
                problems.push(
                    Problem::error(upstream.at.clone(), message)
                        .label("comes back to this daemon")
                        .hint(hint),
                );
            }
        }
    }
}

/// Lists the labels of the routes on a path, for messages.
fn route_labels<'a>(path: &[RouteId], label: impl Fn(&RouteId) -> &'a String) -> String {
    path.iter()
        .map(|route| label(route).as_str())
        .collect::<Vec<_>>()
        .join(", then ")
}

/// Looks up a destination in the routing table of this host.
type RouteLookup = dyn Fn(IpAddr) -> io::Result<KernelRoute>;

/// Prevents upstreams from moving to an address that would close a loop.
pub struct LoopWatch {
    graph: Graph,
    table: Arc<RouteTable>,
    names: Arc<Names>,
    /// The names of the handlers, by number.
    handlers: Vec<String>,
    look_up: fn(IpAddr) -> io::Result<KernelRoute>,
}

impl LoopWatch {
    /// Starts with the addresses that the upstreams have in the plan.
    pub fn new(
        forwarding: LoopInputs<'_>,
        names: &Arc<Names>,
        look_up: fn(IpAddr) -> io::Result<KernelRoute>,
    ) -> LoopWatch {
        LoopWatch {
            graph: Graph::new(forwarding, &look_up),
            table: Arc::clone(forwarding.table),
            names: Arc::clone(names),
            handlers: forwarding
                .config
                .handlers
                .iter()
                .map(|handler| handler.name.clone())
                .collect(),
            look_up,
        }
    }

    /// Records that an upstream moves to a new address, unless that would close a loop.
    ///
    /// # Errors
    ///
    /// Returns a description of the loop. The upstream must keep its old address then.
    pub fn permit(&mut self, upstream: UpstreamId, address: SocketAddr) -> Result<(), String> {
        // Only upstreams with a host name move, and a host name never stands for a group.
        let targets = routes_of(address, &self.table, &self.look_up, |_| true);
        let place = |edges: &Vec<(UpstreamId, _)>| edges.iter().position(|(id, _)| *id == upstream);
        let handlers = self.graph.edges.iter().enumerate();
        let found = handlers
            .map(|(handler, edges)| (handler, place(edges)))
            .find(|(_, place)| place.is_some());
        let Some((handler, Some(place))) = found else {
            return Ok(());
        };
        if let Some(path) = self.graph.path_back(&targets, handler) {
            let via = route_labels(&path, |route| &self.names.routes[route.index()]);
            return Err(format!(
                "a loop, back to handler `{}` by route {via}",
                self.handlers[handler]
            ));
        }
        self.graph.edges[handler][place].1 = targets;
        Ok(())
    }
}

/// The graph of handlers, and of the routes that each of their upstreams leads to.
struct Graph {
    edges: Vec<Vec<(UpstreamId, Vec<RouteId>)>>,
    /// The handlers of each route.
    handlers: Vec<Vec<usize>>,
}

impl Graph {
    fn new(forwarding: LoopInputs<'_>, look_up: &RouteLookup) -> Graph {
        let LoopInputs {
            config,
            table,
            upstreams,
        } = forwarding;
        let mut edges: Vec<Vec<(UpstreamId, Vec<RouteId>)>> =
            config.handlers.iter().map(|_| Vec::new()).collect();
        for (id, planned) in upstreams.iter() {
            let targets = planned.address.as_ref().map_or(Vec::new(), |address| {
                routes_of(*address, table, look_up, |interface| {
                    can_arrive(planned, interface)
                })
            });
            edges[planned.handler.index()].push((id, targets));
        }
        let handlers = config
            .routes
            .iter()
            .map(|route| route.handlers.iter().map(|id| id.0 as usize).collect());
        Graph {
            edges,
            handlers: handlers.collect(),
        }
    }

    /// Returns the routes on a path from these targets back to the handler, if there is one.
    fn path_back(&self, targets: &[RouteId], handler: usize) -> Option<Vec<RouteId>> {
        let mut seen = vec![false; self.handlers.len()];
        let mut open: Vec<Vec<RouteId>> = targets.iter().map(|target| vec![*target]).collect();
        while let Some(path) = open.pop() {
            let last = *path.last()?;
            if std::mem::replace(&mut seen[last.index()], true) {
                continue;
            }
            for &next in &self.handlers[last.index()] {
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

/// Returns whether datagrams sent to an upstream can arrive on this interface of the host itself; `None` stands for
/// any interface. Datagrams to a group do not arrive if IP_MULTICAST_LOOP is off. Otherwise they arrive on the
/// interface that they leave through (ip_mc_output in the kernel). Two networks can therefore be joined in both
/// directions.
fn can_arrive(planned: &PlannedUpstream, interface: Option<u32>) -> bool {
    let leaves_elsewhere = |interface| planned.interface != 0 && planned.interface != interface;
    !planned.upstream.is_group()
        || (planned.upstream.egress.loop_back && !interface.is_some_and(leaves_elsewhere))
}

/// Returns the routes that a datagram sent from this host to `address` may match: all rows down to the first one
/// without a condition. `arrives_on` returns whether the datagram can arrive on an interface, or on any for `None`.
fn routes_of(
    address: SocketAddr,
    table: &RouteTable,
    look_up: &RouteLookup,
    arrives_on: impl Fn(Option<u32>) -> bool,
) -> Vec<RouteId> {
    // A datagram to the unspecified address goes to the loopback address of this host (ip(7)).
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if !is_local(ip, look_up) {
        return Vec::new();
    }
    let mut routes = Vec::new();
    for row in table.matches() {
        let port = address.port();
        if row.net.contains(&ip)
            && row.ports.0 <= port
            && port <= row.ports.1
            && arrives_on(row.interface)
        {
            routes.push(row.route);
            if row.interface.is_none() && row.source.is_none() {
                break;
            }
        }
    }
    routes
}

/// Returns whether this host itself receives what it sends to an address.
fn is_local(ip: IpAddr, look_up: &RouteLookup) -> bool {
    ip.is_loopback()
        || ip.is_multicast()
        || look_up(ip).is_ok_and(|route| {
            matches!(
                route.kind,
                DestinationKind::Local | DestinationKind::Broadcast | DestinationKind::Multicast
            )
        })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::handlers::KINDS;
    use crate::plan::Plan;

    const CONFIG: &str = r#"
        route = [
            { name = "in", destination = "127.0.0.1:1000", handler = "first" },
            { name = "between", destination = "127.0.0.1:2000-2001", handler = "second" },
        ]
        handler.first = { kind = "forward", upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"] }
        handler.second = { kind = "forward", upstreams = ["192.0.2.1:9003"] }
    "#;

    /// An upstream may move to any address, except one from which its datagrams come back, directly or through
    /// upstreams that moved before.
    #[test]
    fn moves_that_close_a_loop_are_not_permitted() {
        let look_up = |_| {
            Ok(KernelRoute {
                kind: DestinationKind::Elsewhere,
                interface: 0,
                source: None,
            })
        };
        let host = Host {
            interfaces: Vec::new(),
            look_up: Box::new(look_up),
        };
        let config = Config::parse(Path::new("test.toml"), CONFIG, KINDS)
            .unwrap_or_else(|why| panic!("{why}"));
        let plan = Plan::new(&config, &host, 1).unwrap_or_else(|why| panic!("{why}"));
        let mut watch = LoopWatch::new(
            LoopInputs {
                config: &config,
                table: &plan.table,
                upstreams: &plan.upstreams,
            },
            &plan.names,
            look_up,
        );
        let mut permit =
            |id, port| watch.permit(UpstreamId(id), (Ipv4Addr::LOCALHOST, port).into());
        assert_eq!(
            permit(0, 1000),
            Err("a loop, back to handler `first` by route in".to_owned())
        );
        assert_eq!(
            permit(2, 2001),
            Err("a loop, back to handler `second` by route between".to_owned())
        );
        assert_eq!(permit(0, 9004), Ok(()));
        assert_eq!(permit(1, 2000), Ok(()));
        assert_eq!(
            permit(2, 1000),
            Err("a loop, back to handler `second` by route in, then between".to_owned())
        );
        // The upstream has moved to another address since.
        assert_eq!(permit(1, 9005), Ok(()));
        assert_eq!(permit(2, 1000), Ok(()));
        assert_eq!(
            permit(0, 2000),
            Err("a loop, back to handler `first` by route between, then in".to_owned())
        );
    }
}
