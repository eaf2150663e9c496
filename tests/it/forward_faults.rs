//! What once failed in `forward`, or would have failed. Each test is a fault that was found by a search for it.

use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, forwarder, list};

const HERE: &str = "127.0.0.1:1234";

/// A socket that holds a reply is closed before the reply is read, because its source address has gone. The worker does
/// not wait forever for the reply.
#[test]
fn a_lane_is_closed_while_it_waits_to_be_read() {
    netns_test!(needs = ["ip"]);
    run("ip addr add 10.1.0.1/32 dev lo");
    run("ip addr add 10.2.0.1/32 dev lo");
    let upstream = Client::bind("10.2.0.1:9001");
    let config = forwarder(
        "on",
        HERE,
        "[{ address = \"10.2.0.1:9001\", source = \"10.1.0.1\" }]",
        "",
    ) + "[[route]]\ndestination = \"127.0.0.1:1235\"\nhandler = \"echo\"\n";
    let mut daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    let other = Client::bind("127.0.0.1:0");
    client.send(b"1", HERE);
    let (_, socket) = upstream.receive();
    daemon.pause();
    upstream.send(b"one", &socket.to_string());
    run("ip addr del 10.1.0.1/32 dev lo");
    client.send(b"2", HERE);
    other.send(b"other", "127.0.0.1:1235");
    daemon.resume();
    assert_eq!(other.receive().0, b"other");
    // Whatever has happened to the first session, the event loop continues.
    assert_eq!(other.ask(b"again", "127.0.0.1:1235").0, b"again");
    daemon.ledger_when(|ledger| ledger.received() == 4);
    daemon.stop();
}

/// The daemon is stopped for longer than the quarantine of a port, as when a machine is moved or a process is frozen. A
/// reply that came meanwhile does not go to the client that uses the port next.
#[test]
fn an_answer_that_waited_reaches_nobody_else() {
    netns_test!();
    let upstream = Client::bind("127.0.0.1:9001");
    let daemon = Daemon::start(&forwarder(
        "on",
        HERE,
        &list([upstream.address()]),
        "replies_max = 1",
    ));
    let first = Client::bind("127.0.0.1:0");
    let second = Client::bind("127.0.0.1:0");
    first.send(b"?", HERE);
    let (_, socket) = upstream.receive();
    upstream.send(b"for the first", &socket.to_string());
    assert_eq!(first.receive().0, b"for the first");
    daemon.pause();
    upstream.send(b"for the first, again", &socket.to_string());
    second.send(b"!", HERE);
    thread::sleep(Duration::from_millis(2_200));
    daemon.resume();
    let (_, again) = upstream.receive();
    assert_eq!(again, socket, "the port is used again");
    upstream.send(b"for the second", &socket.to_string());
    assert_eq!(second.receive().0, b"for the second");
    assert_eq!(daemon.stop().handler("on, replies").reason("late_reply"), 1);
}

/// A datagram with a forged source makes a forwarder and the echo of another daemon reply to each other, with a server
/// between them that replies to everything. Each reply has lost some of its TTL, so the loop ends.
#[test]
fn answers_that_are_answered_come_to_an_end() {
    netns_test!();
    const THERE: &str = "127.0.0.1:1235";
    let upstream = Server::answering(Client::bind("127.0.0.1:9001"), <[u8]>::to_vec);
    let mut here = Daemon::start(&forwarder("on", HERE, &list([upstream.address()]), ""));
    here.pause();
    Client::bind(THERE).send(b"forged", HERE);
    let mut there = Daemon::start(&format!(
        "[[route]]\ndestination = \"{THERE}\"\nhandler = \"echo\"\n"
    ));
    here.resume();
    // The one datagram goes round until a daemon may not send it any more.
    eventually("its TTL is spent", || {
        let ends = [&mut here, &mut there].map(|daemon| {
            let ledger = daemon.ledger_now();
            ledger
                .handlers
                .values()
                .map(|row| row.reason("ttl_spent"))
                .sum::<u64>()
        });
        if ends.iter().sum::<u64>() == 1 {
            return Ok(());
        }
        Err(format!("{ends:?}, after {} rounds", upstream.received()))
    });
    let heard = upstream.received();
    assert!((20..=64).contains(&heard), "{heard}");
    // Any datagram that still went round would have passed the upstream before these do.
    let client = Client::newcomer();
    (0..3).for_each(|_| assert_eq!(client.ask(b"?", HERE).0, b"?"));
    assert_eq!(upstream.received(), heard + 3);
    here.stop();
    there.stop();
}

/// A datagram has the address of the upstream as its source. A reply would be the next request, so that the upstream
/// would talk to itself through the daemon. The datagram is forwarded, and gets no reply.
#[test]
fn an_upstream_does_not_ask_itself() {
    netns_test!();
    let socket = Client::bind("127.0.0.1:9001");
    let daemon = Daemon::start(&forwarder("on", HERE, &list([socket.address()]), ""));
    socket.send(b"forged", HERE);
    let upstream = Server::answering(socket, <[u8]>::to_vec);
    // Each of these requests takes the same path behind the forged one. When the first has its reply, the upstream has
    // replied to the forged one. At the end of the second, the daemon has read that reply. The third comes after
    // whatever the daemon made of it.
    let client = Client::newcomer();
    (0..3).for_each(|_| assert_eq!(client.ask(b"?", HERE).0, b"?"));
    assert_eq!(upstream.received(), 1 + 3);
    assert_eq!(daemon.stop().handler("on").sessions.one_way, 1);
}

/// With few source ports, an upstream dies that holds most of them. Its sessions continue with another one, and use the
/// ports that they release.
#[test]
fn sessions_take_their_ports_along() {
    netns_test!();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40039").unwrap();
    let one = Server::named("one", "127.0.0.1:9001");
    let other = Server::named("other", "127.0.0.1:9002");
    let upstreams = list([one.address(), other.address()]);
    let daemon = Daemon::start(&forwarder("on", HERE, &upstreams, "pick = \"first_alive\""));
    // Sessions may use 35 ports.
    let clients: Vec<Client> = (0..25)
        .map(|number| Client::bind(&format!("127.0.1.{number}:5000")))
        .collect();
    clients
        .iter()
        .for_each(|client| assert_eq!(client.ask(b"?", HERE).0, b"one:?"));
    drop(one);
    for client in &clients {
        let told = eventually(format!("{} finds a port", client.address()), || {
            client.try_ask(b"?", HERE, Duration::from_millis(50))
        });
        assert_eq!(told, b"other:?");
    }
    daemon.stop();
}
