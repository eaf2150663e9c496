//! Finds the listeners and the route that a simulated datagram would reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::datagram::Envelope;
use crate::dispatch::route_table::{PortTable, RouteId};
use crate::net::fib::DestinationKind;
use crate::plan::explain::question::Question;
use crate::plan::host::Host;
use crate::plan::{ListenerPlan, Plan, Role};

/// The course of a datagram through the daemon, up to its route.
pub(crate) struct Course {
    /// The listeners that receive the datagram or a copy. The first one handles it.
    pub(crate) receiving: Vec<usize>,
    /// The facts that the kernel would pass with the datagram.
    pub(crate) envelope: Envelope,
    /// The route that matches the datagram.
    pub(crate) route: Option<RouteId>,
}

/// Follows a datagram to its route. `table` is the plan's table for the destination port.
pub(crate) fn follow(plan: &Plan, host: &Host, question: &Question, table: &PortTable) -> Course {
    let receiving = receiving_listeners(plan, question);
    let envelope = simulated_envelope(
        host,
        question,
        receiving.first().map(|index| &plan.listeners[*index]),
    );
    let route = (!receiving.is_empty())
        .then(|| table.find(&envelope))
        .flatten();
    Course {
        receiving,
        envelope,
        route,
    }
}

/// Returns the listeners that receive the datagram or a copy. The first one handles it.
fn receiving_listeners(plan: &Plan, question: &Question) -> Vec<usize> {
    let (ip, port) = (question.to.ip(), question.to.port());
    let at_port = |is_match: &dyn Fn(&ListenerPlan) -> bool| -> Vec<usize> {
        let listeners = plan.listeners.iter().enumerate();
        let found =
            listeners.filter(|(_, listener)| listener.address.port() == port && is_match(listener));
        found.map(|(index, _)| index).collect()
    };
    let wildcard = |listener: &ListenerPlan| {
        matches!(listener.role, Role::Wildcard { .. }) && listener.address.is_ipv4() == ip.is_ipv4()
    };
    let exact = at_port(&|listener| {
        let is_joined = match &listener.role {
            Role::Group {
                interface, sources, ..
            } => {
                question.interface.is_none_or(|index| index == *interface)
                    && (sources.is_empty() || sources.contains(&question.from.ip()))
            }
            _ => true,
        };
        listener.address.ip() == ip && !ip.is_unspecified() && is_joined
    });
    let is_broadcast = exact
        .iter()
        .any(|index| plan.listeners[*index].role == Role::Broadcast);
    let reaches_wildcards = (exact.is_empty() || is_broadcast) && !ip.is_multicast();
    if reaches_wildcards {
        exact.into_iter().chain(at_port(&wildcard)).collect()
    } else {
        exact
    }
}

/// Returns the facts that the kernel would pass with the datagram.
fn simulated_envelope(
    host: &Host,
    question: &Question,
    listener: Option<&ListenerPlan>,
) -> Envelope {
    let return_route = (host.look_up)(question.from.ip()).ok();
    let interface = question
        .interface
        .unwrap_or(match listener.map(|listener| &listener.role) {
            Some(Role::Group { interface, .. }) => *interface,
            _ => return_route.map_or(0, |route| route.interface),
        });
    let to_many = question.to.ip().is_multicast() || is_broadcast(host, question.to.ip());
    let local = match question.to.ip() {
        ip if !to_many => ip,
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        IpAddr::V4(_) => {
            let on = host
                .interfaces
                .iter()
                .find(|candidate| candidate.index == interface);
            let first = on.and_then(|on| on.addresses.iter().copied().find(IpAddr::is_ipv4));
            return_route
                .and_then(|route| route.source)
                .or(first)
                .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
        }
    };
    let local = SocketAddr::new(local, question.to.port());
    Envelope {
        src: question.from,
        dst: question.to,
        local,
        interface,
        ttl: Some(question.ttl),
        time_ns: None,
    }
}

/// Returns whether an address is a broadcast address on this host.
fn is_broadcast(host: &Host, ip: IpAddr) -> bool {
    let known = (host.look_up)(ip).is_ok_and(|route| route.kind == DestinationKind::Broadcast);
    known || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Returns whether a datagram to the address reaches this host at all.
pub(super) fn is_here(host: &Host, ip: IpAddr) -> bool {
    ip.is_multicast()
        || is_broadcast(host, ip)
        || (host.look_up)(ip).is_ok_and(|route| route.kind == DestinationKind::Local)
}
