//! Senders that get no reply, loops that end, and ports that cannot be taken: what the daemon refuses, with its name in
//! the ledger.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::common::client::Client;
use crate::common::daemon::{Daemon, on_file};
use crate::common::namespace::{netns_test, run};

const ECHO: &str = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";

/// Binds a socket with SO_REUSEADDR, and perhaps with SO_REUSEPORT.
fn bind_reusing(address: &str, with_port: bool) -> io::Result<UdpSocket> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(with_port)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A request from a low source port gets no reply unless the handler allows it.
#[test]
fn low_source_ports() {
    netns_test!();
    let config = r#"
        [[route]]
        destination = "127.0.0.1:1234"
        handler = "echo"
        [[route]]
        destination = "127.0.0.1:1235"
        handler = "open"
        [handler.open]
        kind = "echo"
        allow_low_ports = true
    "#;
    let mut daemon = Daemon::start(config);
    let service = Client::bind("127.0.0.1:53");
    service.send(b"spoofed?", "127.0.0.1:1234");
    assert_eq!(service.ask(b"allowed", "127.0.0.1:1235").0, b"allowed");
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 2);
    assert_eq!(ledger.handler("echo").reason("low_source_port"), 1);
    assert!(service.is_empty());
    daemon.stop();
}

/// A datagram that claims to come from one of the daemon's own listeners gets no reply, because two echoes would reply
/// to each other forever.
#[test]
fn own_listener_as_source() {
    netns_test!();
    // The source of the forged datagram is a second listener of the daemon, which the first one's reply would reach.
    let config = r#"
        [[route]]
        destination = ["127.0.0.1:1234", "0.0.0.0:5000"]
        share = true
        handler = "echo"
    "#;
    let mut daemon = Daemon::start(config);
    // `share` leaves SO_REUSEADDR set, so this test can send from the listener's own address.
    let forger = bind_reusing("127.0.0.2:5000", false).unwrap();
    forger.send_to(b"loop", "127.0.0.1:1234").unwrap();
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 1);
    assert_eq!(ledger.handler("echo").reason("own_source"), 1);
    daemon.stop();
}

/// An address that was given without a broadcast address, as `ip addr add` does it, and the address of a peer are
/// addresses of hosts. getifaddrs(3) has them in the place of a broadcast address, and they get replies all the same.
#[test]
fn an_address_without_a_broadcast_is_answered() {
    netns_test!(needs = ["ip"]);
    run("ip link add near type veth peer name far");
    run("ip link set near up");
    run("ip link set far up");
    run("ip addr add 10.9.0.1/24 dev near");
    run("ip addr add 10.8.0.1 peer 10.8.0.2/32 dev far");
    let daemon = Daemon::start("[[route]]\ndestination = \"0.0.0.0:1234\"\nhandler = \"echo\"\n");
    assert_eq!(
        Client::bind("10.9.0.1:0")
            .ask(b"own address", "10.9.0.1:1234")
            .0,
        b"own address"
    );
    // A peer is usually another host. Here its address belongs to this one.
    run("ip addr add 10.8.0.2/32 dev lo");
    assert_eq!(
        Client::bind("10.8.0.2:0").ask(b"peer", "10.8.0.1:1234").0,
        b"peer"
    );
    daemon.stop();
}

/// The TTL of a reply is one less than that of the request. A request with a TTL of 1 gets no reply. `ttl` overrides
/// both.
#[test]
fn answers_are_damped() {
    netns_test!();
    let config = r#"
        [[route]]
        destination = "127.0.0.1:1234"
        handler = "echo"
        [[route]]
        destination = "127.0.0.1:1235"
        handler = "far"
        [handler.far]
        kind = "echo"
        ttl = 99
    "#;
    let mut daemon = Daemon::start(config);
    let client = Client::bind("127.0.0.1:0");
    let socket = socket2::SockRef::from(&client.0);
    for (ttl, to, expected) in [
        (64, "127.0.0.1:1234", 63),
        (2, "127.0.0.1:1234", 1),
        (1, "127.0.0.1:1235", 99),
    ] {
        socket.set_ttl_v4(ttl).unwrap();
        client.send(b"how far?", to);
        assert_eq!(
            client.receive_with_ttl(1),
            [(b"how far?".to_vec(), expected)]
        );
    }
    socket.set_ttl_v4(1).unwrap();
    client.send(b"spent", "127.0.0.1:1234");
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 4);
    assert_eq!(ledger.handler("echo").reason("ttl_spent"), 1);
    daemon.stop();
}

/// Two daemons forward to each other. The loop ends by itself, after as many steps as the TTL has.
#[test]
fn a_loop_of_two_daemons_dies() {
    netns_test!();
    let forward = |from: u16, to: u16| {
        format!(
            "[[route]]\ndestination = \"127.0.0.1:{from}\"\nhandler = \"on\"\n\
             [handler.on]\nkind = \"forward\"\nupstreams = \"127.0.0.1:{to}\"\n"
        )
    };
    let mut one = Daemon::start(&forward(1000, 2000));
    let mut two = Daemon::start(&forward(2000, 1000));
    let client = Client::bind("127.0.0.1:0");
    socket2::SockRef::from(&client.0).set_ttl_v4(64).unwrap();
    client.send(b"round and round", "127.0.0.1:1000");
    // TTL 64 arrives at the first daemon, and 63 at the second; … 1 at the second, which drops it.
    let ledger = two.ledger_when(|ledger| ledger.handler("on").reason("ttl_spent") == 1);
    assert_eq!(ledger.received(), 32);
    assert_eq!(
        one.ledger_when(|ledger| ledger.received() == 32)
            .handler("on")
            .last,
        32
    );
    one.stop();
    two.stop();
}

/// A fixed reply is at most three times as long as its request, unless the handler says otherwise.
#[test]
fn amplification_is_refused() {
    netns_test!();
    let config = r#"
        [[route]]
        destination = "127.0.0.1:1234"
        handler = "careful"
        [[route]]
        destination = "127.0.0.1:1235"
        handler = "generous"
        [handler.careful]
        kind = "reply"
        text = "twelve bytes"
        [handler.generous]
        kind = "reply"
        hex = "00 ff 10 20 30 40 50 60"
        amplification_max = 8
    "#;
    let mut daemon = Daemon::start(config);
    let client = Client::bind("127.0.0.1:0");
    client.send(b"abc", "127.0.0.1:1234");
    assert_eq!(client.ask(b"abcd", "127.0.0.1:1234").0, b"twelve bytes");
    assert_eq!(
        client.ask(b"a", "127.0.0.1:1235").0,
        b"\x00\xff\x10\x20\x30\x40\x50\x60"
    );
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 3);
    assert_eq!(ledger.handler("careful").reason("amplification"), 1);
    daemon.stop();
}

/// While the daemon runs, SO_REUSEADDR lets no other socket bind over its addresses: neither to one of them, nor to the
/// wildcard, nor (over a wildcard) to a specific one.
#[test]
fn the_port_is_locked() {
    netns_test!();
    let daemon = Daemon::of(
        "[[route]]\ndestination = [\"127.0.0.1:1234\", \"0.0.0.0:5000\"]\nhandler = \"echo\"\n",
    )
    .workers(2)
    .start();
    for address in [
        "127.0.0.1:1234",
        "0.0.0.0:1234",
        "127.0.0.1:5000",
        "0.0.0.0:5000",
    ] {
        let error = bind_reusing(address, false).expect_err("the daemon's own");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{address}");
    }
    daemon.stop();
}

/// A process that has the port already is found and named, whichever overlapping address it has, and although its
/// socket lets others bind.
#[test]
fn port_owners_are_named() {
    netns_test!();
    for taken in ["127.0.0.1:1234", "0.0.0.0:1234", "[::]:1234"] {
        let _owner = bind_reusing(taken, true).unwrap();
        let outcome = on_file("run", ECHO, &["--workers", "1"]);
        assert_eq!(outcome.code, 1, "{}", outcome.errors);
        let me = format!("(pid {}), bound to {taken}", std::process::id());
        assert!(
            outcome.errors.contains("cannot bind 127.0.0.1:1234"),
            "{}",
            outcome.errors
        );
        assert!(outcome.errors.contains(&me), "{} in {}", me, outcome.errors);
    }
}
