//! What once went wrong with `forward`, or would have: each test is a fault that was found by looking for it.

use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, forwarder, list};

const HERE: &str = "127.0.0.1:1234";

/// A socket that holds an answer is closed before the answer is read, since the address that it sends from has gone.
/// The worker does not wait for it for ever.
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
    let (client, other) = (Client::bind("127.0.0.1:0"), Client::bind("127.0.0.1:0"));
    client.send(b"1", HERE);
    let (_, socket) = upstream.receive();
    daemon.pause();
    upstream.send(b"one", &socket.to_string());
    run("ip addr del 10.1.0.1/32 dev lo");
    client.send(b"2", HERE);
    other.send(b"other", "127.0.0.1:1235");
    daemon.resume();
    assert_eq!(other.receive().0, b"other");
    // Whatever has become of the first session, the loop goes on.
    assert_eq!(other.ask(b"again", "127.0.0.1:1235").0, b"again");
    daemon.ledger_when(|ledger| ledger.received() == 4);
    daemon.stop();
}

/// The daemon stands still for longer than a port rests (a machine that is moved, a process that is frozen). An answer
/// that came meanwhile is not taken for one to the client who gets the port next.
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
    let (first, second) = (Client::bind("127.0.0.1:0"), Client::bind("127.0.0.1:0"));
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

/// A datagram with a forged source makes a forwarder and another daemon's echo answer each other, with a server between
/// that answers everything. Each answer has lost some of its TTL, so it ends.
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
        Err(format!("{ends:?}, after {} rounds", upstream.heard()))
    });
    let heard = upstream.heard();
    assert!((20..=64).contains(&heard), "{heard}");
    // Whatever still went round would have passed the upstream before these do.
    let client = Client::newcomer();
    (0..3).for_each(|_| assert_eq!(client.ask(b"?", HERE).0, b"?"));
    assert_eq!(upstream.heard(), heard + 3);
    here.stop();
    there.stop();
}

/// A datagram with the upstream's own address as its source: the upstream would ask itself through us, and its answer
/// would be the next question. It is passed on, and not answered.
#[test]
fn an_upstream_does_not_ask_itself() {
    netns_test!();
    let socket = Client::bind("127.0.0.1:9001");
    let daemon = Daemon::start(&forwarder("on", HERE, &list([socket.address()]), ""));
    socket.send(b"forged", HERE);
    let upstream = Server::answering(socket, <[u8]>::to_vec);
    // Each of these goes the same way behind it. When the first is answered, the upstream has answered the forged one;
    // by the end of the second, the daemon has read that answer; and the third would come after what it made of it.
    let client = Client::newcomer();
    (0..3).for_each(|_| assert_eq!(client.ask(b"?", HERE).0, b"?"));
    assert_eq!(upstream.heard(), 1 + 3);
    assert_eq!(daemon.stop().handler("on").sessions.one_way, 1);
}

/// With few source ports an upstream dies that holds most of them. Its sessions go on with another, whose ports are
/// those that they leave.
#[test]
fn sessions_take_their_ports_along() {
    netns_test!();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40039").unwrap();
    let (one, other) = (
        Server::named("one", "127.0.0.1:9001"),
        Server::named("other", "127.0.0.1:9002"),
    );
    let upstreams = list([one.address(), other.address()]);
    let daemon = Daemon::start(&forwarder("on", HERE, &upstreams, "pick = \"first_alive\""));
    // 35 ports are for sessions.
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
