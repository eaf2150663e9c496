//! The compiled route table against a model that contains only the text of the rule: every row is looked at, one
//! criterion after the other. There are few addresses, ports and interfaces, so that rows often overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::{bits, covers, find, first, takes};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use udispatch::datagram::Envelope;
use udispatch::dispatch::route_table::{Match, RouteId, RouteTable};

/// The beginnings of the small blocks of addresses: in the middle and at both ends, where errors of arithmetic show.
const BLOCKS_V4: [u32; 3] = [0x0a00_0000, 0, 0xffff_fff0];
const BLOCKS_V6: [u128; 3] = [0x2001_0db8 << 96, 0, u128::MAX - 15];

/// Ranges that overlap, are nested or apart. No two of equal width overlap, because the rule does not rank those.
const PORTS: [(u16, u16); 9] = [
    (4, 4),
    (5, 5),
    (6, 6),
    (5, 6),
    (7, 8),
    (4, 6),
    (5, 8),
    (3, 9),
    (0, 65_535),
];

const INTERFACES: [u32; 3] = [1, 2, 3];

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (select(BLOCKS_V4.to_vec()), 0u32..16)
        .prop_map(|(block, low)| IpAddr::from(Ipv4Addr::from_bits(block.wrapping_add(low))));
    let v6 = (select(BLOCKS_V6.to_vec()), 0u128..16)
        .prop_map(|(block, low)| IpAddr::from(Ipv6Addr::from_bits(block.wrapping_add(low))));
    // These are neighbours of the blocks, which only the short prefixes contain.
    let outside = select(vec![
        "9.255.255.255",
        "10.0.0.16",
        "127.255.255.255",
        "128.0.0.0",
        "255.255.255.239",
        "2001:db8::10",
        "2001:db7:ffff::",
        "8000::",
    ])
    .prop_map(|text| text.parse().unwrap());
    prop_oneof![6 => v4, 6 => v6, 1 => outside]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![6 => 0u8..=4, 1 => Just(24u8), 1 => Just(31), 2 => Just(32)];
    (address(), len).prop_map(|(ip, free)| {
        let width = bits(ip).1;
        // 32 free bits of an IPv6 address are an ordinary prefix. What is needed here is the wildcard.
        let len = if free == 32 { 0 } else { width - free };
        IpNet::new(ip, len).unwrap().trunc()
    })
}

/// Mostly sources of the row's family, and sometimes of the other one. Those can never match.
fn source() -> impl Strategy<Value = Option<IpNet>> {
    prop::option::weighted(0.4, prefix())
}

/// Rows that differ in at least one of the four criteria, as those of a configuration do.
fn rows() -> impl Strategy<Value = Vec<Match>> {
    let interface = prop::option::weighted(0.4, select(INTERFACES.to_vec()));
    let row = (prefix(), select(PORTS.to_vec()), interface, source());
    prop::collection::vec(row, 0..32).prop_map(|all| {
        let mut rows: Vec<Match> = Vec::new();
        for (net, ports, interface, source) in all {
            let route = RouteId(rows.len() as u32);
            let row = Match {
                net,
                ports,
                interface,
                source,
                route,
            };
            if !rows.iter().any(|other| Match { route, ..*other } == row) {
                rows.push(row);
            }
        }
        rows
    })
}

fn envelope(dst: IpAddr, port: u16, interface: u32, src: IpAddr) -> Envelope {
    let dst = SocketAddr::new(dst, port);
    Envelope {
        src: SocketAddr::new(src, 9_999),
        dst,
        local: dst,
        interface,
        ttl: None,
        time_ns: None,
    }
}

fn datagram() -> impl Strategy<Value = Envelope> {
    // A listener that did not ask for the interface sees interface 0.
    (address(), 3u16..10, 0u32..4, address())
        .prop_map(|(dst, port, interface, src)| envelope(dst, port, interface, src))
}

/// Every source and interface that could make a difference to a row.
fn conditions(rows: &[Match]) -> Vec<(u32, IpAddr)> {
    let sources = rows
        .iter()
        .filter_map(|row| row.source)
        .map(|net| net.addr());
    let others = ["192.0.2.1", "2001:db8:9::1"].map(|text| text.parse().unwrap());
    let sources: Vec<IpAddr> = sources.chain(others).collect();
    let each = |interface| sources.iter().map(move |src| (interface, *src));
    [0, 1, 2, 3].into_iter().flat_map(each).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The compiled table finds the route that the rule names, in both families, however rows overlap.
    #[test]
    fn finds_what_the_rule_names(rows in rows(), datagrams in prop::collection::vec(datagram(), 1..60)) {
        let table = RouteTable::new(rows.clone());
        for envelope in &datagrams {
            let port = table.for_port(envelope.dst.port());
            prop_assert_eq!(port.find(envelope), find(&rows, envelope), "{:?}", envelope);
        }
    }

    /// The verdict of a row on a datagram is that of the rule, and so is the order of rows that users are shown.
    #[test]
    fn rows_say_for_themselves(rows in rows(), datagrams in prop::collection::vec(datagram(), 1..60)) {
        let table = RouteTable::new(rows.clone());
        for envelope in &datagrams {
            for row in &rows {
                prop_assert_eq!(row.mismatch(envelope).is_none(), takes(row, envelope), "{:?}", envelope);
            }
            let shown = table.matches().iter().find(|row| row.mismatch(envelope).is_none());
            prop_assert_eq!(shown.map(|row| row.route), find(&rows, envelope), "{:?}", envelope);
        }
    }

    /// A fixed route is taken by every datagram to the address, from any source and interface. An address has one
    /// whenever the first of its rows has no condition.
    #[test]
    fn fixed_is_what_every_datagram_takes(rows in rows(), ip in address(), port in 3u16..10) {
        let table = RouteTable::new(rows.clone()).for_port(port);
        let there = rows.iter().filter(|row| covers(row.net, ip) && (row.ports.0..=row.ports.1).contains(&port));
        let unconditional = first(there).filter(|row| row.interface.is_none() && row.source.is_none());
        prop_assert_eq!(table.fixed(ip), unconditional.map(|row| row.route));
        if let Some(route) = table.fixed(ip) {
            for (interface, src) in conditions(&rows) {
                let envelope = envelope(ip, port, interface, src);
                prop_assert_eq!(table.find(&envelope), Some(route));
                prop_assert_eq!(find(&rows, &envelope), Some(route), "{:?}", envelope);
            }
        }
    }

    /// The only wildcard is taken by every datagram of the family, whatever its destination and source. There is one
    /// whenever the family's rows are wildcards, the first of which has no condition.
    #[test]
    fn only_wildcard_is_what_every_datagram_takes(
        rows in rows(), keep in 0usize..4, v4: bool, port in 3u16..10, ips in prop::collection::vec(address(), 20)
    ) {
        // Most cases have only wildcards, because a row with a longer prefix excludes the only wildcard.
        let mut long = 0;
        let is_kept = |row: &Match| row.net.prefix_len() == 0 || { long += 1; long + 2 <= keep };
        let rows: Vec<Match> = rows.into_iter().filter(is_kept).collect();
        let table = RouteTable::new(rows.clone()).for_port(port);
        let there: Vec<&Match> = rows.iter()
            .filter(|row| row.net.addr().is_ipv4() == v4 && (row.ports.0..=row.ports.1).contains(&port))
            .collect();
        let wildcards = there.iter().all(|row| row.net.prefix_len() == 0);
        let unconditional = first(there.into_iter())
            .filter(|row| wildcards && row.interface.is_none() && row.source.is_none());
        prop_assert_eq!(table.only_wildcard(v4), unconditional.map(|row| row.route));
        if let Some(route) = table.only_wildcard(v4) {
            for ip in ips.into_iter().filter(|ip| ip.is_ipv4() == v4) {
                for (interface, src) in conditions(&rows) {
                    prop_assert_eq!(find(&rows, &envelope(ip, port, interface, src)), Some(route));
                }
            }
        }
    }
}

/// The rule does not rank two ranges of equal width that overlap. The table chooses one of the two and keeps to it.
#[test]
fn ties_are_settled_one_way() {
    let net: IpNet = "10.0.0.0/28".parse().unwrap();
    let row = |ports, route| Match {
        net,
        ports,
        interface: None,
        source: None,
        route: RouteId(route),
    };
    let table = RouteTable::new(vec![row((5, 8), 0), row((6, 9), 1)]);
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let found = |port| {
        table
            .for_port(port)
            .find(&envelope(ip, port, 1, "10.9.9.9".parse().unwrap()))
    };
    assert_eq!(found(5), Some(RouteId(0)));
    assert_eq!(found(9), Some(RouteId(1)));
    for port in [6, 7, 8] {
        let shown = table
            .matches()
            .iter()
            .find(|row| row.ports.0 <= port && port <= row.ports.1);
        assert_eq!(
            found(port),
            shown.map(|row| row.route),
            "as users are shown it"
        );
    }
}
