//! The contents and the cost of a plan, for an invented machine: nothing is bound, and no kernel is asked.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use udispatch::config::{Config, Problems};
use udispatch::handlers::KINDS;
use udispatch::net::fib::{DestinationKind, KernelRoute};
use udispatch::net::interfaces::Interface;
use udispatch::plan::Plan;
use udispatch::plan::host::Host;

use crate::common::cpu_time;

/// A machine that only has loopback, with every unicast address of 127.0.0.0/8.
fn host() -> Host {
    let name = "lo".to_owned();
    let addresses = vec!["127.0.0.1".parse().unwrap()];
    let look_up = |ip: IpAddr| {
        let kind = match ip {
            _ if ip.is_loopback() => DestinationKind::Local,
            _ if ip.is_multicast() => DestinationKind::Multicast,
            _ => return Err(io::ErrorKind::NetworkUnreachable.into()),
        };
        Ok(KernelRoute {
            kind,
            interface: 1,
            source: None,
        })
    };
    let lo = Interface {
        name,
        index: 1,
        addresses,
        broadcasts: Vec::new(),
        up: true,
    };
    Host {
        interfaces: vec![lo],
        look_up: Box::new(look_up),
    }
}

fn plan(text: &str) -> Result<Plan, Problems> {
    let config = Config::parse(Path::new("u.toml"), text, KINDS)
        .unwrap_or_else(|problems| panic!("{problems}"));
    Plan::new(&config, &host(), 1)
}

fn route(destinations: &[String], rest: &str) -> String {
    format!("[[route]]\ndestination = {destinations:?}\nhandler = \"drop\"\n{rest}\n")
}

/// As many prefixes and ports as a file may have are planned in seconds, by an unoptimized program, too. Work that they
/// share is done once, and not once for each prefix and port.
#[test]
fn many_prefixes_with_many_ports() {
    for rest in ["", "source = \"10.0.0.0/8\""] {
        let prefixes: Vec<String> = (0..65_536)
            .map(|n| format!("10.{}.{}.0/24:1-4096", n >> 8, n & 255))
            .collect();
        let begun = cpu_time();
        let plan = plan(&route(&prefixes, rest)).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(plan.listeners.len(), 4_096);
        let spent = cpu_time() - begun;
        assert!(spent < Duration::from_secs(10), "{spent:?}");
    }
}

/// Ranges of ports that all overlap and are all different would need a table of their own for each port. There is a
/// limit to that, and the error names the port with the most of them.
#[test]
fn too_many_overlapping_ranges() {
    let ranges = |count: u32| -> Vec<String> {
        let range = |n| {
            format!(
                "10.{}.{}.0/24:{}-{}",
                n >> 8,
                n & 255,
                1 + n % 2_048,
                2_049 + n % 2_047
            )
        };
        (0..count).map(range).collect()
    };
    assert!(plan(&route(&ranges(1_000), "")).is_ok());
    let Err(problems) = plan(&route(&ranges(20_000), "")) else {
        panic!("accepted")
    };
    let told = problems.to_string();
    for words in [
        "2:16",
        "ranges of ports overlap too often",
        "port 2048 alone has 20000 rows",
        "the same first and last port",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(problems.errors(), 1);
}

/// If two routes of one socket differ in `share`, each destination has one error, and not each port.
#[test]
fn a_contradiction_over_a_range_is_one() {
    let text = route(&["127.0.0.1:1000-1999".to_owned()], "share = true")
        + &route(
            &["127.0.0.1:1500-2999".to_owned()],
            "source = \"127.0.0.0/8\"",
        );
    let Err(problems) = plan(&text) else {
        panic!("accepted")
    };
    assert_eq!(problems.errors(), 1, "{problems}");
    assert!(
        problems
            .to_string()
            .contains("`share` differs between two routes of one socket, 127.0.0.1:1500")
    );
}

/// The warning about `share` for a unicast address comes once a route. For a group, which `share` is made for, there is
/// none.
#[test]
fn sharing_a_unicast_address_is_told() {
    let shared = |destination: &str| {
        route(
            &[destination.to_owned()],
            "interface = \"lo\"\nshare = true",
        )
    };
    for destination in ["127.0.0.1:5353", "0.0.0.0:5000-5009", "10.0.0.0/8:9"] {
        let notes = plan(&shared(destination))
            .unwrap_or_else(|problems| panic!("{problems}"))
            .notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        for words in [
            destination,
            "`share`",
            "every program on the port needs SO_REUSEADDR",
            "the one that bound it last",
        ] {
            assert!(notes[0].contains(words), "{words}: {notes:?}");
        }
    }
    for text in [
        shared("224.0.0.251:5353"),
        route(&["127.0.0.1:5353".to_owned()], ""),
    ] {
        assert_eq!(
            plan(&text)
                .unwrap_or_else(|problems| panic!("{problems}"))
                .notes,
            [""; 0]
        );
    }
}
