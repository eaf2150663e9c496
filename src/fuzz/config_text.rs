//! The text of a configuration file.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::config::handlers::one;
use crate::config::{Config, Problems};
use crate::handlers::KINDS;
use crate::net::fib::{DestinationKind, KernelRoute};
use crate::net::interfaces::Interface;
use crate::plan::identity::Identity;
use crate::plan::{Plan, file_tests, host::Host};

/// Checks the parser of configuration files. A rejected text has at least one error. Each problem has its place in the
/// text and is drawn without control characters. In an accepted text, each handler can be read again from its canonical
/// text, as takeover requires, and the configuration can be planned for a host.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // The folder does not exist, so that relative paths in the text name no file.
    match Config::parse(Path::new("/nonexistent/fuzz.toml"), &text, KINDS) {
        Ok(config) => {
            assert_eq!(config.warnings.errors(), 0);
            check_problems(&config.warnings, &text);
            check_accepted(&config, &text);
        }
        Err(problems) => {
            assert!(problems.errors() > 0, "a text is rejected without an error");
            check_problems(&problems, &text);
        }
    }
}

fn check_problems(problems: &Problems, text: &str) {
    let lines = text.split('\n').count();
    for problem in problems.iter() {
        assert!(
            problem.at.start <= problem.at.end && problem.at.end <= text.len(),
            "{problem:?}"
        );
        assert!(!problem.message.is_empty(), "{problem:?}");
        let position = problems.position(problem);
        assert!(
            (1..=lines).contains(&position.line) && position.column >= 1,
            "{position:?}: {problem:?}"
        );
    }
    let drawn = problems.render(false);
    let bad = drawn
        .chars()
        .find(|char| char.is_control() && *char != '\n');
    assert_eq!(bad, None, "{drawn:?}");
    if let Some(first) = problems.iter().next() {
        let position = problems.position(first);
        let place = format!("fuzz.toml:{}:{}", position.line, position.column);
        assert!(drawn.contains(&place), "no {place} in {drawn}");
    }
}

fn check_accepted(config: &Config, text: &str) {
    assert!(!config.routes.is_empty());
    for handler in &config.handlers {
        let again = one("again", &handler.contents(), KINDS);
        let again = again.unwrap_or_else(|problems| panic!("{}: {problems}", handler.text));
        assert_eq!(again.contents(), handler.contents());
    }
    // Names of hosts are not looked up.
    let upstreams = config
        .handlers
        .iter()
        .flat_map(|handler| handler.spec.upstreams());
    let known: HashMap<_, _> = upstreams
        .map(|upstream| (upstream.to_string(), ([192, 0, 2, 99], 53).into()))
        .collect();
    let host = host();
    match Plan::with_known_addresses(config, &host, 2, &known) {
        Ok(plan) => {
            let identity = Identity::new(config, &plan);
            assert_eq!(identity.upstreams(), plan.upstreams.count());
            let json = serde_json::to_string(&identity).expect("an identity is JSON");
            assert_eq!(
                serde_json::from_str::<Identity>(&json).expect("it reads back"),
                identity
            );
            check_problems(&file_tests::run(config, &plan, &host), text);
        }
        Err(problems) => {
            assert!(problems.errors() > 0);
            check_problems(&problems, text);
        }
    }
}

/// Returns a host with a loopback and an Ethernet interface, both with addresses of each family.
fn host() -> Host {
    let interface =
        |index, name: &str, v4: [u8; 4], v6: &str, broadcast: Option<[u8; 4]>| Interface {
            index,
            name: name.to_owned(),
            addresses: vec![Ipv4Addr::from(v4).into(), v6.parse().expect("an address")],
            broadcasts: broadcast.map(Ipv4Addr::from).into_iter().collect(),
            up: true,
        };
    Host {
        interfaces: vec![
            interface(1, "lo", [127, 0, 0, 1], "::1", None),
            interface(
                2,
                "eth0",
                [192, 0, 2, 1],
                "2001:db8::1",
                Some([192, 0, 2, 255]),
            ),
        ],
        look_up: Box::new(look_up),
    }
}

fn look_up(destination: IpAddr) -> io::Result<KernelRoute> {
    let broadcast = IpAddr::from(Ipv4Addr::new(192, 0, 2, 255));
    let own = [
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    let (kind, interface) =
        if destination == broadcast || destination == IpAddr::from(Ipv4Addr::BROADCAST) {
            (DestinationKind::Broadcast, 2)
        } else if destination.is_multicast() {
            (DestinationKind::Multicast, 2)
        } else if destination.is_loopback() || own.contains(&destination) {
            (DestinationKind::Local, 1)
        } else {
            (DestinationKind::Elsewhere, 2)
        };
    Ok(KernelRoute {
        kind,
        interface,
        source: None,
    })
}
