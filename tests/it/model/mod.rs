//! A model of the rule of precedence: nothing but its text, every row looked at, one criterion after the other.

#![allow(
    clippy::allow_attributes,
    dead_code,
    reason = "`it` and `simulation` each use a part of this"
)]

use std::net::IpAddr;

use ipnet::IpNet;
use udispatch::datagram::Envelope;
use udispatch::dispatch::route_table::{Match, RouteId};

/// The bits of an address, and the width of its family.
pub fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

/// Whether an address is in a prefix, computed without the library that the route table uses.
pub fn covers(net: IpNet, ip: IpAddr) -> bool {
    let ((net_bits, net_width), (ip_bits, ip_width)) = (bits(net.addr()), bits(ip));
    let free = u32::from(net_width - net.prefix_len());
    net_width == ip_width
        && (net_bits ^ ip_bits)
            .checked_shr(free)
            .is_none_or(|rest| rest == 0)
}

/// Whether the row matches the datagram.
pub fn takes(row: &Match, envelope: &Envelope) -> bool {
    covers(row.net, envelope.dst.ip())
        && (row.ports.0..=row.ports.1).contains(&envelope.dst.port())
        && row.interface.is_none_or(|only| only == envelope.interface)
        && row
            .source
            .is_none_or(|only| covers(only, envelope.src.ip()))
}

/// Whether `a` precedes `b`, criterion by criterion.
pub fn goes_before(a: &Match, b: &Match) -> bool {
    let width = |row: &Match| row.ports.1 - row.ports.0;
    if a.net.prefix_len() != b.net.prefix_len() {
        return a.net.prefix_len() > b.net.prefix_len();
    }
    if width(a) != width(b) {
        return width(a) < width(b);
    }
    match (a.interface, b.interface) {
        (Some(_), None) => return true,
        (None, Some(_)) => return false,
        _ => {}
    }
    match (a.source, b.source) {
        (Some(_), None) => true,
        (Some(a), Some(b)) => a.prefix_len() > b.prefix_len(),
        _ => false,
    }
}

/// The first of the rows by the rule.
pub fn first<'a>(rows: impl Iterator<Item = &'a Match>) -> Option<&'a Match> {
    rows.reduce(|best, row| if goes_before(row, best) { row } else { best })
}

/// The route that the datagram gets by the rule.
pub fn find(rows: &[Match], envelope: &Envelope) -> Option<RouteId> {
    first(rows.iter().filter(|row| takes(row, envelope))).map(|row| row.route)
}
