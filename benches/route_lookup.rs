//! The cost of finding the route of a datagram, by the number of prefixes: `cargo bench --bench route_lookup`.
//!
//! The goal: with 10,000 prefixes, a datagram costs at most 30 ns more than with 10. Destinations are drawn at random
//! beforehand, so that neither the caches nor the branch predictor can learn them. Some match no prefix and get the
//! wildcard's route.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use udispatch::datagram::Envelope;
use udispatch::dispatch::random::Random;
use udispatch::dispatch::route_table::{Match, PortTable, RouteId, RouteTable};

const PORT: u16 = 5_000;
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Number of datagrams that are looked up again and again: too many to learn, and too few to fill a cache.
const DATAGRAMS: usize = 4_096;

/// Addresses of which prefixes and datagrams are drawn: 10.0.0.0/8 and 2001:db8::/32, as in a private site.
fn address(random: &mut Random, v4: bool) -> IpAddr {
    let low = random.number();
    if v4 {
        Ipv4Addr::from_bits(0x0a00_0000 | (low as u32 >> 8)).into()
    } else {
        let bits =
            (0x2001_0db8u128 << 96) | (u128::from(low) << 32) | u128::from(random.number() as u32);
        Ipv6Addr::from_bits(bits).into()
    }
}

/// A prefix around an address that can be drawn: of 16 to 32 bits, or 48 to 64.
fn prefix(random: &mut Random, v4: bool) -> IpNet {
    let ip = address(random, v4);
    let len = if v4 {
        16 + random.below(17)
    } else {
        48 + random.below(17)
    };
    IpNet::new(ip, len as u8)
        .expect("a length of the family")
        .trunc()
}

fn wildcard(v4: bool) -> IpNet {
    let ip: IpAddr = if v4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    IpNet::new(ip, 0).expect("0 is a length of any family")
}

fn row(net: IpNet, source: Option<IpNet>, route: usize) -> Match {
    Match {
        net,
        ports: (PORT, PORT),
        interface: None,
        source,
        route: RouteId(route as u32),
    }
}

/// A number of different prefixes, nested at random.
fn prefixes(random: &mut Random, v4: bool, count: usize) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    let mut seen = std::collections::HashSet::new();
    while prefixes.len() < count {
        let prefix = prefix(random, v4);
        if seen.insert(prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// Half of the datagrams go to an address in one of the prefixes, and the others anywhere near.
fn addresses(random: &mut Random, v4: bool, prefixes: &[IpNet]) -> Vec<IpAddr> {
    let one = |index: usize| {
        let ip = address(random, v4);
        if index.is_multiple_of(2) {
            return ip;
        }
        let net = prefixes[random.below(prefixes.len())];
        match (ip, net) {
            (IpAddr::V4(ip), IpNet::V4(net)) => Ipv4Addr::from_bits(
                net.network().to_bits() | ip.to_bits() & net.hostmask().to_bits(),
            )
            .into(),
            (IpAddr::V6(ip), IpNet::V6(net)) => Ipv6Addr::from_bits(
                net.network().to_bits() | ip.to_bits() & net.hostmask().to_bits(),
            )
            .into(),
            (ip, _) => ip,
        }
    };
    (0..DATAGRAMS).map(one).collect()
}

fn envelope(dst: IpAddr, src: IpAddr) -> Envelope {
    let dst = SocketAddr::new(dst, PORT);
    Envelope {
        src: SocketAddr::new(src, 4_000),
        dst,
        local: dst,
        interface: 1,
        ttl: None,
        time_ns: None,
    }
}

/// Measures one look-up, with the next datagram each time.
fn measure(
    criterion: &mut Criterion,
    group: &str,
    name: &str,
    table: &PortTable,
    envelopes: &[Envelope],
) {
    let mut group = criterion.benchmark_group(group);
    let mut next = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            next = (next + 1) % DATAGRAMS;
            table.find(black_box(&envelopes[next]))
        });
    });
    group.finish();
}

fn destinations(criterion: &mut Criterion) {
    for (v4, group) in [(true, "destinations IPv4"), (false, "destinations IPv6")] {
        for size in SIZES {
            let mut random = Random::new(size as u64);
            let nets = prefixes(&mut random, v4, size);
            let mut rows: Vec<Match> = nets
                .iter()
                .enumerate()
                .map(|(index, net)| row(*net, None, index))
                .collect();
            rows.push(row(wildcard(v4), None, size));
            let table = RouteTable::new(rows).for_port(PORT);
            let src = address(&mut random, v4);
            let envelopes: Vec<Envelope> = addresses(&mut random, v4, &nets)
                .into_iter()
                .map(|dst| envelope(dst, src))
                .collect();
            measure(criterion, group, &size.to_string(), &table, &envelopes);
        }
    }
}

/// Routes that all have one destination, and differ in their sources.
fn sources(criterion: &mut Criterion) {
    for (v4, group) in [(true, "sources IPv4"), (false, "sources IPv6")] {
        for size in SIZES {
            let mut random = Random::new(size as u64);
            let nets = prefixes(&mut random, v4, size);
            let dst = address(&mut random, v4);
            let net = IpNet::from(dst);
            let mut rows: Vec<Match> = nets
                .iter()
                .enumerate()
                .map(|(index, source)| row(net, Some(*source), index))
                .collect();
            rows.push(row(net, None, size));
            let table = RouteTable::new(rows).for_port(PORT);
            let envelopes: Vec<Envelope> = addresses(&mut random, v4, &nets)
                .into_iter()
                .map(|src| envelope(dst, src))
                .collect();
            measure(criterion, group, &size.to_string(), &table, &envelopes);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = destinations, sources
}
criterion_main!(benches);
