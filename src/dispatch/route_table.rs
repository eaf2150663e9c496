//! The choice of a datagram's route. The precedence over the whole table is:
//!
//! 1. destination address: exact first, then longer prefixes before shorter ones, then the wildcard;
//! 2. then port: exact before range, narrower first;
//! 3. then interface: named before any;
//! 4. then source: longer prefixes before shorter ones, then rows without a source.
//!
//! A listener has one port, so it gets a [`PortTable`]. This holds the rows that can match at the port, compiled so
//! that thousands of destinations or sources cost one binary search each.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;

pub use super::id::RouteId;
use super::ranges::{AddressKey, NONE, Ranges};
use crate::datagram::Envelope;
use crate::number;

/// One row of the table: a combination of conditions that leads to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The destination address or prefix. Length 0 is the wildcard.
    pub net: IpNet,
    /// The first and last destination port.
    pub ports: (u16, u16),
    /// The index of the only interface that the datagram may arrive on.
    pub interface: Option<u32>,
    /// The only sources that the datagram may come from.
    pub source: Option<IpNet>,
    /// The route that the row leads to.
    pub route: RouteId,
}

/// The reason why a row does not match a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The datagram was sent to another address.
    Destination,
    /// The datagram was sent to another port.
    Port,
    /// The datagram arrived on another interface.
    Interface,
    /// The datagram comes from another source.
    Source,
}

impl Match {
    /// Returns the first condition of this row that the datagram does not meet, or `None` if the row matches.
    pub fn mismatch(&self, envelope: &Envelope) -> Option<Mismatch> {
        let port = envelope.dst.port();
        if !self.net.contains(&envelope.dst.ip()) {
            Some(Mismatch::Destination)
        } else if port < self.ports.0 || port > self.ports.1 {
            Some(Mismatch::Port)
        } else if self
            .interface
            .is_some_and(|interface| interface != envelope.interface)
        {
            Some(Mismatch::Interface)
        } else if self
            .source
            .is_some_and(|source| !source.contains(&envelope.src.ip()))
        {
            Some(Mismatch::Source)
        } else {
            None
        }
    }

    /// Returns the order between two rows that both match. The lesser one takes precedence.
    fn rank(&self) -> impl Ord + use<> {
        (
            Reverse(self.net.prefix_len()),
            self.ports.1 - self.ports.0,
            Reverse(self.interface.is_some()),
            Reverse(
                self.source
                    .map_or(-1, |source| i16::from(source.prefix_len())),
            ),
        )
    }
}

/// All rows, the most specific first.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    matches: Vec<Match>,
}

impl RouteTable {
    /// Creates a table and sorts the rows by precedence.
    pub fn new(mut matches: Vec<Match>) -> RouteTable {
        matches.sort_by_key(Match::rank);
        RouteTable { matches }
    }

    /// Returns the rows, the most specific first.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// Returns the rows that can match at this port, compiled for lookup.
    pub fn for_port(&self, port: u16) -> PortTable {
        let at_port = self
            .matches
            .iter()
            .filter(|row| row.ports.0 <= port && port <= row.ports.1);
        let mut v4 = Nodes::default();
        let mut v6 = Nodes::default();
        for row in at_port {
            match row.net {
                IpNet::V4(net) => v4.add(u32::from(net.network()), u32::from(net.broadcast()), row),
                IpNet::V6(net) => {
                    v6.add(u128::from(net.network()), u128::from(net.broadcast()), row);
                }
            }
        }
        PortTable {
            v4: v4.compile(),
            v6: v6.compile(),
        }
    }
}

/// The rows of one port.
#[derive(Debug, Clone)]
pub struct PortTable {
    v4: PrefixTable<u32>,
    v6: PrefixTable<u128>,
}

impl PortTable {
    /// Returns the route of a datagram that this port's listener received, or `None` if no row matches.
    pub fn find(&self, envelope: &Envelope) -> Option<RouteId> {
        match envelope.dst.ip() {
            IpAddr::V4(address) => self.v4.find(u32::from(address), envelope),
            IpAddr::V6(address) => self.v6.find(u128::from(address), envelope),
        }
    }

    /// Returns the route that every datagram to `destination` takes, whatever its interface and source, if there is
    /// one.
    pub fn fixed(&self, destination: IpAddr) -> Option<RouteId> {
        match destination {
            IpAddr::V4(address) => self.v4.fixed(u32::from(address)),
            IpAddr::V6(address) => self.v6.fixed(u128::from(address)),
        }
    }

    /// Returns the route that every datagram of the address family takes. It exists only if the family has a single
    /// row that is a wildcard without conditions.
    pub fn only_wildcard(&self, v4: bool) -> Option<RouteId> {
        if v4 { self.v4.only() } else { self.v6.only() }
    }
}

/// The prefixes of one address family. A lookup starts at the innermost prefix around the address. If none of its
/// rows matches the datagram, the lookup continues at the next larger prefix.
#[derive(Debug, Clone)]
struct PrefixTable<K: AddressKey> {
    ranges: Ranges<K>,
    nodes: Vec<Node>,
}

/// The rows of one prefix.
#[derive(Debug, Clone)]
struct Node {
    /// The route of all datagrams here, if the first row has no condition. It is found without reading the groups.
    fixed: Option<RouteId>,
    /// The rows by port range and interface, in the order of precedence.
    groups: Vec<Group>,
    /// The next larger prefix, or [`NONE`].
    parent: u32,
}

/// Rows that differ only in the source.
#[derive(Debug, Clone)]
struct Group {
    interface: Option<u32>,
    sources: Sources,
}

#[derive(Debug, Clone)]
struct Sources {
    /// The compiled source prefixes of each family. The owners are routes.
    v4: Option<Ranges<u32>>,
    v6: Option<Ranges<u128>>,
    /// The route of every other source.
    any: Option<RouteId>,
}

impl<K: AddressKey> PrefixTable<K> {
    fn find(&self, destination: K, envelope: &Envelope) -> Option<RouteId> {
        let mut index = self.ranges.find(destination);
        while index != NONE {
            let node = &self.nodes[index as usize];
            if node.fixed.is_some() {
                return node.fixed;
            }
            for group in &node.groups {
                if group
                    .interface
                    .is_none_or(|interface| interface == envelope.interface)
                    && let Some(route) = group.sources.find(envelope.src.ip())
                {
                    return Some(route);
                }
            }
            index = node.parent;
        }
        None
    }

    fn fixed(&self, destination: K) -> Option<RouteId> {
        let node = self.nodes.get(self.ranges.find(destination) as usize)?;
        node.fixed
    }

    fn only(&self) -> Option<RouteId> {
        // A single node that owns the lowest address and everything else is a wildcard.
        if self.nodes.len() == 1 && self.ranges.is_single() {
            self.fixed(K::MIN)
        } else {
            None
        }
    }
}

impl Group {
    /// Returns the route of all datagrams, if the group has no condition.
    fn fixed(&self) -> Option<RouteId> {
        let has_sources = self.sources.v4.is_some() || self.sources.v6.is_some();
        if self.interface.is_some() || has_sources {
            return None;
        }
        self.sources.any
    }
}

impl Sources {
    fn find(&self, source: IpAddr) -> Option<RouteId> {
        let owner = match (source, &self.v4, &self.v6) {
            (IpAddr::V4(address), Some(ranges), _) => ranges.find(u32::from(address)),
            (IpAddr::V6(address), _, Some(ranges)) => ranges.find(u128::from(address)),
            _ => NONE,
        };
        if owner == NONE {
            self.any
        } else {
            Some(RouteId(owner))
        }
    }
}

/// The prefixes of a table that is being compiled. Rows arrive in the order of precedence, so the rows of one prefix
/// are in that order too.
struct Nodes<'a, K> {
    prefixes: std::collections::HashMap<(K, K), Vec<&'a Match>>,
}

impl<K> Default for Nodes<'_, K> {
    fn default() -> Self {
        Nodes {
            prefixes: std::collections::HashMap::new(),
        }
    }
}

impl<'a, K: AddressKey + std::hash::Hash> Nodes<'a, K> {
    fn add(&mut self, first: K, last: K, row: &'a Match) {
        self.prefixes.entry((first, last)).or_default().push(row);
    }

    fn compile(self) -> PrefixTable<K> {
        let mut intervals = Vec::with_capacity(self.prefixes.len());
        let mut nodes = Vec::with_capacity(self.prefixes.len());
        for (index, ((first, last), rows)) in self.prefixes.into_iter().enumerate() {
            intervals.push((first, last, number::to_u32(index)));
            let groups = compile_groups(&rows);
            nodes.push(Node {
                fixed: groups.first().and_then(Group::fixed),
                groups,
                parent: NONE,
            });
        }
        let (ranges, parents) = Ranges::build(intervals);
        for (index, parent) in parents {
            nodes[index as usize].parent = parent;
        }
        PrefixTable { ranges, nodes }
    }
}

/// Divides the rows of one prefix, in the order of precedence, into groups that differ only in the source.
fn compile_groups(rows: &[&Match]) -> Vec<Group> {
    let key = |row: &Match| (row.ports.1 - row.ports.0, row.interface);
    let mut order: Vec<_> = rows.iter().map(|row| key(row)).collect();
    order.sort_by_key(|(width, interface)| (*width, interface.is_none(), *interface));
    order.dedup();
    let mut groups = Vec::new();
    for (width, interface) in order {
        let same = rows
            .iter()
            .filter(|row| key(row) == (width, interface))
            .copied();
        groups.push(Group {
            interface,
            sources: compile_sources(same),
        });
        if interface.is_none()
            && groups
                .last()
                .is_some_and(|group| group.sources.any.is_some())
        {
            break; // This group takes everything: no later group is ever reached.
        }
    }
    groups
}

fn compile_sources<'a>(rows: impl Iterator<Item = &'a Match>) -> Sources {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    let mut any = None;
    for row in rows {
        match row.source {
            None => any = any.or(Some(row.route)),
            Some(IpNet::V4(net)) => v4.push((
                u32::from(net.network()),
                u32::from(net.broadcast()),
                row.route.0,
            )),
            Some(IpNet::V6(net)) => v6.push((
                u128::from(net.network()),
                u128::from(net.broadcast()),
                row.route.0,
            )),
        }
    }
    Sources {
        v4: compile_prefixes(v4),
        v6: compile_prefixes(v6),
        any,
    }
}

/// Keeps the first of equal prefixes. Overlapping port ranges of one width can contain the same source twice.
fn compile_prefixes<K: AddressKey>(mut prefixes: Vec<(K, K, u32)>) -> Option<Ranges<K>> {
    prefixes.sort_by_key(|(first, last, _)| (*first, *last));
    prefixes.dedup_by_key(|(first, last, _)| (*first, *last));
    (!prefixes.is_empty()).then(|| Ranges::build(prefixes).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        net: &str,
        ports: (u16, u16),
        interface: Option<u32>,
        source: Option<&str>,
        route: u32,
    ) -> Match {
        let source = source.map(|source| source.parse().unwrap());
        Match {
            net: net.parse().unwrap(),
            ports,
            interface,
            source,
            route: RouteId(route),
        }
    }

    fn envelope(dst: &str, interface: u32, src: &str) -> Envelope {
        let dst = dst.parse().unwrap();
        Envelope {
            src: src.parse().unwrap(),
            dst,
            local: dst,
            interface,
            ttl: None,
            time_ns: None,
        }
    }

    /// Each rule of precedence decides before the next one.
    #[test]
    fn precedence_as_written() {
        let table = RouteTable::new(vec![
            row("0.0.0.0/0", (5000, 5000), Some(2), Some("10.0.0.0/8"), 0),
            row("192.0.2.0/24", (5000, 5010), None, None, 1),
            row("192.0.2.0/24", (5000, 5000), None, None, 2),
            row("192.0.2.7/32", (4000, 6000), None, Some("10.0.0.0/8"), 3),
            row("192.0.2.7/32", (4000, 6000), Some(2), None, 4),
            row("192.0.2.7/32", (4000, 6000), None, Some("10.9.0.0/16"), 5),
        ]);
        let port = table.for_port(5000);
        let find = |dst, interface, src| {
            port.find(&envelope(dst, interface, src))
                .map(|route| route.0)
        };
        assert_eq!(
            find("192.0.2.7:5000", 2, "10.9.0.1:9999"),
            Some(4),
            "interface before source"
        );
        assert_eq!(
            find("192.0.2.7:5000", 1, "10.9.0.1:9999"),
            Some(5),
            "longer source before shorter"
        );
        assert_eq!(find("192.0.2.7:5000", 1, "10.8.0.1:9999"), Some(3));
        assert_eq!(
            find("192.0.2.7:5000", 1, "172.16.0.1:9999"),
            Some(2),
            "the next larger prefix takes what the inner one does not match"
        );
        assert_eq!(
            find("192.0.2.8:5000", 1, "10.9.0.1:9999"),
            Some(2),
            "exact port before range"
        );
        assert_eq!(find("198.51.100.1:5000", 2, "10.9.0.1:9999"), Some(0));
        assert_eq!(find("198.51.100.1:5000", 3, "10.9.0.1:9999"), None);
        assert_eq!(
            table
                .for_port(5001)
                .find(&envelope("192.0.2.8:5001", 1, "10.9.0.1:9"))
                .map(|r| r.0),
            Some(1)
        );
    }

    /// A destination has a fixed route only if no condition can change the result.
    #[test]
    fn fixed_needs_no_condition() {
        let table = RouteTable::new(vec![
            row("127.0.0.1/32", (1, 1), None, None, 0),
            row("0.0.0.0/0", (1, 1), None, None, 1),
            row("0.0.0.0/0", (2, 2), None, None, 2),
            row("127.0.0.1/32", (2, 2), None, Some("10.0.0.0/8"), 3),
        ]);
        assert_eq!(
            table.for_port(1).fixed("127.0.0.1".parse().unwrap()),
            Some(RouteId(0))
        );
        assert_eq!(table.for_port(2).fixed("127.0.0.1".parse().unwrap()), None);
        assert_eq!(table.for_port(1).only_wildcard(true), None);
    }
}
