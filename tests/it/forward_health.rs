//! Which upstreams are considered alive, by passive health or by probes, and where traffic goes meanwhile.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::common::client::{Client, gather};
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::ledger::{Ledger, upstream};
use crate::common::namespace::netns_test;
use crate::common::upstream::{
    PAUSE, Server, answer, answer_despite_trials, forwarder, list, trials_max,
};

const HERE: &str = "127.0.0.1:1234";

/// An upstream that is down refuses what its only client sends. Whatever errors the kernel has left on the session's
/// socket, the first datagram after the upstream is back arrives there, and its reply at the client. This holds again
/// and again.
#[test]
fn a_session_outlives_its_upstream() {
    netns_test!();
    for address in ["127.0.0.1:9001", "[::1]:9001"] {
        let there: SocketAddr = address.parse().unwrap();
        let mut daemon = Daemon::start(&forwarder("on", HERE, &list([there]), ""));
        let client = Client::bind("127.0.0.1:0");
        let mut refused = 0;
        for round in 0..15_u64 {
            // Sends one datagram, or several at once.
            refused += 1 + 3 * (round % 2);
            (0..=(3 * (round % 2))).for_each(|_| client.send(b"lost", HERE));
            let asked = refused + round;
            daemon.ledger_when(|ledger| {
                ledger.handler("on").received == asked && upstream(ledger, there).sent == asked
            });
            let server = Server::named("back", address);
            assert_eq!(answer(&client, HERE), "back:?");
            assert_eq!(server.received(), 1, "{address}, round {round}");
        }
        let ledger = daemon.stop();
        assert_eq!(ledger.handler("on").sessions.opened, 1);
        assert!(ledger.upstreams[&format!("on → {there}")].came_back["ECONNREFUSED"] >= 15);
    }
}

/// One of two upstreams refuses. It is found dead, and from then on the other one gets everything and loses nothing,
/// from old and new sessions. Once it is back, it is used again.
#[test]
fn refusals_make_it_dead() {
    netns_test!();
    let good = Server::named("good", "127.0.0.1:9001");
    let fickle: SocketAddr = "127.0.0.1:9002".parse().unwrap();
    let mut server = Some(Server::named("fickle", "127.0.0.1:9002"));
    let mut daemon = Daemon::start(&forwarder("on", HERE, &list([good.address(), fickle]), ""));
    let clients: Vec<Client> = (0..20).map(|_| Client::newcomer()).collect();
    let before: Vec<String> = clients.iter().map(|client| answer(client, HERE)).collect();
    assert_eq!(
        before.iter().filter(|told| *told == "fickle:?").count(),
        10,
        "{before:?}"
    );
    server.take();
    let is_dead = |ledger: &Ledger| upstream(ledger, fickle).dead_in == 1;
    eventually("it is found dead", || {
        clients.iter().for_each(|client| client.send(b"?", HERE));
        is_dead(&daemon.ledger_now())
    });
    // All clients use the other upstream now. This one gets only trials.
    let begun = Instant::now();
    let before = upstream(&daemon.ledger_now(), fickle).sent;
    let newcomers: Vec<Client> = (0..20).map(|_| Client::newcomer()).collect();
    for client in clients.iter().chain(&newcomers) {
        assert_eq!(answer_despite_trials(client, HERE), "good");
    }
    let tried = upstream(&daemon.ledger_now(), fickle).sent - before;
    assert!(tried <= trials_max(begun), "{tried} went to the dead one");
    // The trial of a dead upstream costs no client of the other one anything.
    let server = Server::named("fickle", "127.0.0.1:9002");
    daemon.ledger_when(|ledger| upstream(ledger, fickle).dead_in == 0);
    let used = (0..20)
        .filter(|_| answer(&Client::newcomer(), HERE) == "fickle:?")
        .count();
    assert_eq!((used, server.received()), (10, 10));
    daemon.stop();
}

/// The upstreams of a handler with 64 of them.
fn crowd() -> Vec<Client> {
    (0..64)
        .map(|number| Client::bind(&format!("127.0.0.1:{}", 9_000 + number)))
        .collect()
}

/// Half of 64 upstreams that get everything are stopped and restarted under traffic, four times. The other 32 get every
/// datagram, in order. The restarted ones get every datagram from the start: none is lost to an error that an earlier
/// one left behind.
#[test]
fn half_of_all_die_and_return() {
    netns_test!();
    let mut receivers: Vec<Option<Client>> = crowd().into_iter().map(Some).collect();
    let addresses: Vec<SocketAddr> = receivers.iter().flatten().map(Client::address).collect();
    let more = "pick = \"all\"";
    let mut daemon = Daemon::start(&forwarder("on", HERE, &list(addresses.clone()), more));
    let client = Client::bind("127.0.0.1:0");
    let mut next = 0_u32;
    for round in 0..4 {
        for is_down in [true, false] {
            for (receiver, address) in receivers.iter_mut().zip(&addresses).skip(1).step_by(2) {
                *receiver = (!is_down).then(|| Client::bind(&address.to_string()));
            }
            let numbers = next..next + 40;
            next += 40;
            // Sends one datagram at a time, or all at once.
            if round % 2 == 1 {
                daemon.pause();
            }
            numbers
                .clone()
                .for_each(|number| client.send(&number.to_be_bytes(), HERE));
            daemon.resume();
            for receiver in receivers.iter().flatten() {
                numbers
                    .clone()
                    .for_each(|number| assert_eq!(receiver.receive().0, number.to_be_bytes()));
            }
            // The other upstreams have their datagrams, and the daemon may still be busy with those that are down.
            daemon.ledger_when(|ledger| ledger.handler("on").received == u64::from(next));
        }
    }
    assert!(receivers.iter().flatten().all(Client::is_empty));
    let ledger = daemon.ledger_when(|ledger| ledger.handler("on").received == u64::from(next));
    for (place, address) in addresses.iter().enumerate() {
        let count = upstream(&ledger, *address);
        assert_eq!(count.sent + count.failed, u64::from(next), "{address}");
        assert!(place % 2 == 1 || count.failed == 0, "{address}");
    }
    daemon.stop();
}

/// Where each datagram goes to the next upstream in turn, the dead half of 64 upstreams is found. From then on the
/// other 32 get every datagram, each of them its share. Once the dead ones are back, all 64 get datagrams.
#[test]
fn half_of_those_in_turn_die_and_return() {
    netns_test!();
    let mut receivers = crowd();
    let addresses: Vec<SocketAddr> = receivers.iter().map(Client::address).collect();
    let mut daemon = Daemon::start(&forwarder(
        "on",
        HERE,
        &list(addresses.clone()),
        "replies = false",
    ));
    let client = Client::bind("127.0.0.1:0");
    let dead = |ledger: &Ledger| {
        addresses
            .iter()
            .map(|address| upstream(ledger, *address).dead_in)
            .sum::<u64>()
    };
    receivers.truncate(32);
    let mut total = 0;
    // The dead upstreams get nothing for five seconds, and the trial that follows costs one datagram each. A round that
    // took longer on a busy machine proves nothing, and another one is begun after all were tried.
    let got = eventually("a round while they are left alone", || {
        daemon.ledger_when(|ledger| dead(ledger) == 0);
        let begun = Instant::now();
        eventually("they are found dead", || {
            (0..64).for_each(|_| client.send(b"trial", HERE));
            total += 64;
            dead(&daemon.ledger_now()) == 32
        });
        daemon.ledger_when(|ledger| ledger.received() == total);
        let drain = || {
            receivers
                .iter()
                .for_each(|receiver| while !receiver.is_empty() {});
        };
        drain();
        (0..320_u32).for_each(|number| client.send(&number.to_be_bytes(), HERE));
        total += 320;
        daemon.ledger_when(|ledger| ledger.received() == total);
        if begun.elapsed() >= PAUSE {
            drain();
            return None;
        }
        Some(gather(&receivers, 320))
    });
    assert!(got.iter().all(|got| got.len() == 10));
    receivers.extend(
        addresses[32..]
            .iter()
            .map(|address| Client::bind(&address.to_string())),
    );
    // The error for the last datagram before the end is reported with the trial, and may count against the upstream
    // once more.
    eventually("they are found alive", || {
        daemon.ledger_when(|ledger| dead(ledger) == 0);
        (0..64).for_each(|_| client.send(b"trial", HERE));
        total += 64;
        let ledger = daemon.ledger_when(|ledger| ledger.received() == total);
        receivers
            .iter()
            .for_each(|receiver| while !receiver.is_empty() {});
        dead(&ledger) == 0
    });
    (0..640_u32).for_each(|number| client.send(&number.to_be_bytes(), HERE));
    let got: Vec<usize> = gather(&receivers, 640).iter().map(Vec::len).collect();
    assert!(got.iter().all(|got| *got == 10), "{got:?}");
    daemon.stop();
}

/// A server that can be set not to reply to probes, and replies to everything else with its name.
fn probed(name: &'static str, address: &str) -> (Server, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let server = Server::with(Client::bind(address), move |socket, bytes, from| {
        let answer = match bytes {
            b"ping" if well.load(Ordering::Relaxed) => "well: pong",
            b"ping" => "ill",
            _ => name,
        };
        let _ = socket.send_to(answer.as_bytes(), from);
    });
    (server, is_well)
}

/// The number of 20 new clients that get a reply from each of two servers.
fn shares(names: [&str; 2]) -> [usize; 2] {
    let told: Vec<Vec<u8>> = (0..20)
        .map(|_| Client::newcomer().ask(b"who?", HERE).0)
        .collect();
    names.map(|name| told.iter().filter(|told| *told == name.as_bytes()).count())
}

/// Probes over UDP whose reply has to contain some bytes. After `fall` wrong replies the upstream is dead, and after
/// `rise` right ones it is alive. A dead one gets no new session. When none is alive, `fail_open` decides between all
/// and none, which the ledger shows.
#[test]
fn probes_over_udp() {
    netns_test!();
    for fail_open in [true, false] {
        let (one, one_is_well) = probed("one", "127.0.0.1:9001");
        let (two, two_is_well) = probed("two", "127.0.0.1:9002");
        let health = format!(
            "health = {{ probe = \"udp\", send = \"ping\", expect = \"pong\", interval = \"100ms\", fall = 3, rise = 2, \
             fail_open = {fail_open} }}"
        );
        let more = format!("{health}\nreplies_max = 1");
        let mut daemon = Daemon::start(&forwarder(
            "on",
            HERE,
            &list([one.address(), two.address()]),
            &more,
        ));
        assert_eq!(shares(["one", "two"]), [10, 10]);
        two_is_well.store(false, Ordering::Relaxed);
        daemon.ledger_when(|ledger| upstream(ledger, two.address()).dead_in == 1);
        assert_eq!(shares(["one", "two"]), [20, 0]);
        one_is_well.store(false, Ordering::Relaxed);
        let all_dead = |ledger: &Ledger| {
            [&one, &two]
                .iter()
                .all(|one| upstream(ledger, one.address()).dead_in == 1)
        };
        daemon.ledger_when(all_dead);
        if fail_open {
            assert_eq!(shares(["one", "two"]), [10, 10]);
        } else {
            let client = Client::newcomer();
            (0..20).for_each(|_| client.send(b"who?", HERE));
            daemon.ledger_when(|ledger| ledger.handler("on").reason("no_upstream") == 20);
            assert!(client.is_empty());
        }
        [&one_is_well, &two_is_well]
            .iter()
            .for_each(|is_well| is_well.store(true, Ordering::Relaxed));
        daemon.ledger_when(|ledger| {
            [&one, &two]
                .iter()
                .all(|one| upstream(ledger, one.address()).dead_in == 0)
        });
        assert_eq!(shares(["one", "two"]), [10, 10]);
        let ledger = daemon.stop();
        assert_eq!(
            ledger.handler("on").reason("no_upstream"),
            if fail_open { 0 } else { 20 }
        );
    }
}

/// Probes over TCP, to the same port. An upstream that accepts connections is alive, whether it replies over UDP or
/// not.
#[test]
fn probes_over_tcp() {
    netns_test!();
    let servers = [("one", "127.0.0.1:9001"), ("two", "127.0.0.1:9002")]
        .map(|(name, at)| Server::named(name, at));
    let _one = TcpListener::bind(servers[0].address()).unwrap();
    let two = TcpListener::bind(servers[1].address()).unwrap();
    let more =
        "health = { probe = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }\nreplies_max = 1";
    let mut daemon = Daemon::start(&forwarder(
        "on",
        HERE,
        &list(servers.iter().map(Server::address)),
        more,
    ));
    let names = ["one:who?", "two:who?"];
    assert_eq!(shares(names), [10, 10]);
    drop(two);
    daemon.ledger_when(|ledger| upstream(ledger, servers[1].address()).dead_in == 1);
    assert_eq!(shares(names), [20, 0]);
    let _two = TcpListener::bind(servers[1].address()).unwrap();
    daemon.ledger_when(|ledger| upstream(ledger, servers[1].address()).dead_in == 0);
    assert_eq!(shares(names), [10, 10]);
    daemon.stop();
}
