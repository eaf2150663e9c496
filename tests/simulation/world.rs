//! An invented host, and random configurations for it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::IpNet;
use udispatch::config::{Config, InterfaceRef, Kind};
use udispatch::dispatch::random::Random;
use udispatch::dispatch::reply_policy::ReplyPolicy;
use udispatch::dispatch::route_table::{Match, RouteId};
use udispatch::handlers::KINDS;
use udispatch::net::fib::{DestinationKind, KernelRoute};
use udispatch::net::interfaces::Interface;
use udispatch::plan::Plan;
use udispatch::plan::host::Host;

use crate::witness;

pub const LO: u32 = 1;
pub const ETH0: u32 = 2;
pub const ETH1: u32 = 3;

/// Each interface with its name, addresses and broadcast addresses.
const INTERFACES: [(u32, &str, &[&str], &[&str]); 3] = [
    (LO, "lo", &["127.0.0.1", "::1"], &[]),
    (
        ETH0,
        "eth0",
        &["192.0.2.1", "2001:db8::1", "2001:db8::2"],
        &["192.0.2.255"],
    ),
    (
        ETH1,
        "eth1",
        &["10.0.0.1", "10.0.0.2", "10.1.0.1", "2001:db8:1::1"],
        &["10.0.0.255"],
    ),
];

/// Destinations of routes. Ranges of equal width do not overlap, because the rule does not rank those.
const DESTINATIONS: &[&str] = &[
    "127.0.0.1:5000",
    "192.0.2.1:5000",
    "192.0.2.1:5000-5001",
    "192.0.2.0/24:5000",
    "10.0.0.1:5001",
    "10.0.0.2:5000",
    "10.0.0.0/16:5000-5001",
    "10.0.0.0/8:5000",
    "0.0.0.0:5000",
    "0.0.0.0:5001",
    "0.0.0.0:5000-5001",
    "192.0.2.255:5000",
    "10.0.0.255:5000-5001",
    "255.255.255.255:5000",
    "239.1.2.3:5000",
    "239.1.2.3:5001",
    "239.9.9.9:5000-5001",
    "[::1]:5000",
    "[2001:db8::1]:5000",
    "[2001:db8::/64]:5000-5001",
    "[2001:db8::/32]:5000",
    "[::]:5000",
    "[::]:5001",
    "[ff02::fb]:5000",
    "[ff05::1]:5000-5001",
];

/// Only wildcards. A route is then fixed without a look-up, and a listener learns least about its datagrams.
const WILDCARDS: &[&str] = &[
    "0.0.0.0:5000",
    "0.0.0.0:5001",
    "0.0.0.0:5000-5001",
    "[::]:5000",
    "[::]:5001",
];

const SOURCES_V4: &[&str] = &[
    "10.0.0.7",
    "10.0.0.0/24",
    "10.0.0.0/8",
    "192.0.2.9",
    "192.0.2.0/24",
    "127.0.0.0/8",
];
const SOURCES_V6: &[&str] = &["2001:db8::7", "2001:db8::/64", "2001:db8::/32", "::1"];

pub fn pick<'a, T>(random: &mut Random, of: &'a [T]) -> &'a T {
    &of[random.below(of.len())]
}

/// Returns true once in this many times, on average.
pub fn once_in(random: &mut Random, times: usize) -> bool {
    random.below(times) == 0
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The host of the simulation.
pub fn host() -> Host {
    let interface =
        |(index, name, addresses, broadcasts): (u32, &str, &[&str], &[&str])| Interface {
            index,
            name: name.to_owned(),
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            broadcasts: broadcasts
                .iter()
                .map(|text| text.parse::<Ipv4Addr>().expect("an address"))
                .collect(),
            up: true,
        };
    let look_up = |asked: IpAddr| {
        let has = |list: &[&str]| list.iter().any(|text| ip(text) == asked);
        let local = INTERFACES
            .iter()
            .find(|(_, _, addresses, _)| has(addresses))
            .map(|found| found.0);
        let broadcast = INTERFACES
            .iter()
            .find(|(_, _, _, broadcasts)| has(broadcasts))
            .map(|found| found.0);
        let (kind, interface) = match (local, broadcast) {
            (Some(interface), _) => (DestinationKind::Local, interface),
            (_, Some(interface)) => (DestinationKind::Broadcast, interface),
            _ if asked.is_multicast() => (DestinationKind::Multicast, ETH0),
            _ if asked == ip("255.255.255.255") => (DestinationKind::Broadcast, ETH0),
            _ => (DestinationKind::Elsewhere, ETH0),
        };
        Ok(KernelRoute {
            kind,
            interface,
            source: None,
        })
    };
    Host {
        interfaces: INTERFACES.into_iter().map(interface).collect(),
        look_up: Box::new(look_up),
    }
}

/// The first address of a family on an interface.
pub fn address_of(interface: u32, v4: bool) -> IpAddr {
    let (_, _, addresses, _) = INTERFACES
        .into_iter()
        .find(|found| found.0 == interface)
        .expect("an interface");
    addresses
        .iter()
        .map(|text| ip(text))
        .find(|ip| ip.is_ipv4() == v4)
        .expect("an address of each family")
}

/// Which upstreams get a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    All,
    RoundRobin,
    Random,
    Source,
    SourceAddress,
    Destination,
}

/// What a handler is to do, in the terms of the model.
#[derive(Debug, Clone)]
pub enum Spec {
    Echo(ReplyPolicy),
    Reply {
        bytes: Vec<u8>,
        amplification_max: usize,
        reply_policy: ReplyPolicy,
    },
    Print,
    Drop,
    Forward {
        sockets: usize,
        pick: Pick,
        ttl: Option<u8>,
    },
    Witness {
        salt: u64,
    },
}

/// A configuration, its plan for the host, and its meaning in the terms of the model.
pub struct World {
    pub text: String,
    pub config: Config,
    pub plan: Plan,
    /// By the number of the handler.
    pub specs: Vec<Spec>,
    /// The rows of the route table, made from the configuration and not from the plan.
    pub rows: Vec<Match>,
    pub host: Host,
}

impl World {
    /// A random configuration that is accepted.
    pub fn new(random: &mut Random) -> World {
        let mut kinds: Vec<Kind> = KINDS.to_vec();
        kinds.push(witness::KIND);
        let host = host();
        for _ in 0..100 {
            let (text, named) = write(random);
            let Ok(config) = Config::parse(Path::new("simulated.toml"), &text, &kinds) else {
                continue;
            };
            let workers = 1 + random.below(3);
            let Ok(plan) = Plan::new(&config, &host, workers) else {
                continue;
            };
            let spec = |name: &str| named[name[1..].parse::<usize>().expect("hN")].clone();
            let specs = config
                .handlers
                .iter()
                .map(|handler| spec(&handler.name))
                .collect();
            let rows = rows(&config);
            return World {
                text,
                config,
                plan,
                specs,
                rows,
                host,
            };
        }
        panic!("of 100 random configurations none is accepted");
    }
}

/// The text of a configuration, and its handlers h0, h1, ...
fn write(random: &mut Random) -> (String, Vec<Spec>) {
    let mut text = String::new();
    let specs: Vec<Spec> = (0..=random.below(6))
        .map(|number| handler(random, &mut text, number))
        .collect();
    let (pool, routes) = if once_in(random, 4) {
        (WILDCARDS, 3)
    } else {
        (DESTINATIONS, 9)
    };
    for _ in 0..=random.below(routes) {
        let many = 1 + random.below(3);
        let destinations: Vec<&str> = (0..many).map(|_| *pick(random, pool)).collect();
        let _ = writeln!(text, "[[route]]\ndestination = {destinations:?}");
        let needs_interface = destinations.iter().any(|one| one.starts_with("[ff02"));
        if needs_interface || once_in(random, 4) {
            let _ = writeln!(
                text,
                "interface = \"{}\"",
                pick(random, &["lo", "eth0", "eth1", "eth0"])
            );
        }
        if once_in(random, 3) {
            let has = |v4| destinations.iter().any(|one| one.starts_with('[') != v4);
            let v4 = has(true);
            let v6 = has(false);
            let mut sources: Vec<&str> = Vec::new();
            for _ in 0..=random.below(2) {
                sources.extend(v4.then(|| pick(random, SOURCES_V4)));
                sources.extend(v6.then(|| pick(random, SOURCES_V6)));
            }
            sources.sort_unstable();
            sources.dedup();
            let _ = writeln!(text, "source = {sources:?}");
        }
        let first = random.below(specs.len());
        let several = 1 + random.below(specs.len().min(3));
        let names: Vec<String> = (0..several)
            .map(|step| format!("h{}", (first + step) % specs.len()))
            .collect();
        let _ = writeln!(text, "handler = {names:?}\n");
    }
    (text, specs)
}

fn handler(random: &mut Random, text: &mut String, number: usize) -> Spec {
    let _ = writeln!(text, "[handler.h{number}]");
    match random.below(7) {
        0 => {
            let _ = writeln!(text, "kind = \"echo\"");
            Spec::Echo(reply_policy(random, text))
        }
        1 => {
            let len = *pick(random, &[1, 3, 20, 700, 60_000]);
            let bytes = vec![b'a' + number as u8; len];
            let amplification_max = *pick(random, &[1, 3, 65_507]);
            let _ = writeln!(
                text,
                "kind = \"reply\"\ntext = \"{}\"",
                String::from_utf8_lossy(&bytes)
            );
            let _ = writeln!(text, "amplification_max = {amplification_max}");
            Spec::Reply {
                bytes,
                amplification_max,
                reply_policy: reply_policy(random, text),
            }
        }
        2 => {
            let _ = writeln!(text, "kind = \"print\"\nformat = \"hex\"");
            Spec::Print
        }
        3 => {
            let _ = writeln!(text, "kind = \"drop\"");
            Spec::Drop
        }
        4 => {
            let salt = random.number() >> 16;
            let whole = once_in(random, 2);
            let _ = writeln!(text, "kind = \"witness\"\nsalt = {salt}\nwhole = {whole}");
            Spec::Witness { salt }
        }
        _ => forward(random, text, number),
    }
}

fn reply_policy(random: &mut Random, text: &mut String) -> ReplyPolicy {
    let reply_policy = ReplyPolicy {
        allow_low_ports: once_in(random, 2),
        reply_to_groups: once_in(random, 2),
        ttl: once_in(random, 3).then(|| 1 + random.below(255) as u8),
    };
    let _ = writeln!(
        text,
        "allow_low_ports = {}\nreply_to_groups = {}",
        reply_policy.allow_low_ports, reply_policy.reply_to_groups
    );
    if let Some(ttl) = reply_policy.ttl {
        let _ = writeln!(text, "ttl = {ttl}");
    }
    reply_policy
}

fn forward(random: &mut Random, text: &mut String, number: usize) -> Spec {
    const PICKS: &[(Pick, &str)] = &[
        (Pick::All, "pick = \"all\""),
        (Pick::RoundRobin, "pick = \"round_robin\""),
        (Pick::Random, "pick = \"random\""),
        (Pick::Source, "pick = \"hash\""),
        (
            Pick::SourceAddress,
            "pick = \"hash\"\nhash_on = \"source_address\"",
        ),
        (
            Pick::Destination,
            "pick = \"hash\"\nhash_on = \"destination\"",
        ),
    ];
    let sockets = 1 + random.below(4);
    let (pick, words) = *pick(random, PICKS);
    let upstreams: Vec<String> = (0..sockets)
        .map(|socket| format!("198.51.100.{number}:{}", 9000 + socket))
        .collect();
    let _ = writeln!(
        text,
        "kind = \"forward\"\nreplies = false\nupstreams = {upstreams:?}\n{words}"
    );
    let ttl = once_in(random, 3).then(|| 1 + random.below(255) as u8);
    if let Some(ttl) = ttl {
        let _ = writeln!(text, "ttl = {ttl}");
    }
    Spec::Forward { sockets, pick, ttl }
}

/// A row for each destination and each source of its family.
fn rows(config: &Config) -> Vec<Match> {
    let mut rows = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let interface = route
            .interface
            .as_ref()
            .map(|interface| match &interface.value {
                InterfaceRef::Name(name) => {
                    INTERFACES
                        .iter()
                        .find(|one| one.1 == name)
                        .expect("an interface")
                        .0
                }
                InterfaceRef::Address(_) => unreachable!("interfaces are named"),
            });
        for destination in &route.destinations {
            let net = destination.value.net;
            let ports = destination.value.ports;
            let row = |source| Match {
                net,
                ports: (ports.first(), ports.last()),
                interface,
                source,
                route: RouteId(index as u32),
            };
            let family = |source: &&IpNet| source.addr().is_ipv4() == net.addr().is_ipv4();
            let sources: Vec<IpNet> = route.sources.iter().map(|source| source.value).collect();
            if sources.is_empty() {
                rows.push(row(None));
            }
            rows.extend(
                sources
                    .iter()
                    .filter(family)
                    .map(|source| row(Some(*source))),
            );
        }
    }
    rows
}
