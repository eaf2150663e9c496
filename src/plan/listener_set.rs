//! Collects the listeners that all routes need, each of them once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::Range;

use crate::config::destination::{PortSet, PortSpan};
use crate::config::kind::Needs;
use crate::config::{Destination, Placed, Problem, Problems, Route};
use crate::dispatch::dispatcher::Lookup;
use crate::dispatch::route_table::RouteId;
use crate::plan::host::Host;
use crate::plan::listener::{ListenerPlan, Role};
use crate::plan::role::{self, Binding, Note};

/// The most sources in one source-specific join: the kernel's default limit (net.ipv4.igmp_max_msf, ip-sysctl). A
/// group with more sources has several sockets.
const SOURCES_MAX: usize = 10;

/// The listener that a route requests. Its sources are distinguished only for groups.
struct ListenerRequest {
    address: SocketAddr,
    role: Role,
    share: bool,
    at: Range<usize>,
}

/// The listeners that the routes have requested so far.
pub(super) struct ListenerSet<'a> {
    host: &'a Host,
    /// The requests, in the order in which the file first makes them.
    requests: Vec<ListenerRequest>,
    /// The index in `requests` by address and, for a group, interface.
    places: HashMap<(SocketAddr, Option<u32>), usize>,
    /// The ports that were requested already, by address, scope and `share`.
    ports: HashMap<(IpAddr, u32, bool), PortSet>,
    notes: Vec<String>,
}

impl<'a> ListenerSet<'a> {
    /// Returns a set without listeners.
    pub(super) fn new(host: &'a Host) -> ListenerSet<'a> {
        ListenerSet {
            host,
            requests: Vec::new(),
            places: HashMap::new(),
            ports: HashMap::new(),
            notes: Vec::new(),
        }
    }

    /// Adds the listeners of a route. `interface` is the index of the interface that the route names.
    pub(super) fn add(&mut self, route: &Route, interface: Option<u32>, problems: &mut Problems) {
        let mut is_noted = !route.share;
        for destination in &route.destinations {
            match self.add_destination(route, interface, destination) {
                Ok(is_spread) if is_spread && !is_noted => {
                    is_noted = true;
                    self.notes.push(share_of_unicast(route));
                }
                Ok(_) => {}
                Err(problem) => problems.push(*problem),
            }
        }
    }

    /// Adds the listeners of one destination. Returns whether each worker has a socket of its own there.
    fn add_destination(
        &mut self,
        route: &Route,
        interface: Option<u32>,
        destination: &Placed<Destination>,
    ) -> Result<bool, Box<Problem>> {
        let Binding {
            ip,
            scope,
            role,
            note,
        } = role::find(destination, route, interface, self.host)?;
        self.note(note);
        // A repeated request for the same socket changes nothing, except for the sources of a group.
        let (group, ports) = if let Role::Group { interface, .. } = &role {
            (Some(*interface), vec![destination.value.ports])
        } else {
            let requested = self.ports.entry((ip, scope, route.share)).or_default();
            (None, requested.add(destination.value.ports))
        };
        let mut contradiction = None;
        for port in ports.into_iter().flat_map(PortSpan::iter) {
            let request = ListenerRequest {
                address: with_scope(ip, port, scope),
                role: role.clone(),
                share: route.share,
                at: destination.at.clone(),
            };
            let place = *self
                .places
                .entry((request.address, group))
                .or_insert(self.requests.len());
            match self.requests.get_mut(place) {
                Some(first) if first.share != request.share => {
                    contradiction.get_or_insert_with(|| share_differs(&request, first));
                }
                Some(first) => first.merge(request),
                None => self.requests.push(request),
            }
        }
        contradiction.map_or(Ok(role.is_spread()), |problem| Err(Box::new(problem)))
    }

    fn note(&mut self, note: Option<Note>) {
        match note {
            Some(Note::Once(text)) if self.notes.contains(&text) => {}
            Some(Note::Once(text) | Note::Each(text)) => self.notes.push(text),
            None => {}
        }
    }

    /// Returns the listeners, and notes for the user.
    pub(super) fn finish(self) -> (Vec<ListenerPlan>, Vec<String>) {
        let requests = self.requests.into_iter();
        let mut listeners: Vec<ListenerPlan> = requests
            .flat_map(|request| request.listeners(self.host))
            .collect();
        claim_broadcasts(&mut listeners);
        claim_groups(&mut listeners);
        (listeners, self.notes)
    }
}

/// Returns a note on `share` for a unicast address, because a user may expect the behaviour of groups.
fn share_of_unicast(route: &Route) -> String {
    format!(
        "route {}: with `share`, every program on the port needs SO_REUSEADDR, and datagrams to a unicast address all go \
         to the one that bound it last; only datagrams to groups and broadcast addresses reach all programs",
        route.label
    )
}

/// Returns the problem that one socket cannot be both exclusive and shared.
fn share_differs(request: &ListenerRequest, first: &ListenerRequest) -> Problem {
    let message = format!(
        "`share` differs between two routes of one socket, {}",
        request.address
    );
    let hint = "give both routes the same `share`";
    Problem::error(request.at.clone(), message)
        .and_at(first.at.clone(), "the other route")
        .hint(hint)
}

impl ListenerRequest {
    /// Adds another route's request for the same socket.
    fn merge(&mut self, other: ListenerRequest) {
        if let (
            Role::Group { sources: mine, .. },
            Role::Group {
                sources: theirs, ..
            },
        ) = (&mut self.role, other.role)
        {
            if mine.is_empty() || theirs.is_empty() {
                mine.clear(); // One of them accepts any source, so the join is for any source.
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

    /// Makes the listener of a request. A group with more sources than one socket may join has several listeners.
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
        let interface = *interface;
        let label = format!(
            "{} on {}",
            without_zone(self.address),
            host.interface_name(interface)
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

/// Returns an address without its zone, which only the bind call needs.
fn without_zone(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn with_scope(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        IpAddr::V4(_) => SocketAddr::new(ip, port),
    }
}

/// Sets `claimed` in each wildcard listener: the addresses on its port with a listener of their own that are broadcast
/// addresses or may become one.
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

/// Sets `elsewhere` in each group's listener: the other interfaces on which the group has a listener.
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
