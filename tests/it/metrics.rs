//! The metrics: Prometheus' own checker accepts them, they equal the snapshot, and nothing outside the configuration
//! can add a series.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::client::Client;
use crate::common::curl::{get, post, snapshot};
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::netns_test;
use crate::common::upstream::{Server, answer, answer_at_last, forwarder, list};

const HERE: &str = "127.0.0.1:1234";

/// A daemon that has samples in most families: sessions, a shadow, drops, and two ways to one upstream.
fn busy() -> (Daemon, Vec<Server>) {
    let servers = vec![
        Server::named("a", "127.0.0.1:9001"),
        Server::named("b", "127.0.0.1:9002"),
    ];
    let upstreams = r#"["127.0.0.1:9001", { address = "127.0.0.1:9002", shadow = true },
        { address = "127.0.0.1:9003", ttl = 5 }, { address = "127.0.0.1:9003", ttl = 6 }]"#;
    let config = "[daemon]\nlatency = true\n".to_owned()
        + &forwarder("on", HERE, upstreams, "pick = \"first_alive\"\n")
        + "[[route]]\ndestination = \"0.0.0.0:1235\"\nsource = \"127.0.0.1\"\nhandler = [\"echo\", \"on\"]\n"
        + &forwarder(
            "two-ways",
            "127.0.0.1:1236",
            &list([servers[0].address()]),
            "",
        );
    let daemon = Daemon::of(&config).workers(2).start();
    let client = Client::bind("127.0.0.1:0");
    for _ in 0..5 {
        answer(&client, HERE);
    }
    answer_at_last(&client, "127.0.0.1:1236");
    Client::bind("127.0.0.2:0").send(b"from elsewhere", "127.0.0.1:1235");
    client.send(b"handled by two", "127.0.0.1:1235");
    wait_for(&daemon, 8);
    eventually("six answers are compared", || {
        let shadow = snapshot(&daemon).upstreams[1].shadow;
        shadow.is_some_and(|shadow| shadow.different >= 6)
    });
    (daemon, servers)
}

/// Waits until this many datagrams have been received.
fn wait_for(daemon: &Daemon, datagrams: u64) {
    eventually("they are received", || {
        let rows = snapshot(daemon).listeners;
        let received: u64 = rows.iter().map(|row| row.account.received).sum();
        received >= datagrams
    });
}

/// The samples: the name with its labels, and the value.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

/// `promtool check metrics`, which parses the text and knows the conventions, reports nothing. No series is there
/// twice, and the media type is the one that Prometheus expects.
#[test]
fn promtool_has_nothing_to_say() {
    netns_test!(needs = ["promtool"]);
    let (daemon, _servers) = busy();
    let answer = get(&daemon, "/metrics");
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let lines = answer
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    assert_eq!(
        samples(&answer.body).len(),
        lines,
        "a series is there twice"
    );
    let mut promtool = Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(answer.body.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && words.trim().is_empty(),
        "{words}\n{}",
        answer.body
    );
    assert_eq!(daemon.end(libc::SIGTERM), Some(0));
}

/// The scraped values are those of `/status`.
#[test]
fn metrics_are_the_snapshot() {
    netns_test!();
    let (daemon, _servers) = busy();
    let seen = snapshot(&daemon);
    let text = get(&daemon, "/metrics").body;
    let samples = samples(&text);
    let value = |name: &str| {
        *samples
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {text}")) as u64
    };
    for row in &seen.listeners {
        let label = format!("{{listener=\"{}\"}}", row.listener);
        assert_eq!(
            value(&format!("udispatch_received_datagrams_total{label}")),
            row.account.received
        );
        assert_eq!(
            value(&format!("udispatch_handled_datagrams_total{label}")),
            row.account.handled
        );
        for (reason, datagrams) in &row.account.drops {
            let label = format!("{{listener=\"{}\",reason=\"{reason}\"}}", row.listener);
            assert_eq!(
                value(&format!("udispatch_dropped_datagrams_total{label}")),
                *datagrams
            );
        }
    }
    assert_eq!(
        value("udispatch_dropped_datagrams_by_reason_total{reason=\"no_route\"}"),
        1
    );
    assert_eq!(
        value("udispatch_dropped_datagrams_by_reason_total{reason=\"session_limit\"}"),
        0
    );
    for row in &seen.handlers {
        let label = format!("{{handler=\"{}\"}}", row.handler);
        assert_eq!(
            value(&format!(
                "udispatch_handler_received_datagrams_total{label}"
            )),
            row.account.received
        );
        assert_eq!(
            value(&format!("udispatch_handler_sent_datagrams_total{label}")),
            row.counters.sent
        );
        assert_eq!(
            value(&format!("udispatch_sessions{label}")),
            row.sessions.open
        );
    }
    let workers: u64 = (0..2)
        .map(|n| {
            value(&format!(
                "udispatch_worker_received_datagrams_total{{worker=\"{n}\"}}"
            ))
        })
        .sum();
    assert_eq!(
        workers,
        seen.listeners
            .iter()
            .map(|row| row.account.received)
            .sum::<u64>()
    );
    assert_eq!(
        value("udispatch_upstream_up{handler=\"on\",upstream=\"127.0.0.1:9003 #2\"}"),
        1
    );
    let shadow = "{handler=\"on\",upstream=\"127.0.0.1:9002\",result=\"different\"}";
    assert_eq!(
        value(&format!("udispatch_upstream_shadow_replies_total{shadow}")),
        6
    );
    assert_eq!(
        (
            value("udispatch_ledger_balances"),
            value("udispatch_state{state=\"serving\"}")
        ),
        (1, 1)
    );
    assert_eq!(daemon.end(libc::SIGTERM), Some(0));
}

/// A thousand different senders add no series: the content and the sources of datagrams never become labels.
#[test]
fn strangers_make_no_series() {
    netns_test!();
    let (daemon, _servers) = busy();
    let names = |text: &str| {
        samples(text)
            .keys()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<String>>()
    };
    let before = names(&get(&daemon, "/metrics").body);
    for client in (0..1_000).map(|_| Client::bind("127.0.0.1:0")) {
        client.send(format!("{}\"\\\n", client.address()).as_bytes(), HERE);
    }
    wait_for(&daemon, 1_008);
    post(&daemon, "/drain?upstream=%22%0a");
    get(&daemon, "/status/%22?x=%0a");
    let after = names(&get(&daemon, "/metrics").body);
    let new: Vec<_> = after.difference(&before).collect();
    // A closed set may get another member, such as a reason or an errno.
    assert!(
        new.iter().all(|name| name.contains("reason=")
            || name.contains("errno=")
            || name.contains("alarm")),
        "{new:?}"
    );
    assert!(new.len() < 20, "{new:?}");
    assert_eq!(daemon.end(libc::SIGTERM), Some(0));
}

/// docs/metrics.md lists every family with its help, in order, and no other.
#[test]
fn the_documentation_lists_every_family() {
    netns_test!();
    let (daemon, _servers) = busy();
    let text = get(&daemon, "/metrics").body;
    let mut families: Vec<(String, String, String)> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            families.push((name.to_owned(), help.to_owned(), String::new()));
        } else if let Some((_, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            families.last_mut().expect("help comes first").2 = kind.to_owned();
        }
    }
    let row =
        |(name, help, kind): &(String, String, String)| format!("| `{name}` | {kind} | {help} |");
    let expected: Vec<String> = families.iter().map(row).collect();
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"))
        .unwrap_or_default();
    // Between these marks, lines may be longer than the others of a document (tidy/prose.rs).
    let table = docs
        .split_once("<!-- metrics -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- /metrics -->\n"))
        .expect("the table stands between its marks")
        .0;
    let found: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `udispatch_"))
        .collect();
    assert_eq!(
        found,
        expected,
        "docs/metrics.md is old; these are the rows:\n{}",
        expected.join("\n")
    );
    assert_eq!(daemon.end(libc::SIGTERM), Some(0));
}
