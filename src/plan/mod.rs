//! From a configuration and this machine to a plan: which sockets are needed, what each must tell, and which route table
//! they share. Nothing is opened here, so `check` and `explain` make the same plan as `run`.

pub mod diff;
pub mod explain;
pub mod file_tests;
pub mod forwarding_loops;
pub mod host;
pub mod identity;
pub mod listener_lookups;
pub mod route_conflicts;
pub mod targets;
pub mod upstreams;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use ipnet::IpNet;

use crate::config::destination::{PortSet, Ports};
use crate::config::kind::Needs;
use crate::config::limits::WORKERS_MAX;
use crate::config::{Config, Destination, InterfaceRef, Problem, Problems, Route, Workers};
use crate::dispatch::dispatcher::{Claim, Lookup};
use crate::dispatch::guard::Guard;
use crate::dispatch::handler::Names;
use crate::dispatch::route_table::{Match, RouteId, RouteTable};
use crate::net::fib::DestinationKind;
use crate::plan::host::Host;
use crate::plan::listener_lookups::LookUps;
use crate::plan::upstreams::Upstreams;

/// Sources in one source-specific join: the kernel's own default limit (net.ipv4.igmp_max_msf, ip-sysctl). A group with
/// more of them gets further sockets.
const SOURCES_MAX: usize = 10;

/// Everything that has to be built.
pub struct Plan {
    /// The sockets, in the order in which the file first asks for them.
    pub listeners: Vec<ListenerPlan>,
    /// All routes.
    pub table: Arc<RouteTable>,
    /// How many workers will run.
    pub workers: usize,
    /// Labels for people.
    pub names: Arc<Names>,
    /// Who is never answered.
    pub guard: Arc<Guard>,
    /// What the upstreams' names stand for.
    pub upstreams: Upstreams,
    /// What a user should know before it starts.
    pub notes: Vec<String>,
}

/// One listener: a socket in one worker, or in each.
pub struct ListenerPlan {
    /// What it is called in the ledger.
    pub label: String,
    /// What it is bound to.
    pub address: SocketAddr,
    /// What kind of destination that is.
    pub role: Role,
    /// Other programs may bind the same address.
    pub share: bool,
    /// What the kernel must tell about each datagram.
    pub needs: Needs,
    /// How its datagrams find their route.
    pub lookup: Lookup,
    /// Where the file asks for it.
    pub at: Range<usize>,
}

/// Kinds of listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// An exact unicast address; a socket in every worker.
    Unicast,
    /// An exact IPv4 address that this host does not have yet, and that may turn out to be a broadcast address; a socket in
    /// every worker.
    Absent,
    /// Every address of a family; a socket in every worker. The addresses have broadcast listeners of their own.
    Wildcard {
        /// Addresses of this port that are or may become broadcast addresses and have a listener of their own.
        claimed: Vec<IpAddr>,
    },
    /// A broadcast address; one socket in one worker.
    Broadcast,
    /// A group, joined on one interface, from the sources or, if there are none, from any; one socket in one worker.
    Group {
        /// The interface's index.
        interface: u32,
        /// The only sources, if not any.
        sources: Vec<IpAddr>,
        /// Other interfaces on which the group has a listener of its own on this port.
        elsewhere: Vec<u32>,
    },
}

impl Role {
    /// Whether each worker has a socket of its own.
    pub fn is_spread(&self) -> bool {
        matches!(self, Role::Unicast | Role::Absent | Role::Wildcard { .. })
    }
}

impl ListenerPlan {
    /// Which copies of a datagram to many are this listener's, in the given one of its sockets.
    pub fn claim(&self, socket: usize) -> Claim {
        match &self.role {
            Role::Unicast | Role::Broadcast => Claim::All,
            Role::Absent => Claim::Wildcard {
                owner: socket == 0,
                claimed: Vec::new(),
            },
            Role::Wildcard { claimed } => Claim::Wildcard {
                owner: socket == 0,
                claimed: claimed.clone(),
            },
            Role::Group {
                interface,
                elsewhere,
                ..
            } => Claim::Group {
                interface: *interface,
                elsewhere: elsewhere.clone(),
            },
        }
    }

    /// Whether the kernel must tell each datagram's destination and interface.
    pub fn tells_destination(&self) -> bool {
        self.needs.destination || self.needs.interface
    }
}

impl Plan {
    /// Plans for this machine. All problems that only the machine can show are reported at once.
    pub fn new(config: &Config, host: &Host, workers: usize) -> Result<Plan, Problems> {
        Plan::beside(config, host, workers, &HashMap::new())
    }

    /// The same where some upstreams' addresses are known already, which then are not looked up.
    pub fn beside(
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
        let table = RouteTable::new(rows.into_iter().map(|(row, _)| row).collect());
        let mut notes = Vec::new();
        let mut listeners = gather(config, host, &interfaces, &mut problems, &mut notes);
        claim_broadcasts(&mut listeners);
        claim_groups(&mut listeners);
        let look_ups = LookUps {
            config,
            table: &table,
            workers,
        };
        look_ups.give(&mut listeners, &mut problems);
        let upstreams = Upstreams::look_up(config, host, known);
        forwarding_loops::find(config, &table, &upstreams, host, &mut problems);
        notes.extend(upstreams.problems().map(str::to_owned));
        if problems.errors() > 0 {
            return Err(problems);
        }
        let guard = Guard::new(
            listeners.iter().map(|listener| listener.address),
            host.addresses(),
            host.broadcasts(),
        );
        let names = Names {
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
                .map(|(_, located)| located.upstream.to_string())
                .collect(),
        };
        let (table, names, guard) = (Arc::new(table), Arc::new(names), Arc::new(guard));
        Ok(Plan {
            listeners,
            table,
            workers,
            names,
            guard,
            upstreams,
            notes,
        })
    }
}

/// How many workers the configuration asks for.
pub fn worker_count(config: &Config) -> usize {
    match config.daemon.workers {
        Workers::Count(count) => count.get(),
        Workers::Auto => {
            thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
        }
    }
}

/// The interface of each route that names one.
fn resolve_interfaces(config: &Config, host: &Host, problems: &mut Problems) -> Vec<Option<u32>> {
    let resolve = |route: &Route| {
        let wanted = route.interface.as_ref()?;
        let found = host.interface(&wanted.value.to_string());
        if found.is_none() {
            let message = match &wanted.value {
                InterfaceRef::Name(name) => format!("this host has no interface `{name}`"),
                InterfaceRef::Address(address) => {
                    format!("no interface of this host has the address {address}")
                }
            };
            problems.push(
                Problem::error(wanted.at.clone(), message).hint(format!("it has: {}", host.list())),
            );
        }
        found
    };
    config.routes.iter().map(resolve).collect()
}

/// One row for each combination of destination and source, with its place in the file.
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
            match route.sources.is_empty() {
                true => rows.push(row(None)),
                false => rows.extend(sources.filter(same_family).map(|source| row(Some(source)))),
            }
        }
    }
    rows
}

/// What a route asks of a listener: its sources are kept apart only for groups.
struct Wish {
    address: SocketAddr,
    role: Role,
    share: bool,
    at: Range<usize>,
}

/// Collects the listeners that all routes ask for, each once.
fn gather(
    config: &Config,
    host: &Host,
    interfaces: &[Option<u32>],
    problems: &mut Problems,
    notes: &mut Vec<String>,
) -> Vec<ListenerPlan> {
    let mut order: Vec<Wish> = Vec::new();
    let mut known: HashMap<(SocketAddr, Option<u32>), usize> = HashMap::new();
    let mut asked: HashMap<(IpAddr, u32, bool), PortSet> = HashMap::new();
    for (route, &interface) in config.routes.iter().zip(interfaces) {
        let mut is_told = !route.share;
        for destination in &route.destinations {
            let found = find_role(&destination.value, route, interface, host, notes);
            let (ip, scope, role) = match found {
                Ok(found) => found,
                Err(message) => {
                    let hint = format!(
                        "name one with `interface = \"…\"`; this host has: {}",
                        host.list()
                    );
                    problems.push(Problem::error(destination.at.clone(), message).hint(hint));
                    continue;
                }
            };
            if role.is_spread() && !std::mem::replace(&mut is_told, true) {
                notes.push(share_of_unicast(route));
            }
            // What the same socket was asked for already changes nothing, but for a group's sources.
            let ports = match role {
                Role::Group { .. } => vec![destination.value.ports],
                _ => asked
                    .entry((ip, scope, route.share))
                    .or_default()
                    .add(destination.value.ports),
            };
            let mut contradiction = None;
            for port in ports.into_iter().flat_map(Ports::iter) {
                let address = with_scope(ip, port, scope);
                let on = if let Role::Group { interface, .. } = &role {
                    Some(*interface)
                } else {
                    None
                };
                let wish = Wish {
                    address,
                    role: role.clone(),
                    share: route.share,
                    at: destination.at.clone(),
                };
                let place = *known.entry((address, on)).or_insert(order.len());
                match order.get_mut(place) {
                    Some(first) if first.share != wish.share => {
                        contradiction.get_or_insert_with(|| share_differs(&wish, first));
                    }
                    Some(first) => first.merge(wish),
                    None => order.push(wish),
                }
            }
            contradiction
                .into_iter()
                .for_each(|problem| problems.push(problem));
        }
    }
    order
        .into_iter()
        .flat_map(|wish| wish.listeners(host))
        .collect()
}

/// What a user who thinks of groups may not expect.
fn share_of_unicast(route: &Route) -> String {
    format!(
        "route {}: with `share`, every program on the port needs SO_REUSEADDR, and datagrams to a unicast address all go \
         to the one that bound it last; only those to groups and broadcast addresses reach everybody",
        route.label
    )
}

/// One socket cannot be locked and shared.
fn share_differs(wish: &Wish, first: &Wish) -> Problem {
    let message = format!(
        "`share` differs between two routes of one socket, {}",
        wish.address
    );
    let hint = "give both routes the same `share`";
    Problem::error(wish.at.clone(), message)
        .and_at(first.at.clone(), "the other route")
        .hint(hint)
}

impl Wish {
    /// Another route wants the same socket.
    fn merge(&mut self, other: Wish) {
        if let (
            Role::Group { sources: mine, .. },
            Role::Group {
                sources: theirs, ..
            },
        ) = (&mut self.role, other.role)
        {
            if mine.is_empty() || theirs.is_empty() {
                mine.clear(); // One of them wants any source, so the join is for any.
            } else {
                mine.extend(
                    theirs
                        .into_iter()
                        .filter(|source| !mine.contains(source))
                        .collect::<Vec<_>>(),
                );
            }
        }
    }

    /// As a rule one listener; more for a group with more sources than one socket may join.
    fn listeners(self, host: &Host) -> Vec<ListenerPlan> {
        let plan = |role: Role, label: String| ListenerPlan {
            label,
            address: self.address,
            role,
            share: self.share,
            needs: Needs::NOTHING,
            lookup: Lookup::Fixed(RouteId(0)),
            at: self.at.clone(),
        };
        let Role::Group {
            interface, sources, ..
        } = &self.role
        else {
            return vec![plan(self.role.clone(), self.address.to_string())];
        };
        let (interface, label) = (
            *interface,
            format!(
                "{} on {}",
                bare(self.address),
                host.interface_name(*interface)
            ),
        );
        if sources.is_empty() {
            return vec![plan(self.role.clone(), label)];
        }
        let parts = sources.chunks(SOURCES_MAX).map(|sources| {
            let from: Vec<_> = sources.iter().map(IpAddr::to_string).collect();
            let role = Role::Group {
                interface,
                sources: sources.to_vec(),
                elsewhere: Vec::new(),
            };
            plan(role, format!("{label} from {}", from.join(" ")))
        });
        parts.collect()
    }
}

/// Without the zone that only the bind call needs.
fn bare(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// The bind address, its zone, and the role of a destination's listener. The error is a sentence.
fn find_role(
    destination: &Destination,
    route: &Route,
    interface: Option<u32>,
    host: &Host,
    notes: &mut Vec<String>,
) -> Result<(IpAddr, u32, Role), String> {
    let ip = destination.net.addr();
    if !destination.is_exact() {
        let wildcard = if ip.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        return Ok((
            wildcard,
            0,
            Role::Wildcard {
                claimed: Vec::new(),
            },
        ));
    }
    if ip.is_multicast() {
        let interface = match interface {
            Some(interface) => interface,
            None => kernels_choice(ip, host, notes)?,
        };
        let family = route
            .sources
            .iter()
            .map(|source| source.value)
            .filter(|source| source.addr().is_ipv4() == ip.is_ipv4());
        let hosts = family
            .clone()
            .all(|source| source.prefix_len() == source.max_prefix_len());
        let sources = if hosts {
            family.map(|source| source.addr()).collect()
        } else {
            Vec::new()
        };
        // Bind refuses a link-local group without its zone (IPV6_ADDR_LINKLOCAL in inet6_bind).
        let scope = if is_of_one_link(ip) { interface } else { 0 };
        return Ok((
            ip,
            scope,
            Role::Group {
                interface,
                sources,
                elsewhere: Vec::new(),
            },
        ));
    }
    let kind = (host.look_up)(ip).map(|answer| answer.kind);
    let is_here = matches!(kind, Ok(DestinationKind::Local));
    match kind {
        Ok(DestinationKind::Broadcast) => return Ok((ip, 0, Role::Broadcast)),
        _ if is_here => {}
        _ if ip == IpAddr::V4(Ipv4Addr::BROADCAST) => return Ok((ip, 0, Role::Broadcast)),
        _ => notes.push(format!(
            "{ip} is not an address of this host yet: its listener is bound all the same and will work once it comes up"
        )),
    }
    if ip.is_ipv4() && !is_here {
        return Ok((ip, 0, Role::Absent));
    }
    let scope = if is_of_one_link(ip) {
        interface.unwrap_or(0)
    } else {
        0
    };
    Ok((ip, scope, Role::Unicast))
}

/// Whether an address means something on one interface only: link-local ones, and groups of interface or link scope
/// (RFC 4291, sections 2.5.6 and 2.7).
fn is_of_one_link(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    ip.is_unicast_link_local() || (ip.is_multicast() && matches!(ip.segments()[0] & 0xf, 1 | 2))
}

/// The interface that a group is joined on when the file names none.
fn kernels_choice(group: IpAddr, host: &Host, notes: &mut Vec<String>) -> Result<u32, String> {
    match (host.look_up)(group) {
        Ok(answer) if answer.interface != 0 => {
            let name = host.interface_name(answer.interface);
            let note = format!(
                "{group} is joined on {name}, which is the kernel's choice; `interface` names another"
            );
            if !notes.contains(&note) {
                notes.push(note);
            }
            Ok(answer.interface)
        }
        _ => Err(format!("the kernel knows no interface to join {group} on")),
    }
}

fn with_scope(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        IpAddr::V4(_) => SocketAddr::new(ip, port),
    }
}

/// Tells each wildcard which broadcasts of its port another listener handles, or would.
fn claim_broadcasts(listeners: &mut [ListenerPlan]) {
    let mut broadcasts: HashMap<u16, Vec<IpAddr>> = HashMap::new();
    for listener in listeners
        .iter()
        .filter(|listener| matches!(listener.role, Role::Broadcast | Role::Absent))
    {
        broadcasts
            .entry(listener.address.port())
            .or_default()
            .push(listener.address.ip());
    }
    for listener in listeners
        .iter_mut()
        .filter(|listener| listener.address.is_ipv4())
    {
        if let Role::Wildcard { claimed } = &mut listener.role {
            *claimed = broadcasts
                .get(&listener.address.port())
                .cloned()
                .unwrap_or_default();
        }
    }
}

/// Tells each group's listener on which other interfaces the group has one.
fn claim_groups(listeners: &mut [ListenerPlan]) {
    let mut joined: HashMap<(IpAddr, u16), Vec<u32>> = HashMap::new();
    for listener in &*listeners {
        if let Role::Group { interface, .. } = listener.role {
            joined
                .entry((listener.address.ip(), listener.address.port()))
                .or_default()
                .push(interface);
        }
    }
    for listener in listeners {
        let (ip, port) = (listener.address.ip(), listener.address.port());
        if let Role::Group {
            interface,
            elsewhere,
            ..
        } = &mut listener.role
        {
            elsewhere.extend(
                joined[&(ip, port)]
                    .iter()
                    .filter(|other| *other != interface),
            );
        }
    }
}
