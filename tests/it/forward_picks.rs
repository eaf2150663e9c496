//! The upstream that a client gets, with replies: every `pick`, weights and roles, and the replies where all upstreams
//! are asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::{Client, gather};
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::ledger::{Upstream, upstream};
use crate::common::namespace::netns_test;
use crate::common::upstream::{
    Server, answer_despite_trials, forwarder, list, servers, trials_max,
};

const HERE: &str = "127.0.0.1:1234";

/// A forwarder called `on` to these servers. `each` are further keys of each server's table.
fn on(servers: &[Server], each: &[&str], more: &str) -> String {
    let table = |(server, keys): (&Server, &&str)| {
        format!("{{ address = \"{}\"{keys} }}", server.address())
    };
    let tables: Vec<String> = servers.iter().zip(each).map(table).collect();
    forwarder("on", HERE, &format!("[{}]", tables.join(", ")), more)
}

fn clients(count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::newcomer()).collect()
}

/// The server that replies to each client. A client whose request goes to a dead server on trial sends another one.
fn ways(clients: &[Client], to: &str) -> Vec<usize> {
    clients
        .iter()
        .map(|client| answer_despite_trials(client, to).parse().unwrap())
        .collect()
}

/// The number of replies that come from each of `count` servers.
fn shares(ways: &[usize], count: usize) -> Vec<usize> {
    (0..count)
        .map(|server| ways.iter().filter(|way| **way == server).count())
        .collect()
}

/// A dead server, and the number of datagrams that it was sent until it was found dead.
struct Dead {
    address: SocketAddr,
    sent: u64,
    since: Instant,
}

impl Dead {
    /// Asserts that it got nothing but its trials.
    fn assert_left_alone(&self, daemon: &mut Daemon) {
        let tried = upstream(&daemon.ledger_now(), self.address).sent - self.sent;
        let tried_max = trials_max(self.since);
        assert!(tried <= tried_max, "{tried} in {tried_max} trials");
    }
}

/// Stops a server, and sends requests until the daemon has found it dead.
fn kill(servers: &mut Vec<Server>, place: usize, clients: &[Client], daemon: &mut Daemon) -> Dead {
    let address = servers.remove(place).address();
    eventually(format!("{address} is found dead"), || {
        clients.iter().for_each(|client| client.send(b"!", HERE));
        upstream(&daemon.ledger_now(), address).dead_in > 0
    });
    // What the clients have sent so far has been forwarded when this request has its reply.
    let since = Instant::now();
    clients
        .iter()
        .for_each(|client| drop(answer_despite_trials(client, HERE)));
    let sent = upstream(&daemon.ledger_now(), address).sent;
    Dead {
        address,
        sent,
        since,
    }
}

/// `pick = "hash"`: two daemons with the same upstreams, with any number of workers, give each client the same
/// upstream. When one is lost, its clients move to others, and no other client does.
#[test]
fn hash_is_the_same_everywhere() {
    netns_test!();
    let mut servers: Vec<Server> = (0..4)
        .map(|number| Server::named(&number.to_string(), &format!("127.0.0.1:900{number}")))
        .collect();
    let config = on(&servers, &[""; 4], "pick = \"hash\"");
    let mut one = Daemon::start(&config);
    let other = Daemon::of(&config.replace(":1234", ":1235"))
        .workers(3)
        .start();
    let clients = clients(60);
    let before = ways(&clients, HERE);
    assert_eq!(ways(&clients, "127.0.0.1:1235"), before);
    assert!(
        shares(&before, 4).iter().all(|share| *share > 0),
        "{before:?}"
    );
    let dead = kill(&mut servers, 2, &clients, &mut one);
    let after = ways(&clients, HERE);
    let newcomers = ways(&self::clients(60), HERE);
    assert!(shares(&newcomers, 4)[2] == 0 && !after.contains(&2));
    dead.assert_left_alone(&mut one);
    for (before, after) in before.iter().zip(&after) {
        assert!(
            *before == 2 || after == before,
            "moved from {before} to {after}"
        );
    }
    one.stop();
    other.stop();
}

/// `hash_on` bytes of the payload: equal bytes lead to one upstream, whichever client sends them, also in shorter
/// payloads.
#[test]
fn hash_on_payload() {
    netns_test!();
    let upstreams = clients(3);
    let more = "pick = \"hash\"\nhash_on = { offset = 2, length = 3 }\nreplies = false";
    let config = forwarder(
        "on",
        HERE,
        &list(upstreams.iter().map(Client::address)),
        more,
    );
    let senders = clients(4);
    let mut known: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for workers in ["1", "2"] {
        let daemon = Daemon::of(&config).workers(workers).start();
        for number in 0..50_u8 {
            for (index, sender) in senders.iter().enumerate() {
                let bytes = [b'x', index as u8, number, b'k', b'e', index as u8, b'z'];
                let bytes = if number == 49 {
                    &bytes[..3]
                } else {
                    &bytes[..]
                };
                sender.send(bytes, HERE);
            }
            for (way, got) in gather(&upstreams, senders.len()).into_iter().enumerate() {
                for bytes in got {
                    let key = bytes[2..bytes.len().min(5)].to_vec();
                    assert_eq!(*known.entry(key).or_insert(way), way, "{bytes:?}");
                }
            }
        }
        daemon.stop();
    }
    assert_eq!(known.len(), 50);
    assert!((0..3).all(|way| known.values().any(|other| *other == way)));
}

/// Weights in turn are exact. A draining upstream gets no new client, and a backup gets some only while no other one is
/// alive.
#[test]
fn weights_drain_and_backup() {
    netns_test!();
    let mut servers = servers(4);
    let each = [
        ", weight = 3",
        ", weight = 1",
        ", drain = true",
        ", backup = true",
    ];
    let mut daemon = Daemon::start(&on(&servers, &each, ""));
    let first = clients(40);
    assert_eq!(shares(&ways(&first, HERE), 4), [30, 10, 0, 0]);
    let dead = kill(&mut servers, 0, &first, &mut daemon);
    assert_eq!(shares(&ways(&clients(20), HERE), 4), [0, 20, 0, 0]);
    dead.assert_left_alone(&mut daemon);
    let dead_too = kill(&mut servers, 0, &first, &mut daemon);
    assert_eq!(shares(&ways(&clients(20), HERE), 4), [0, 0, 0, 20]);
    dead.assert_left_alone(&mut daemon);
    dead_too.assert_left_alone(&mut daemon);
    assert_eq!(servers[0].received(), 0, "drained");
    daemon.stop();
}

/// `pick = "least_sessions"` picks the upstream with the fewest sessions for its weight.
#[test]
fn least_sessions() {
    netns_test!();
    let servers = servers(3);
    let daemon = Daemon::start(&on(
        &servers,
        &["", ", weight = 2", ""],
        "pick = \"least_sessions\"",
    ));
    // This holds at any moment, also for the first four.
    let first = clients(4);
    assert_eq!(shares(&ways(&first, HERE), 3), [1, 2, 1]);
    let others = clients(36);
    assert_eq!(shares(&ways(&others, HERE), 3), [9, 18, 9]);
    let ledger = daemon.stop();
    let sessions: Vec<u64> = servers
        .iter()
        .map(|server| upstream(&ledger, server.address()).sessions)
        .collect();
    assert_eq!(sessions, [10, 20, 10]);
}

/// `pick = "first_alive"`: all clients get the first upstream in the file, and the next one only while that is dead.
#[test]
fn first_alive() {
    netns_test!();
    let mut servers = servers(3);
    let address = servers[0].address().to_string();
    let mut daemon = Daemon::start(&on(&servers, &[""; 3], "pick = \"first_alive\""));
    let first = clients(20);
    assert_eq!(shares(&ways(&first, HERE), 3), [20, 0, 0]);
    let dead = kill(&mut servers, 0, &first, &mut daemon);
    for clients in [&first, &clients(20)] {
        assert_eq!(shares(&ways(clients, HERE), 3), [0, 20, 0]);
    }
    dead.assert_left_alone(&mut daemon);
    let revived = Server::named("0", &address);
    daemon.ledger_when(|ledger| upstream(ledger, revived.address()).dead_in == 0);
    assert_eq!(shares(&ways(&clients(20), HERE), 3), [20, 0, 0]);
    daemon.stop();
}

/// A server that replies after this time.
fn slow(name: &'static str, wait: u64) -> Server {
    Server::with(Client::bind("127.0.0.1:0"), move |socket, bytes, from| {
        let socket = socket.try_clone().unwrap();
        let answer = [name.as_bytes(), bytes].concat();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(wait));
            socket.send_to(&answer, from).unwrap();
        });
    })
}

/// All upstreams are asked, and the client gets the fastest reply to each of its requests. The other replies are
/// counted. With `replies = "all"` the client gets all of them.
#[test]
fn all_are_asked() {
    netns_test!();
    for replies in ["true", "\"first\"", "\"all\""] {
        let servers = [slow("c", 400), slow("a", 0), slow("b", 200)];
        let more = format!("pick = \"all\"\nreplies = {replies}");
        let mut daemon = Daemon::of(&on(&servers, &[""; 3], &more))
            .workers(2)
            .start();
        let clients = clients(10);
        for round in 0..2_u64 {
            clients
                .iter()
                .for_each(|client| client.send(&[b'0' + round as u8], HERE));
            for client in &clients {
                let count = if replies == "\"all\"" { 3 } else { 1 };
                let mut got: Vec<Vec<u8>> = (0..count).map(|_| client.receive().0).collect();
                got.sort();
                let round = b'0' + round as u8;
                assert_eq!(got, [[b'a', round], [b'b', round], [b'c', round]][..count]);
            }
            let answered = 30 * (round + 1);
            let name = "on, replies";
            let ledger = daemon.ledger_when(|ledger| ledger.handler(name).received == answered);
            let expected = if replies == "\"all\"" {
                0
            } else {
                20 * (round + 1)
            };
            assert_eq!(ledger.handler(name).reason("not_first"), expected);
        }
        assert!(clients.iter().all(Client::is_empty));
        let ledger = daemon.stop();
        for server in &servers {
            let Upstream {
                sent,
                answers,
                sessions,
                ..
            } = upstream(&ledger, server.address());
            assert_eq!((sent, answers, sessions), (20, 20, 10));
        }
    }
}

/// A shadow gets what is sent to the others. Its replies reach no client and are compared: equal, different, and
/// missing.
#[test]
fn a_shadow_is_compared() {
    netns_test!();
    for more in [
        "",
        "spread = \"datagram\"",
        "pick = \"all\"\nreplies = \"first\"",
    ] {
        let main = Server::named("0", "127.0.0.1:0");
        let shadow = Server::with(
            Client::bind("127.0.0.1:0"),
            |socket, bytes, from| match bytes {
                b"same" => drop(socket.send_to(b"0:same", from).unwrap()),
                b"different" => drop(socket.send_to(b"1:different", from).unwrap()),
                _ => {}
            },
        );
        let servers = [main, shadow];
        let more = format!("{more}\nsession_idle = \"1s\"");
        let mut daemon = Daemon::start(&on(&servers, &["", ", shadow = true"], &more));
        let clients = clients(12);
        for (client, what) in clients
            .iter()
            .zip(["same", "different", "missing", "missing"].iter().cycle())
        {
            assert_eq!(
                client.ask(what.as_bytes(), HERE).0,
                format!("0:{what}").into_bytes()
            );
        }
        // A reply that has not come when the session ends is missing.
        let ledger = daemon.ledger_when(|ledger| ledger.handler("on").sessions.open == 0);
        let counts = upstream(&ledger, servers[1].address());
        assert_eq!(
            (counts.sent, counts.answers, counts.shadow),
            (12, 6, [3, 3, 6]),
            "{more}"
        );
        assert_eq!(ledger.handler("on, replies").reason("shadow"), 6);
        assert!(clients.iter().all(Client::is_empty));
        daemon.stop();
    }
}
