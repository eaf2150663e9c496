//! Sessions of `forward`: replies go back to the client, from the address that it sent to, and to no one else. A
//! session ends when the file says so.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::host::Host;
use crate::common::ledger::Ledger;
use crate::common::namespace::{add_address, netns_test, run};
use crate::common::upstream::{HERE, Server, answer, forwarder, list, on};
use crate::common::{TIMEOUT, eventually};

/// The number of replies to the handler `on` that were dropped for a reason.
fn answers_dropped(ledger: &Ledger, reason: &str) -> u64 {
    ledger
        .handlers
        .get("on, replies")
        .map_or(0, |row| row.reason(reason))
}

/// Clients on two networks, each with many ports, send to an exact address, to one of a prefix and to one of the
/// wildcard, all at once, with four workers. Each gets the reply of the right upstream to each of its requests, from
/// the address and port that it sent to, in IPv4 and IPv6, whatever family the upstream has.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    netns_test!(needs = ["ip"]);
    let hosts = [
        Host::at_the_end_of("one", "10.1.0", "fd00:1", 1_500),
        Host::at_the_end_of("two", "10.2.0", "fd00:2", 1_500),
    ];
    for (number, host) in (1..).zip(&hosts) {
        host.run(&format!("ip route add default via 10.{number}.0.1"));
        host.run(&format!("ip -6 route add default via fd00:{number}::1"));
    }
    run("ip addr add 10.3.0.7/32 dev lo");
    add_address("fd00:3::7");
    let exact = Server::named("exact", "127.0.0.1:0");
    let prefix = Server::named("prefix", "[::1]:0");
    let wildcard = Server::answering(hosts[1].bind("10.2.0.2:0"), |bytes| {
        [b"wildcard:", bytes].concat()
    });
    let routes = [
        ("exact", &exact, "10.1.0.1", "[fd00:1::1]"),
        ("prefix", &prefix, "10.2.0.0/24", "[fd00:2::/64]"),
        ("wildcard", &wildcard, "0.0.0.0", "[::]"),
    ];
    let mut config = String::new();
    for (name, server, v4, v6) in routes {
        let destinations = format!("[\"{v4}:1234\", \"{v6}:1234\"]");
        let route = forwarder(name, "X", &list([server.address()]), "");
        config += &route.replace("\"X\"", &destinations);
    }
    let daemon = Daemon::of(&config).workers(4).start();
    let asked = [
        ("10.1.0.1", "10.2.0.1", "10.3.0.7"),
        ("[fd00:1::1]", "[fd00:2::1]", "[fd00:3::7]"),
    ];
    for ((exact, prefix, wildcard), from) in asked.into_iter().zip(["0.0.0.0:0", "[::]:0"]) {
        let clients: Vec<Client> = hosts
            .iter()
            .flat_map(|host| (0..30).map(|_| host.bind(from)))
            .collect();
        for round in 0..3_u8 {
            let places = [("exact", exact), ("prefix", prefix), ("wildcard", wildcard)];
            for (number, client) in clients.iter().enumerate() {
                places
                    .iter()
                    .for_each(|(_, ip)| client.send(&[number as u8, round], &format!("{ip}:1234")));
            }
            for (number, client) in clients.iter().enumerate() {
                let mut expected: BTreeSet<(Vec<u8>, SocketAddr)> = BTreeSet::new();
                for (name, ip) in places {
                    let bytes = [name.as_bytes(), b":", &[number as u8, round]].concat();
                    expected.insert((bytes, format!("{ip}:1234").parse().unwrap()));
                }
                let got: BTreeSet<(Vec<u8>, SocketAddr)> =
                    (0..3).map(|_| client.receive()).collect();
                assert_eq!(got, expected, "client {number}, round {round}");
            }
        }
    }
    let ledger = daemon.stop();
    for name in ["exact", "prefix", "wildcard"] {
        let row = ledger.handler(name);
        assert_eq!((row.handled, row.sessions.opened), (360, 120), "{name}");
        assert_eq!(
            ledger.handler(&format!("{name}, replies")).handled,
            360,
            "{name}"
        );
    }
}

/// An upstream replies twice, the second time 300 ms later, and clients follow each other meanwhile. No client gets a
/// reply to another one. The second replies are counted.
#[test]
fn a_second_answer_reaches_nobody_else() {
    netns_test!();
    let upstream = Server::with(Client::bind("127.0.0.1:0"), |socket, bytes, from| {
        socket.send_to(bytes, from).unwrap();
        let socket = socket.try_clone().unwrap();
        let again = bytes.to_vec();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            socket.send_to(&again, from).unwrap();
        });
    });
    let mut daemon = Daemon::of(&on(&upstream, "replies_max = 1"))
        .workers(2)
        .start();
    let clients: Vec<Client> = (0..100).map(|_| Client::bind("127.0.0.1:0")).collect();
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.ask(&[number as u8], HERE).0, [number as u8]);
        thread::sleep(Duration::from_millis(5));
    }
    let ledger = daemon.ledger_when(|ledger| answers_dropped(ledger, "late_reply") == 100);
    assert_eq!(ledger.handler("on").sessions.complete, 100);
    assert!(clients.iter().all(Client::is_empty));
    daemon.stop();
}

/// A request that an upstream's sample left out gets no reply. The session is complete when the requests that were sent
/// have theirs.
#[test]
fn what_was_left_out_is_not_waited_for() {
    netns_test!();
    let upstream = Client::bind("127.0.0.1:9001");
    let upstreams = "[{ address = \"127.0.0.1:9001\", sample = \"1/4\" }]";
    let mut daemon = Daemon::start(&forwarder("on", HERE, upstreams, "replies_max = 1"));
    let client = Client::bind("127.0.0.1:0");
    (0..4).for_each(|_| client.send(b"?", HERE));
    daemon.ledger_when(|ledger| ledger.received() == 4);
    let (_, socket) = upstream.receive();
    upstream.send(b"!", &socket.to_string());
    assert_eq!(client.receive().0, b"!");
    let sessions = daemon.stop().handler("on").sessions;
    assert_eq!((sessions.opened, sessions.complete), (1, 1), "{sessions:?}");
}

/// An upstream is slower than the time of a session. Its reply reaches neither the client, whose session has ended, nor
/// any other, and is counted.
#[test]
fn an_answer_after_the_end() {
    netns_test!();
    let socket = Client::bind("127.0.0.1:0");
    let late = socket.0.try_clone().unwrap();
    let (asked, by) = mpsc::channel();
    let upstream = Server::with(socket, move |socket, bytes, from| {
        if bytes == b"slow" {
            asked.send(from).unwrap();
        } else {
            socket.send_to(bytes, from).unwrap();
        }
    });
    let mut daemon = Daemon::start(&on(&upstream, "session_idle = \"1s\""));
    let [slow, other] = [0, 1].map(|_| Client::bind("127.0.0.1:0"));
    slow.send(b"slow", HERE);
    let port = by.recv_timeout(TIMEOUT).expect("it is asked");
    daemon.ledger_when(|ledger| ledger.handler("on").sessions.unanswered == 1);
    // New sessions do not get its port, and exist when the reply comes.
    let ask_both = || {
        [&other, &slow]
            .into_iter()
            .for_each(|client| assert_eq!(client.ask(b"fast", HERE).0, b"fast"));
    };
    ask_both();
    late.send_to(b"slow", port).unwrap();
    eventually("the slow reply is counted", || {
        ask_both();
        answers_dropped(&daemon.ledger_now(), "late_reply") == 1
    });
    assert!(slow.is_empty() && other.is_empty());
    daemon.stop();
}

/// Only the upstream itself may reply: not its neighbours, and not another port of its host.
#[test]
fn a_stranger_does_not_answer() {
    netns_test!();
    let upstream = Server::reporting(Client::bind("127.0.0.1:0"));
    let daemon = Daemon::start(&on(&upstream, ""));
    let client = Client::bind("127.0.0.1:0");
    let told = answer(&client, HERE);
    let port = told.split(' ').next().unwrap();
    for stranger in ["127.0.0.1:0", "127.0.0.2:0"] {
        let stranger = Client::bind(stranger);
        (0..10).for_each(|_| stranger.send(b"forged", port));
    }
    assert_eq!(
        answer(&client, HERE),
        told,
        "the same session goes on, with the true answer"
    );
    assert!(client.is_empty());
    let ledger = daemon.stop();
    assert_eq!(ledger.handler("on, replies").received, 2);
}

/// There are never more than `session_max` sessions over all workers. Unreplied sessions make room for new ones.
/// Assured ones are not evicted, however many come: each of them keeps its own port at the upstream.
#[test]
fn sessions_are_limited() {
    netns_test!();
    for workers in ["1", "4"] {
        let upstream = Server::with(Client::bind("127.0.0.1:0"), |socket, bytes, from| {
            if bytes == b"?" {
                socket.send_to(from.to_string().as_bytes(), from).unwrap();
            }
        });
        let more = "session_max = 8\nsession_share = 8\nsession_probation = \"60s\"";
        let mut daemon = Daemon::of(&on(&upstream, more)).workers(workers).start();
        let established: Vec<Client> = (0..4).map(|_| Client::bind("127.0.0.1:0")).collect();
        let ports: Vec<String> = established
            .iter()
            .map(|client| answer(client, HERE))
            .collect();
        let silent: Vec<Client> = (0..200).map(|_| Client::bind("127.0.0.1:0")).collect();
        silent
            .iter()
            .for_each(|client| client.send(b"say nothing", HERE));
        let ledger = daemon.ledger_when(|ledger| ledger.received() == 204);
        let row = ledger.handler("on");
        assert_eq!(
            (row.sessions.open, row.sessions.unreplied),
            (8, 4),
            "{workers} workers: {row:?}"
        );
        // They were evicted where they met in one worker, and refused elsewhere.
        assert_eq!(
            row.sessions.evicted + row.reason("session_limit"),
            196,
            "{workers} workers: {row:?}"
        );
        assert!(row.sessions.evicted > 0);
        // A session that gets a reply at once stays, until such sessions take all places.
        let talking: Vec<Client> = (0..60).map(|_| Client::bind("127.0.0.1:0")).collect();
        talking.iter().for_each(|client| client.send(b"?", HERE));
        let ledger = daemon.ledger_when(|ledger| ledger.received() == 264);
        assert_eq!(ledger.handler("on").sessions.open, 8);
        for (client, port) in established.iter().zip(&ports) {
            assert_eq!(answer(client, HERE), *port, "evicted");
        }
        if workers == "1" {
            let newcomer = Client::bind("127.0.0.1:0");
            daemon.ledger_when(|ledger| ledger.handler("on").sessions.unreplied == 0);
            newcomer.send(b"?", HERE);
            let before = ledger.handler("on").reason("session_limit");
            daemon.ledger_when(|ledger| ledger.handler("on").reason("session_limit") > before);
            assert!(newcomer.is_empty());
        }
        daemon.stop();
    }
}

/// One network, a /24 or a /56, has no more than its share of the sessions. Another network still gets its own.
#[test]
fn networks_share_the_sessions() {
    netns_test!(needs = ["ip"]);
    let networks = [
        [
            "127.0.5.1",
            "127.0.5.77",
            "127.0.5.255",
            "127.0.5.3",
            "127.0.6.1",
        ],
        [
            "fd00:1:2:300::1",
            "fd00:1:2:3ff::1",
            "fd00:1:2:311::1",
            "fd00:1:2:322::1",
            "fd00:1:2:400::1",
        ],
    ];
    networks[1].iter().for_each(|ip| add_address(ip));
    let upstream = Server::named("up", "127.0.0.1:0");
    let config = on(&upstream, "session_max = 100\nsession_share = 3");
    let config = config.replace("\"127.0.0.1:1234\"", "[\"127.0.0.1:1234\", \"[::1]:1234\"]");
    let mut daemon = Daemon::of(&config).workers(4).start();
    for (ips, (to, refused)) in networks.iter().zip([(HERE, 1), ("[::1]:1234", 2)]) {
        let bind =
            |ip: &&str| Client::bind(&SocketAddr::new(ip.parse().unwrap(), 5_000).to_string());
        let clients: Vec<Client> = ips.iter().map(bind).collect();
        clients[..3]
            .iter()
            .for_each(|client| assert_eq!(answer(client, to), "up:?"));
        clients[3].send(b"?", to);
        daemon.ledger_when(|ledger| ledger.handler("on").reason("session_share") == refused);
        assert_eq!(answer(&clients[4], to), "up:?");
        clients[..3]
            .iter()
            .for_each(|client| assert_eq!(answer(client, to), "up:?"));
        assert!(clients[3].is_empty());
    }
    assert_eq!(daemon.stop().handler("on").sessions.opened, 8);
}

/// After `requests_max` requests, the client's next one begins a new session, with a new port at the upstream. Replies
/// to the last one still arrive.
#[test]
fn requests_are_counted() {
    netns_test!();
    let upstream = Server::reporting(Client::bind("127.0.0.1:0"));
    let daemon = Daemon::start(&on(&upstream, "requests_max = 3"));
    let client = Client::bind("127.0.0.1:0");
    let told: Vec<String> = (0..12).map(|_| answer(&client, HERE)).collect();
    assert!(
        told.chunks(3)
            .all(|three| three.iter().all(|one| *one == three[0])),
        "{told:?}"
    );
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 4, "{told:?}");
    assert_eq!(daemon.stop().handler("on").sessions.opened, 4);
}

/// With `replies_max` = 2, the third reply to a request is dropped, also for pipelined requests: each of them gets two.
#[test]
fn replies_are_counted() {
    netns_test!();
    let upstream = Server::with(Client::bind("127.0.0.1:0"), |socket, bytes, from| {
        for number in 0..3 {
            socket.send_to(&[bytes, &[number]].concat(), from).unwrap();
        }
    });
    let mut daemon = Daemon::start(&on(&upstream, "replies_max = 2"));
    let client = Client::bind("127.0.0.1:0");
    for session in 0..3_u8 {
        client.send(&[session], HERE);
        assert_eq!(
            [client.receive().0, client.receive().0],
            [[session, 0], [session, 1]]
        );
        let late = 1 + u64::from(session);
        let ledger = daemon.ledger_when(|ledger| answers_dropped(ledger, "late_reply") == late);
        assert_eq!(ledger.handler("on").sessions.complete, late);
    }
    assert!(client.is_empty());
    daemon.stop();
}

/// A session lives as long as there is traffic and ends after `session_idle` without any.
#[test]
fn idle_sessions_end() {
    netns_test!();
    let upstream = Server::reporting(Client::bind("127.0.0.1:0"));
    let mut daemon = Daemon::start(&on(&upstream, "session_idle = \"2s\""));
    let client = Client::bind("127.0.0.1:0");
    let begun = Instant::now();
    let mut asked = begun;
    let mut last = begun;
    let mut pauses = 0;
    let mut told = BTreeSet::new();
    while begun.elapsed() < Duration::from_secs(5) {
        let before = asked;
        asked = Instant::now();
        told.insert(answer(&client, HERE));
        last = Instant::now();
        // A session can only have become idle between two requests that were this far apart.
        pauses += usize::from(last - before >= Duration::from_secs(2));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(told.len() <= 1 + pauses, "{pauses} pauses: {told:?}");
    let ended = told.len() as u64;
    let ledger = daemon.ledger_when(|ledger| ledger.handler("on").sessions.idle == ended);
    assert!(
        last.elapsed() >= Duration::from_secs(2),
        "it ended after {:?}",
        last.elapsed()
    );
    assert_eq!(ledger.handler("on").sessions.open, 0);
    answer(&client, HERE);
    assert_eq!(daemon.stop().handler("on").sessions.opened, ended + 1);
}

/// Thousands of clients send one request each, from an address of their own, at a rate that these few ports can
/// sustain. All get replies, and there are as few ports and files as before.
#[test]
fn one_shot_clients_reuse_ports() {
    netns_test!();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40399").unwrap();
    let upstream = Server::named("up", "127.0.0.1:9001");
    let mut daemon = Daemon::start(&on(&upstream, "replies_max = 1"));
    let before = daemon.open_files();
    let mut most = 0;
    // Sessions may use seven of eight ports. A port whose session had its reply is in quarantine for at least 100 ms.
    for round in 0..40_u8 {
        let begun = Instant::now();
        for number in 0..150_u8 {
            let client = Client::bind(
                &SocketAddr::new(Ipv4Addr::new(127, 1, round, number).into(), 5_000).to_string(),
            );
            assert_eq!(answer(&client, HERE), "up:?");
        }
        most = most.max(daemon.open_files());
        thread::sleep(Duration::from_millis(120).saturating_sub(begun.elapsed()));
    }
    assert!(
        most <= before + 350,
        "{before} files before, {most} at most"
    );
    let ledger = daemon.ledger_when(|ledger| ledger.handler("on").sessions.open == 0);
    let row = ledger.handler("on");
    assert_eq!(
        (row.handled, row.sessions.complete, row.dropped),
        (6_000, 6_000, 0)
    );
    assert!(row.sessions.ports <= 350, "{row:?}");
    daemon.stop();
}

/// A reply that is outstanding when the daemon is stopped reaches the client, if it comes in time. An upstream that
/// never replies does not delay the end.
#[test]
fn owed_answers_are_waited_for() {
    netns_test!();
    let upstream = Client::bind("127.0.0.1:9001");
    let config = forwarder("on", HERE, &list([upstream.address()]), "");
    // The daemon waits 50 ms for the reply. On a busy machine that may be too short now and then.
    let comes_back = (0..10).any(|_| {
        let mut daemon = Daemon::start(&config);
        let client = Client::newcomer();
        client.send(b"?", HERE);
        let (_, socket) = upstream.receive();
        daemon.signal(libc::SIGTERM);
        daemon.wait_for("SIGTERM: stopping");
        // The upstream is so slow that a daemon that does not wait has ended long before.
        thread::sleep(Duration::from_millis(5));
        upstream.send(b"!", &socket.to_string());
        let ledger = daemon.stop();
        // A reply that was counted was sent.
        let count = ledger
            .handlers
            .get("on, replies")
            .map_or(0, |row| row.handled);
        count == 1 && client.receive().0 == b"!"
    });
    assert!(comes_back);
    let daemon = Daemon::start(&config);
    Client::newcomer().send(b"?", HERE);
    upstream.receive();
    assert_eq!(daemon.stop().handler("on").sessions.open, 1);
}
