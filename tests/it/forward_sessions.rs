//! Sessions of `forward`: answers go back to who asked, from the address that was asked, and to nobody else; and a
//! session ends when the file says so.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::host::Host;
use crate::common::ledger::Ledger;
use crate::common::namespace::{add_address, netns_test, run};
use crate::common::upstream::{HERE, Server, answer, forwarder, list, on};

/// What became of the answers that the handler `on` got.
fn answers_dropped(ledger: &Ledger, reason: &str) -> u64 {
    ledger
        .handlers
        .get("on, replies")
        .map_or(0, |row| row.reason(reason))
}

/// Clients on two networks, each with many ports, ask an exact address, one of a prefix and one of the wildcard, all at
/// once, of a daemon with four workers: each gets the answer of the right upstream to each of its questions, from the
/// address and port that it asked. In IPv4 and IPv6, whatever family the upstream has.
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

/// An upstream that answers twice, the second time 300 ms later, and clients that follow each other meanwhile: none
/// gets what was meant for another. The second answers are counted.
#[test]
fn a_second_answer_reaches_nobody_else() {
    netns_test!();
    let upstream = Server::with(Client::bind("127.0.0.1:0"), |socket, bytes, from| {
        socket.send_to(bytes, from).unwrap();
        let (socket, again) = (socket.try_clone().unwrap(), bytes.to_vec());
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

/// A request that an upstream's sample left out is owed no answer: the session is complete when those that went out are
/// answered.
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

/// An upstream that is slower than a session's time: its answer reaches neither the client, whose session is over, nor
/// any other, and is counted.
#[test]
fn an_answer_after_the_end() {
    netns_test!();
    let upstream = Server::with(Client::bind("127.0.0.1:0"), |socket, bytes, from| {
        let (socket, answer) = (socket.try_clone().unwrap(), bytes.to_vec());
        let wait = Duration::from_millis(if bytes == b"slow" { 2_500 } else { 0 });
        thread::spawn(move || {
            thread::sleep(wait);
            socket.send_to(&answer, from).unwrap();
        });
    });
    let mut daemon = Daemon::start(&on(&upstream, "session_idle = \"1s\""));
    let [slow, other] = [0, 1].map(|_| Client::bind("127.0.0.1:0"));
    slow.send(b"slow", HERE);
    eventually("it is asked", || upstream.heard() == 1);
    daemon.ledger_when(|ledger| ledger.handler("on").sessions.unanswered == 1);
    // New sessions of others and of its own do not get its port, and live when the answer comes.
    let is_counted = |ledger: &Ledger| answers_dropped(ledger, "late_reply") == 1;
    eventually("the slow answer is counted", || {
        [&other, &slow]
            .into_iter()
            .for_each(|client| assert_eq!(client.ask(b"fast", HERE).0, b"fast"));
        is_counted(&daemon.ledger_now())
    });
    assert!(slow.is_empty() && other.is_empty());
    daemon.stop();
}

/// Only the upstream itself may answer: not its neighbours, not another port of its host.
#[test]
fn a_stranger_does_not_answer() {
    netns_test!();
    let upstream = Server::telling(Client::bind("127.0.0.1:0"));
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

/// Never more than `session_max`, over all workers. Sessions that were never answered make room for new ones; those
/// that were are not evicted, however many come: each of them keeps its own port at the upstream.
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
        // Displaced by each other where they met in one worker, refused where they did not.
        assert_eq!(
            row.sessions.evicted + row.reason("session_limit"),
            196,
            "{workers} workers: {row:?}"
        );
        assert!(row.sessions.evicted > 0);
        // What is answered at once stays, until all places are taken by such.
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

/// One network, a /24 or a /56, holds no more than its share of the sessions; another one still gets its own.
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

/// After `requests_max` requests the client's next one is a new session, with a new port at the upstream; answers to
/// the last one still arrive.
#[test]
fn requests_are_counted() {
    netns_test!();
    let upstream = Server::telling(Client::bind("127.0.0.1:0"));
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

/// With `replies_max` = 2 the third answer to a request is one too many, even to pipelined requests: each has two.
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
    let upstream = Server::telling(Client::bind("127.0.0.1:0"));
    let mut daemon = Daemon::start(&on(&upstream, "session_idle = \"2s\""));
    let client = Client::bind("127.0.0.1:0");
    let begun = Instant::now();
    let (mut asked, mut last, mut pauses) = (begun, begun, 0);
    let mut told = BTreeSet::new();
    while begun.elapsed() < Duration::from_secs(5) {
        let before = asked;
        asked = Instant::now();
        told.insert(answer(&client, HERE));
        last = Instant::now();
        // A session can only have idled away between two questions that were so far apart.
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

/// Thousands of clients that ask once, each from an address of its own, at a rate that so few ports can bear: all are
/// answered, and ports and files are as few as before.
#[test]
fn one_shot_clients_reuse_ports() {
    netns_test!();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40399").unwrap();
    let upstream = Server::named("up", "127.0.0.1:9001");
    let mut daemon = Daemon::start(&on(&upstream, "replies_max = 1"));
    let before = daemon.open_files();
    let mut most = 0;
    // Seven of eight ports are for sessions. One that has answered rests for 100 ms at least.
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

/// An answer that its upstream still owes when the daemon is told to end reaches the client, if it comes in time; who
/// owes one and never gives it holds nobody up.
#[test]
fn owed_answers_are_waited_for() {
    netns_test!();
    let upstream = Client::bind("127.0.0.1:9001");
    let config = forwarder("on", HERE, &list([upstream.address()]), "");
    // It has 50 ms: a busy machine may let them pass now and then.
    let comes_back = (0..10).any(|_| {
        let mut daemon = Daemon::start(&config);
        let client = Client::newcomer();
        client.send(b"?", HERE);
        let (_, socket) = upstream.receive();
        daemon.signal(libc::SIGTERM);
        daemon.wait_for("SIGTERM: stopping");
        // So slow is this upstream: a daemon that does not wait has long ended.
        thread::sleep(Duration::from_millis(5));
        upstream.send(b"!", &socket.to_string());
        let ledger = daemon.stop();
        // What was counted was sent.
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
