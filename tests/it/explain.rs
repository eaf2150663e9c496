//! `udispatch explain` says what the daemon then does: the same socket, route, upstream and source address.

use crate::common::client::Client;
use crate::common::curl::ask;
use crate::common::daemon::{Daemon, Outcome, on_file};
use crate::common::namespace::netns_test;

const CONFIG: &str = r#"
[[route]]
name = "exact"
destination = "127.0.0.1:1234"
handler = "echo"

[[route]]
name = "lab"
destination = "127.1.0.0/16:1234"
source = "127.0.0.9"
handler = ["fan", "print"]

[[route]]
name = "rest"
destination = "0.0.0.0:1234"
handler = "one"

[[route]]
name = "group"
destination = "239.1.2.3:5000"
interface = "lo"
handler = "print"

[handler.fan]
kind = "forward"
upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"]
pick = "all"

[handler.one]
kind = "forward"
upstreams = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]
pick = "hash"
"#;

fn explain(options: &[&str]) -> String {
    let outcome = on_file("explain", CONFIG, options);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    outcome.output
}

#[track_caller]
fn assert_says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

/// The explanation names the socket, the route and why not the next ones, the handlers, what they send, and the source
/// of a reply.
#[test]
fn the_whole_story() {
    netns_test!();
    let exact = explain(&["--to", "127.0.0.1:1234"]);
    assert_says(
        &exact,
        &[
            "socket    127.0.0.1:1234: bound to exactly this address",
            "route     exact (",
            "test.toml:2)",
            "not       rest (",
            "matches too, with a less specific address",
            "handler   echo: sends it back",
            "sends 12 bytes from 127.0.0.1:1234 to 127.0.0.1:40000, TTL 63",
            "replies   would leave from 127.0.0.1:1234",
        ],
    );
    let lab = explain(&[
        "--to",
        "127.1.2.3:1234",
        "--from",
        "127.0.0.9:5555",
        "--payload",
        "abc",
    ]);
    assert_says(
        &lab,
        &[
            "socket    0.0.0.0:1234: a wildcard",
            "route     lab (",
            "sends 3 bytes to 127.0.0.1:9001, TTL 63",
            "sends 3 bytes to 127.0.0.1:9002, TTL 63",
            "handler   print: prints one line (text) on standard output",
            "replies   would leave from 127.1.2.3:1234",
        ],
    );
    let stranger = explain(&["--to", "127.1.2.3:1234", "--from", "127.0.0.8:5555"]);
    assert_says(
        &stranger,
        &[
            "route     rest (",
            "not       lab (",
            "only from other sources",
        ],
    );
    let refused = explain(&["--to", "127.0.0.1:1234", "--from", "127.0.0.8:53"]);
    assert_says(&refused, &["drops it as low_source_port"]);
    let group = explain(&["--to", "239.1.2.3:5000"]);
    assert_says(
        &group,
        &[
            "socket    239.1.2.3:5000 on lo: bound to this group and joined",
            "route     group (",
        ],
    );
    let nobody = explain(&["--to", "127.0.0.1:9999"]);
    assert_says(&nobody, &["socket    none"]);
}

/// The explanation names the upstream that the daemon picks, for each sender.
#[test]
fn the_upstream_is_the_one() {
    netns_test!();
    let upstreams = [9001, 9002, 9003].map(|port| Client::bind(&format!("127.0.0.1:{port}")));
    let daemon = Daemon::start(CONFIG);
    let mut seen = std::collections::HashSet::new();
    for last in 20..40 {
        let client = Client::bind(&format!("127.0.0.{last}:5555"));
        let text = explain(&[
            "--to",
            "127.7.7.7:1234",
            "--from",
            &client.address().to_string(),
        ]);
        let said = text
            .split(" bytes to 127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .unwrap();
        client.send(format!("{last}").as_bytes(), "127.7.7.7:1234");
        let upstream = upstreams
            .iter()
            .find(|upstream| upstream.address().port().to_string() == said)
            .unwrap();
        assert_eq!(upstream.receive().0, format!("{last}").as_bytes(), "{text}");
        seen.insert(said.to_owned());
    }
    assert!(seen.len() > 1, "twenty senders, and one upstream: no hash");
    assert_eq!(daemon.stop().handler("one").last, 20);
}

/// With `--ttl`, the datagram arrives with this TTL, whether a file or the running daemon explains. The daemon treats the
/// real datagram as explained.
#[test]
fn the_ttl_is_that_of_the_question() {
    netns_test!();
    let mut daemon = Daemon::start(CONFIG);
    for (ttl, is_spent) in [("1", true), ("2", false)] {
        let query = ["--to", "127.0.0.2:1234", "--ttl", ttl];
        let live = ask(&daemon, &[&["explain", "--live"], &query[..]].concat());
        for text in [explain(&query), live.output] {
            assert_says(&text, &[&format!(", TTL {ttl}, on lo")]);
            assert_eq!(text.contains("drops it as ttl_spent"), is_spent, "{text}");
        }
        let client = Client::bind("127.0.0.1:0");
        let ttl = ttl.parse().expect("a number");
        client.0.set_ttl(ttl).expect("the TTL is set");
        client.send(b"hello, world", "127.0.0.2:1234");
    }
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 2);
    let handler = ledger.handler("one");
    assert_eq!((handler.reason("ttl_spent"), handler.handled), (1, 1));
    daemon.stop();
}

/// Arguments that make no sense are usage errors with the reason.
#[test]
fn wrong_questions() {
    netns_test!();
    for (options, words) in [
        (vec!["--to", "127.0.0.1"], "invalid"),
        (vec![], "--to"),
        (
            vec!["--to", "127.0.0.1:1234", "--from", "[::1]:5"],
            "different families",
        ),
        (
            vec!["--to", "127.0.0.1:1234", "--interface", "eth9"],
            "it has: lo",
        ),
        (vec!["--to", "127.0.0.1:1234", "--ttl", "0"], "1..=255"),
    ] {
        let Outcome { code, errors, .. } = on_file("explain", CONFIG, &options);
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains(words), "{words} in {errors}");
    }
}

/// A forward that comes back to its own route is refused by `check`, `explain` and `run` alike, over one step and two.
#[test]
fn loops_are_refused() {
    netns_test!();
    let route = |port: u16, to: &str| {
        format!(
            "[[route]]\ndestination = \"127.0.0.1:{port}\"\nhandler = \"to{port}\"\n\
             [handler.to{port}]\nkind = \"forward\"\nupstreams = \"{to}\"\n"
        )
    };
    let itself = route(1001, "127.0.0.1:1001");
    let circle = route(1001, "127.0.0.1:1002") + &route(1002, "127.0.0.1:1001");
    let wildcard = route(1001, "127.0.0.5:1003")
        + "[[route]]\ndestination = \"0.0.0.0:1003\"\nhandler = \"to1001\"\n";
    let by_name = route(1001, "localhost:1001");
    for config in [&itself, &circle, &wildcard, &by_name] {
        for (command, options) in [
            ("check", vec![]),
            ("explain", vec!["--to", "127.0.0.1:1001"]),
            ("run", vec![]),
        ] {
            let outcome = on_file(command, config, &options);
            assert_eq!(outcome.code, 78, "{command}: {}", outcome.errors);
            assert_says(&outcome.errors, &["closes a loop", "test.toml:6:13"]);
        }
    }
    // Forwarding into another route of the same daemon that ends there is not a loop.
    let chain = route(1001, "127.0.0.1:1002")
        + "[[route]]\ndestination = \"127.0.0.1:1002\"\nhandler = \"drop\"\n";
    assert_eq!(on_file("check", &chain, &[]).code, 0);
}

/// Overlapping ranges of ports of equal width have no precedence, and neither has one interface under two names. Both
/// are errors that show both places. A narrower range inside a wider one has precedence.
#[test]
fn ties_are_refused() {
    netns_test!();
    let two = |first: &str, second: &str| {
        format!(
            "[[route]]\ndestination = {first}\nhandler = \"echo\"\n[[route]]\ndestination = {second}\nhandler = \"drop\"\n"
        )
    };
    let ties = [
        two("\"127.0.0.1:5000-5010\"", "\"127.0.0.1:5005-5015\""),
        two(
            "\"127.0.0.1:5000\"\ninterface = \"lo\"",
            "\"127.0.0.1:5000\"\ninterface = \"127.0.0.1\"",
        ),
    ];
    for config in ties {
        let outcome = on_file("check", &config, &[]);
        assert_eq!(outcome.code, 78, "{}", outcome.errors);
        assert_says(
            &outcome.errors,
            &[
                "by equally specific routes",
                "and this one",
                "test.toml:2:15",
            ],
        );
    }
    let narrower = two("\"127.0.0.1:5000-5010\"", "\"127.0.0.1:5005-5006\"");
    assert_eq!(on_file("check", &narrower, &[]).code, 0);
}

/// An upstream that is listed twice, and a socket that one route locks and another shares, are errors that show both
/// places.
#[test]
fn contradictions_are_refused() {
    netns_test!();
    let twice = "[[route]]\ndestination = \"127.0.0.1:1001\"\nhandler = \"on\"\n[handler.on]\nkind = \"forward\"\n\
                 upstreams = [\"127.0.0.1:9001\", \"127.0.0.1:9001\"]\n";
    let divided = "[[route]]\ndestination = \"127.0.0.1:1001\"\nshare = true\nhandler = \"echo\"\n\
                   [[route]]\ndestination = \"127.0.0.1:1001\"\nsource = \"127.0.0.9\"\nhandler = \"echo\"\n";
    for (config, words) in [
        (twice, "127.0.0.1:9001 is listed twice"),
        (divided, "`share` differs between two routes"),
    ] {
        let outcome = on_file("check", config, &[]);
        assert_eq!(outcome.code, 78, "{}", outcome.errors);
        assert_says(&outcome.errors, &[words]);
    }
}
