//! Checks that need all routes: equal routes, equal names, and too many sockets or rows.
//!
//! A file may have 65,536 routes, so each check is one pass with a hash table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::IpNet;

use super::destination::{Destination, PortSet, PortSpan};
use super::diagnostics::quoted;
use super::interface::InterfaceRef;
use super::limits::{LISTENERS_MAX, MATCH_ROWS_MAX};
use super::problem::{Problem, Problems};
use super::route::{Route, RouteDraft};
use super::source::Placed;

/// Checks the routes against each other and gives each its label.
pub(super) fn finish(drafts: Vec<RouteDraft>, problems: &mut Problems) -> Vec<Route> {
    let rows =
        |draft: &RouteDraft| draft.route.destinations.len() * draft.route.sources.len().max(1);
    let mut total: usize = 0;
    let too_many = drafts.iter().find(|draft| {
        total = total.saturating_add(rows(draft));
        total > MATCH_ROWS_MAX
    });
    match too_many {
        Some(draft) => problems.push(
            Problem::error(
                draft.route.at.clone(),
                format!("more than {MATCH_ROWS_MAX} pairs of destination and source"),
            )
            .hint("write prefixes and ranges instead of single addresses and ports"),
        ),
        None => check_equal(&drafts, problems),
    }
    check_listeners(&drafts, problems);
    label(drafts, problems)
}

/// Reports rows that match the same datagrams, because it would be undefined which route receives those.
fn check_equal(drafts: &[RouteDraft], problems: &mut Problems) {
    type Row<'a> = (IpNet, PortSpan, Option<&'a InterfaceRef>, Option<IpNet>);
    let mut seen: HashMap<Row<'_>, &Range<usize>> = HashMap::new();
    for RouteDraft { route, .. } in drafts {
        let interface = route.interface.as_ref().map(|interface| &interface.value);
        for Placed { value, at } in &route.destinations {
            let mut first = None;
            let mut insert = |source| {
                let row = (value.net, value.ports, interface, source);
                let earlier = *seen.entry(row).or_insert(at);
                if earlier != at {
                    first = Some(earlier);
                }
            };
            match route.sources.as_slice() {
                [] => insert(None),
                sources => sources.iter().for_each(|source| insert(Some(source.value))),
            }
            if let Some(first) = first {
                problems.push(equal(value, at, first));
            }
        }
    }
}

fn equal(destination: &Destination, at: &Range<usize>, first: &Range<usize>) -> Problem {
    let message = format!("`destination`: {destination} is routed twice, for the same sources");
    Problem::error(at.clone(), message)
        .label("again here")
        .and_at(first.clone(), "first here")
        .hint("one route can name several handlers: handler = [\"...\", \"...\"];\nto tell the routes apart, add `interface` or `source`")
}

/// Reports too many sockets. Each combination of address, interface and port is a socket; a prefix uses a wildcard
/// socket.
fn check_listeners(drafts: &[RouteDraft], problems: &mut Problems) {
    let mut known: HashMap<(IpAddr, Option<&InterfaceRef>), PortSet> = HashMap::new();
    let mut listeners = 0;
    for RouteDraft { route, .. } in drafts {
        let interface = route.interface.as_ref().map(|interface| &interface.value);
        for Placed { value, at } in &route.destinations {
            let address = value.address().unwrap_or(match value.net {
                IpNet::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpNet::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            });
            let new = known
                .entry((address, interface))
                .or_default()
                .add(value.ports);
            listeners += new.into_iter().map(PortSpan::count).sum::<usize>();
            if listeners > LISTENERS_MAX {
                let message = format!("more than {LISTENERS_MAX} sockets are needed");
                let problem = Problem::error(at.clone(), message)
                    .label(format!("{} here", ports(value.ports)))
                    .hint("each address with each port needs a socket; write fewer ports,\nor replace many addresses by their prefix");
                problems.push(problem);
                return;
            }
        }
    }
}

fn ports(ports: PortSpan) -> String {
    super::diagnostics::counted(ports.count(), "port")
}

/// Gives each route its label: the name from the file, or one that is made from what the route matches.
fn label(drafts: Vec<RouteDraft>, problems: &mut Problems) -> Vec<Route> {
    let mut taken: HashMap<String, Range<usize>> = HashMap::new();
    for draft in &drafts {
        let Some(name) = &draft.name else { continue };
        if let Some(first) = taken.get(&name.value) {
            let message = format!("`name`: {} is taken", quoted(&name.value));
            let problem = Problem::error(name.at.clone(), message);
            problems.push(problem.and_at(first.clone(), "first here"));
        } else {
            taken.insert(name.value.clone(), name.at.clone());
        }
    }
    let mut repeated: HashMap<String, usize> = HashMap::new();
    let mut routes = Vec::with_capacity(drafts.len());
    for RouteDraft { name, mut route } in drafts {
        route.label = if let Some(name) = name {
            name.value
        } else {
            let label = made_label(&route);
            let times = repeated.entry(label.clone()).or_insert(0);
            *times += 1;
            // A label that is made here has a colon, so it never equals a name from the file.
            match *times {
                1 => label,
                times => format!("{label} #{times}"),
            }
        };
        routes.push(route);
    }
    routes
}

/// Makes a label, such as `239.1.2.3:5000 +2 on eth0 from 10.0.0.0/8`.
fn made_label(route: &Route) -> String {
    let more = |count: usize| match count {
        0 | 1 => String::new(),
        count => format!(" +{}", count - 1),
    };
    let destinations = &route.destinations;
    let mut label = destinations
        .first()
        .map_or(String::new(), |first| first.value.to_string());
    label.push_str(&more(destinations.len()));
    if let Some(interface) = &route.interface {
        label.push_str(&format!(" on {}", interface.value));
    }
    if let Some(first) = route.sources.first() {
        let net = first.value;
        let host = net.prefix_len() == net.max_prefix_len();
        let text = if host {
            net.addr().to_string()
        } else {
            net.to_string()
        };
        label.push_str(&format!(" from {text}{}", more(route.sources.len())));
    }
    label
}
