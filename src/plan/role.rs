//! Decides which role the listener of a destination has on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Destination, Placed, Problem, Route};
use crate::net::fib::DestinationKind;
use crate::plan::host::Host;
use crate::plan::listener::Role;

/// The address that a destination's listener is bound to, and its role.
pub(super) struct Binding {
    pub(super) ip: IpAddr,
    /// The index of the interface that the bind call needs; 0 for none.
    pub(super) scope: u32,
    pub(super) role: Role,
    /// A note for the user.
    pub(super) note: Option<Note>,
}

/// A note for the user.
pub(super) enum Note {
    /// A note that is shown once, for any number of destinations.
    Once(String),
    /// A note that is shown for each destination.
    Each(String),
}

/// Finds the address to bind, its scope, and the role of a destination's listener. `interface` is the index of the
/// interface that the route names.
///
/// # Errors
///
/// Returns a problem if the destination is a group, the route names no interface, and the kernel has none to join the
/// group on.
pub(super) fn find(
    destination: &Placed<Destination>,
    route: &Route,
    interface: Option<u32>,
    host: &Host,
) -> Result<Binding, Box<Problem>> {
    let ip = destination.value.net.addr();
    if !destination.value.is_exact() {
        return Ok(wildcard(ip));
    }
    if !ip.is_multicast() {
        return Ok(unicast(ip, interface, host));
    }
    group(ip, route, interface, host).map_err(|message| {
        let hint = format!(
            "name one with `interface = \"…\"`; this host has: {}",
            host.list()
        );
        Box::new(Problem::error(destination.at.clone(), message).hint(hint))
    })
}

fn wildcard(ip: IpAddr) -> Binding {
    Binding {
        ip: if ip.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        },
        scope: 0,
        role: Role::Wildcard {
            claimed: Vec::new(),
        },
        note: None,
    }
}

fn unicast(ip: IpAddr, interface: Option<u32>, host: &Host) -> Binding {
    let scope = if is_link_scoped(ip) {
        interface.unwrap_or(0)
    } else {
        0
    };
    let binding = |role, scope, note| Binding {
        ip,
        scope,
        role,
        note,
    };
    match (host.look_up)(ip).map(|route| route.kind) {
        Ok(DestinationKind::Broadcast) => binding(Role::Broadcast, 0, None),
        Ok(DestinationKind::Local) => binding(Role::Unicast, scope, None),
        _ if ip == IpAddr::V4(Ipv4Addr::BROADCAST) => binding(Role::Broadcast, 0, None),
        _ => {
            let note = Note::Each(format!(
                "{ip} is not an address of this host; its listener is bound and will receive once the host has the address"
            ));
            if ip.is_ipv4() {
                binding(Role::Absent, 0, Some(note))
            } else {
                binding(Role::Unicast, scope, Some(note))
            }
        }
    }
}

fn group(
    ip: IpAddr,
    route: &Route,
    interface: Option<u32>,
    host: &Host,
) -> Result<Binding, String> {
    let (interface, note) = match interface {
        Some(interface) => (interface, None),
        None => kernel_interface(ip, host)?,
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
    Ok(Binding {
        ip,
        // The bind call rejects a link-local group without its zone (IPV6_ADDR_LINKLOCAL in inet6_bind).
        scope: if is_link_scoped(ip) { interface } else { 0 },
        role: Role::Group {
            interface,
            sources,
            elsewhere: Vec::new(),
        },
        note,
    })
}

/// Returns whether an address is valid on one interface only. Such addresses are link-local ones, and groups of
/// interface or link scope (RFC 4291, sections 2.5.6 and 2.7).
fn is_link_scoped(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    ip.is_unicast_link_local() || (ip.is_multicast() && matches!(ip.segments()[0] & 0xf, 1 | 2))
}

/// Returns the interface on which a group is joined if the file names none, and a note about that choice.
fn kernel_interface(group: IpAddr, host: &Host) -> Result<(u32, Option<Note>), String> {
    match (host.look_up)(group) {
        Ok(route) if route.interface != 0 => {
            let name = host.interface_name(route.interface);
            let note = format!(
                "{group} is joined on {name}, which is the kernel's choice; `interface` names another"
            );
            Ok((route.interface, Some(Note::Once(note))))
        }
        _ => Err(format!(
            "the kernel has no route to {group}, so it cannot choose an interface for the group"
        )),
    }
}
