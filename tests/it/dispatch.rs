//! Routing on real sockets: each datagram reaches the handler of its destination once, and the reply comes from the
//! address that it was sent to.

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::namespace::{add_address, netns_test, run};

const SEED: &str = r#"
    [[route]]
    destination = "127.0.0.1:1234"
    handler = "first"

    [[route]]
    destination = "0.0.0.0:1234"
    handler = "second"

    [handler.first]
    kind = "reply"
    text = "first"

    [handler.second]
    kind = "reply"
    text = "second"
"#;

/// Two sockets on one port are told apart by the destination, with one worker and with four. Every reply comes from the
/// address that the request was sent to, on the wildcard, too.
#[test]
fn two_addresses_two_handlers() {
    netns_test!();
    for workers in ["1", "4"] {
        let daemon = Daemon::of(SEED).workers(workers).start();
        // Each client has a new port, so that the kernel's hash reaches every worker.
        for _ in 0..40 {
            for (to, answer) in [
                ("127.0.0.1:1234", "first"),
                ("127.0.0.2:1234", "second"),
                ("127.9.9.9:1234", "second"),
            ] {
                let (bytes, from) = Client::bind("127.0.0.1:0").ask(b"a question", to);
                assert_eq!(
                    (bytes.as_slice(), from.to_string().as_str()),
                    (answer.as_bytes(), to),
                    "{workers} workers"
                );
            }
        }
        let ledger = daemon.stop();
        assert_eq!(ledger.listener("127.0.0.1:1234").handled, 40);
        assert_eq!(ledger.listener("0.0.0.0:1234").handled, 80);
        assert_eq!(ledger.handler("second").last, 80);
    }
}

/// Netcat gets another reply from each address, as the README shows it.
#[test]
fn netcat_gets_different_answers() {
    netns_test!(needs = ["nc"]);
    let daemon = Daemon::start(SEED);
    for (address, answer) in [("127.0.0.1", "first"), ("127.0.0.2", "second")] {
        let command = format!("echo question | nc -u -w1 {address} 1234");
        let output = std::process::Command::new("sh")
            .args(["-c", &command])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), answer);
    }
    assert_eq!(daemon.stop().received(), 2);
}

/// IPv6 beside IPv4 on the same port, exact and wildcard. Each family has sockets of its own, and replies come from the
/// address that was asked.
#[test]
fn both_families() {
    netns_test!(needs = ["ip"]);
    add_address("2001:db8::7");
    let daemon = Daemon::start(
        r#"
        [[route]]
        destination = ["[::1]:1234", "127.0.0.1:1234"]
        handler = "exact"
        [[route]]
        destination = ["[::]:1234", "0.0.0.0:1234"]
        handler = "rest"
        [handler.exact]
        kind = "reply"
        text = "exact"
        [handler.rest]
        kind = "reply"
        text = "rest"
    "#,
    );
    for (local, to, answer) in [
        ("[::1]:0", "[::1]:1234", "exact"),
        ("[::1]:0", "[2001:db8::7]:1234", "rest"),
        ("127.0.0.1:0", "127.0.0.1:1234", "exact"),
        ("127.0.0.1:0", "127.0.0.3:1234", "rest"),
    ] {
        let (bytes, from) = Client::bind(local).ask(b"a question", to);
        assert_eq!(
            (bytes.as_slice(), from.to_string().as_str()),
            (answer.as_bytes(), to)
        );
    }
    daemon.stop();
}

/// Prefixes, port ranges, lists, sources and interfaces have the documented precedence on real sockets: the most
/// specific address first, then the port, then the interface, then the source.
#[test]
fn precedence_on_real_sockets() {
    netns_test!();
    let routes = [
        ("exact", r#"destination = "127.1.0.1:5000""#),
        ("range", r#"destination = "127.1.0.1:4990-5010""#),
        ("long", r#"destination = "127.1.0.0/16:5000""#),
        (
            "from",
            "destination = \"127.1.0.0/16:5000\"\nsource = [\"127.0.0.8/31\", \"127.0.0.20\"]",
        ),
        (
            "lo",
            "destination = \"127.2.0.0/16:5000\"\ninterface = \"lo\"",
        ),
        ("any", r#"destination = "127.2.0.0/16:5000""#),
        (
            "list",
            r#"destination = ["127.3.0.1:5000", "127.3.0.9:5001"]"#,
        ),
        ("rest", r#"destination = "0.0.0.0:5000""#),
    ];
    let mut config = String::new();
    for (name, keys) in routes {
        config += &format!("[[route]]\nname = \"{name}\"\n{keys}\nhandler = \"{name}\"\n");
        config += &format!("[handler.{name}]\nkind = \"reply\"\ntext = \"{name}\"\n");
    }
    let daemon = Daemon::start(&config);
    for (from, to, answer) in [
        ("127.0.0.1:0", "127.1.0.1:5000", "exact"),
        ("127.0.0.9:0", "127.1.0.1:5000", "exact"),
        ("127.0.0.1:0", "127.1.0.1:4990", "range"),
        ("127.0.0.1:0", "127.1.0.1:5010", "range"),
        ("127.0.0.1:0", "127.1.0.2:5000", "long"),
        ("127.0.0.9:0", "127.1.0.2:5000", "from"),
        ("127.0.0.20:0", "127.1.255.255:5000", "from"),
        ("127.0.0.10:0", "127.1.0.2:5000", "long"),
        ("127.0.0.1:0", "127.2.0.2:5000", "lo"),
        ("127.0.0.1:0", "127.3.0.1:5000", "list"),
        ("127.0.0.1:0", "127.3.0.9:5001", "list"),
        ("127.0.0.1:0", "127.3.0.2:5000", "rest"),
    ] {
        let (bytes, sender) = Client::bind(from).ask(b"question", to);
        assert_eq!(
            (
                String::from_utf8_lossy(&bytes).as_ref(),
                sender.to_string().as_str()
            ),
            (answer, to),
            "{from} > {to}"
        );
    }
    let ledger = daemon.stop();
    assert_eq!(ledger.route("from").handled, 2);
    assert_eq!(ledger.received(), 12);
}

/// A datagram that no route takes is dropped with a reason: its source is not listed, on a listener that exists.
#[test]
fn no_route_is_counted() {
    netns_test!();
    let mut daemon = Daemon::start(
        "[[route]]\ndestination = \"127.0.0.1:1234\"\nsource = \"127.0.0.7\"\nhandler = \"echo\"\n",
    );
    Client::bind("127.0.0.1:0").send(b"stranger", "127.0.0.1:1234");
    assert_eq!(
        Client::bind("127.0.0.7:0")
            .ask(b"friend", "127.0.0.1:1234")
            .0,
        b"friend"
    );
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 2);
    assert_eq!(ledger.listener("127.0.0.1:1234").reason("no_route"), 1);
    assert_eq!(ledger.handler("echo").received, 1);
    daemon.stop();
}

/// A route with several handlers gives each datagram to each of them, in order. The route counts a datagram as handled
/// if one of them handled it.
#[test]
fn several_handlers() {
    netns_test!();
    let mut daemon = Daemon::start(
        r#"
        [[route]]
        destination = "127.0.0.1:1234"
        handler = ["echo", "print", "drop"]
        "#,
    );
    let client = Client::bind("127.0.0.1:0");
    assert_eq!(client.ask(b"hello", "127.0.0.1:1234").0, b"hello");
    assert!(
        daemon
            .line()
            .ends_with(&format!("{} > 127.0.0.1:1234 hello", client.address()))
    );
    let ledger = daemon.stop();
    assert_eq!(ledger.route("127.0.0.1:1234").handled, 1);
    assert_eq!(ledger.handler("echo").last, 1);
    assert_eq!(ledger.handler("drop").reason("discarded"), 1);
    assert_eq!(ledger.handler("print").handled, 1);
}

/// An address that this host does not have at the start is a warning, and works once it is added.
#[test]
fn an_address_that_comes_later() {
    netns_test!(needs = ["ip"]);
    let mut daemon =
        Daemon::start("[[route]]\ndestination = \"192.0.2.7:1234\"\nhandler = \"echo\"\n");
    assert!(
        daemon
            .log()
            .iter()
            .any(|line| line.contains("192.0.2.7 is not an address of this host"))
    );
    for _ in 0..2 {
        run("ip addr add 192.0.2.7/32 dev lo");
        assert_eq!(
            Client::bind("127.0.0.1:0").ask(b"up", "192.0.2.7:1234").0,
            b"up"
        );
        run("ip addr del 192.0.2.7/32 dev lo");
    }
    assert_eq!(
        daemon
            .ledger_when(|ledger| ledger.received() == 2)
            .listener("192.0.2.7:1234")
            .handled,
        2
    );
    daemon.stop();
}

/// Empty, tiny and largest datagrams are handled like any other.
#[test]
fn every_size() {
    netns_test!();
    let daemon = Daemon::start("[[route]]\ndestination = \"0.0.0.0:1234\"\nhandler = \"echo\"\n");
    let client = Client::bind("127.0.0.1:0");
    for size in [0, 1, 2, 1_199, 1_472, 9_000, 65_506, 65_507] {
        let bytes: Vec<u8> = (0..size).map(|index| index as u8).collect();
        assert_eq!(
            client.ask(&bytes, "127.0.0.5:1234").0,
            bytes,
            "{size} bytes"
        );
    }
    assert_eq!(daemon.stop().handler("echo").last, 8);
}

/// Ten thousand prefix routes on one port need one listener, and each datagram reaches its own route.
#[test]
fn ten_thousand_routes() {
    netns_test!();
    let mut config = String::new();
    for index in 0..10_000 {
        let high = index / 100;
        let low = index % 100;
        config += &format!(
            "[[route]]\nname = \"r{index}\"\ndestination = \"127.{}.{low}.0/28:1234\"\n",
            high + 10
        );
        config += "handler = \"echo\"\n";
    }
    let daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    for index in (0..10_000).step_by(997) {
        let to = format!("127.{}.{}.9:1234", index / 100 + 10, index % 100);
        assert_eq!(client.ask(b"hello", &to).1.to_string(), to);
    }
    let ledger = daemon.stop();
    assert_eq!(ledger.listeners.len(), 1);
    for index in 0..10_000 {
        assert_eq!(
            ledger.route(&format!("r{index}")).handled,
            u64::from(index % 997 == 0),
            "r{index}"
        );
    }
}
