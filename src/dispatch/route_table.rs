//! Which route a datagram takes. Precedence, over the whole table:
//!
//! 1. destination address: exact before longer prefix before shorter prefix before wildcard;
//! 2. then port: exact before range, narrower first;
//! 3. then interface: named before any;
//! 4. then source: longer prefix before shorter before none.
//!
//! A listener has one port, so it gets a [`PortTable`]: the rows that can match there, compiled so that thousands of
//! destinations or sources cost one binary search each.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;

pub use super::id::RouteId;
use super::ranges::{AddressKey, NOBODY, Ranges};
use crate::datagram::Envelope;
use crate::number;

/// One row of the table: a combination that leads to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Destination address or prefix; length 0 is the wildcard.
    pub net: IpNet,
    /// First and last destination port.
    pub ports: (u16, u16),
    /// Index of the only interface that it may arrive on.
    pub interface: Option<u32>,
    /// The only sources it may come from.
    pub source: Option<IpNet>,
    /// Where it leads.
    pub route: RouteId,
}

/// Why a row does not take a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// Sent to another address.
    Destination,
    /// Sent to another port.
    Port,
    /// Arrived on another interface.
    Interface,
    /// Comes from another source.
    Source,
}

impl Match {
    /// The first thing about the datagram that this row does not accept.
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

    /// What decides between two rows that both match; less comes first.
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

/// All rows, most specific first.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    matches: Vec<Match>,
}

impl RouteTable {
    /// Sorts the rows by precedence.
    pub fn new(mut matches: Vec<Match>) -> RouteTable {
        matches.sort_by_key(Match::rank);
        RouteTable { matches }
    }

    /// The rows, most specific first.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// The rows that can match at this port, compiled for lookup.
    pub fn for_port(&self, port: u16) -> PortTable {
        let at_port = self
            .matches
            .iter()
            .filter(|row| row.ports.0 <= port && port <= row.ports.1);
        let (mut v4, mut v6) = (Nodes::default(), Nodes::default());
        for row in at_port {
            match row.net {
                IpNet::V4(net) => v4.add(u32::from(net.network()), u32::from(net.broadcast()), row),
                IpNet::V6(net) => {
                    v6.add(u128::from(net.network()), u128::from(net.broadcast()), row)
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
    /// The route for a datagram that this port's listener received.
    pub fn find(&self, envelope: &Envelope) -> Option<RouteId> {
        match envelope.dst.ip() {
            IpAddr::V4(address) => self.v4.find(u32::from(address), envelope),
            IpAddr::V6(address) => self.v6.find(u128::from(address), envelope),
        }
    }

    /// The route that every datagram to `destination` takes, whatever its interface and source, if there is one.
    pub fn fixed(&self, destination: IpAddr) -> Option<RouteId> {
        match destination {
            IpAddr::V4(address) => self.v4.fixed(u32::from(address)),
            IpAddr::V6(address) => self.v6.fixed(u128::from(address)),
        }
    }

    /// The route that every datagram of the address family takes, if the family has one row alone and that is a wildcard
    /// without conditions.
    pub fn only_wildcard(&self, v4: bool) -> Option<RouteId> {
        if v4 { self.v4.only() } else { self.v6.only() }
    }
}

/// One family's prefixes: the address finds the innermost prefix; where none of its rows accepts the datagram, the next
/// larger prefix is asked.
#[derive(Debug, Clone)]
struct PrefixTable<K: AddressKey> {
    ranges: Ranges<K>,
    nodes: Vec<Node>,
}

/// The rows of one prefix.
#[derive(Debug, Clone)]
struct Node {
    /// The route that everything takes here, where the first row has no condition: found without a look at the groups.
    fixed: Option<RouteId>,
    /// By port range and interface, in the order of precedence.
    groups: Vec<Group>,
    /// The next larger prefix, or [`NOBODY`].
    parent: u32,
}

/// Rows that are equal but for the source.
#[derive(Debug, Clone)]
struct Group {
    interface: Option<u32>,
    sources: Sources,
}

#[derive(Debug, Clone)]
struct Sources {
    /// Compiled source prefixes of either family; routes are the owners.
    v4: Option<Ranges<u32>>,
    v6: Option<Ranges<u128>>,
    /// The route for every other source.
    any: Option<RouteId>,
}

impl<K: AddressKey> PrefixTable<K> {
    fn find(&self, destination: K, envelope: &Envelope) -> Option<RouteId> {
        let mut index = self.ranges.find(destination);
        while index != NOBODY {
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
    /// The route that everything takes, if there is no condition.
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
            _ => NOBODY,
        };
        if owner == NOBODY {
            self.any
        } else {
            Some(RouteId(owner))
        }
    }
}

/// Prefixes being gathered; rows arrive in the order of precedence, so rows of one prefix arrive together per rank.
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
                parent: NOBODY,
            });
        }
        let (ranges, parents) = Ranges::build(intervals);
        for (index, parent) in parents {
            nodes[index as usize].parent = parent;
        }
        PrefixTable { ranges, nodes }
    }
}

/// Cuts the rows of one prefix, in the order of precedence, into groups that differ only in the source.
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
            break; // It takes everything: whatever comes behind it is never reached.
        }
    }
    groups
}

fn compile_sources<'a>(rows: impl Iterator<Item = &'a Match>) -> Sources {
    let (mut v4, mut v6, mut any) = (Vec::new(), Vec::new(), None);
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

/// Keeps the first of equal prefixes: overlapping port ranges of one width can bring the same source twice.
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

    /// Each rule of precedence decides before the next one is asked.
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
            "the next larger prefix takes what is refused"
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

    /// A destination is fixed only where no condition can change the answer.
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
