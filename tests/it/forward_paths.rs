//! Faults of the path to an upstream, to a client and back, with sessions: small MTUs, firewalls, no route, a full
//! queue. What can arrive does, what cannot is counted, and afterwards everything works again.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::host::Host;
use crate::common::ledger::{Ledger, not_sent};
use crate::common::namespace::{netns_test, run};
use crate::common::neighbour::{
    BEYOND, BEYOND_V6, Fault, HERE, HERE_V6, THERE, THERE_V6, behind, firewall, neighbour,
};
use crate::common::upstream::{Server, answer, answer_at_last, forwarder};
use crate::common::{TIMEOUT, eventually};

fn at(ip: &str, port: u16) -> String {
    SocketAddr::new(ip.parse().unwrap(), port).to_string()
}

/// A forwarder to one upstream.
fn to_one(name: &str, here: &str, there: SocketAddr) -> String {
    forwarder(name, here, &format!("\"{there}\""), "")
}

/// Two forwarders: `on` from this host to another one, and `back` from there to here.
struct BothWays {
    daemon: Daemon,
    /// A client of each forwarder, and the address that it sends to.
    clients: [(Client, String); 2],
    _servers: [Server; 2],
}

impl BothWays {
    /// The other host has the address `there`. It reaches this host at `near`, which this host itself calls `local`.
    fn start(host: &Host, there: &str, near: &str, local: &str) -> BothWays {
        let far = echo(host.bind(&at(there, 9001)));
        let close = echo(Client::bind(&at(local, 9002)));
        let on = at(local, 1234);
        let back = at(near, 1235);
        let config = to_one("on", &on, far.address()) + &to_one("back", &back, close.address());
        BothWays {
            daemon: Daemon::start(&config),
            clients: [
                (Client::bind(&at(local, 0)), on),
                (host.bind(&at(there, 0)), back),
            ],
            _servers: [far, close],
        }
    }
}

/// A server that returns each datagram to its sender.
fn echo(client: Client) -> Server {
    Server::answering(client, <[u8]>::to_vec)
}

/// Sends requests of 1,400 to 9,000 bytes, several at once, and compares the replies.
fn ask_at_length(daemon: &Daemon, client: &Client, here: &str) {
    for size in [1_400, 1_232, 9_000, 1_233, 5_000, 1_473, 2_000] {
        let sent: Vec<Vec<u8>> = (0..7)
            .map(|number| (0..size).map(|at| (at as u8) ^ number).collect())
            .collect();
        // The stop makes runs form, which are sent in one piece where possible.
        daemon.pause();
        sent.iter().for_each(|bytes| client.send(bytes, here));
        daemon.resume();
        let mut got: Vec<Vec<u8>> = sent.iter().map(|_| client.receive().0).collect();
        got.sort();
        let mut sent = sent;
        sent.sort();
        assert!(got == sent, "{size} bytes by {here}");
    }
}

/// The link to the upstream, or to the client, has an MTU of 1,280. Longer datagrams are sent in fragments, and all
/// arrive, as do the replies, in both families.
#[test]
fn a_small_link() {
    netns_test!(needs = ["ip"]);
    let next_door = neighbour(1_280);
    for (near, there, local) in [(HERE, THERE, "127.0.0.1"), (HERE_V6, THERE_V6, "::1")] {
        let ways = BothWays::start(&next_door, there, near, local);
        for (client, here) in &ways.clients {
            ask_at_length(&ways.daemon, client, here);
        }
        let ledger = ways.daemon.stop();
        for name in ["on", "back"] {
            let row = ledger.handler(name);
            assert_eq!(
                (row.handled, row.last, not_sent(row)),
                (49, 98, 0),
                "{name}"
            );
        }
    }
}

/// The small MTU is behind a router. In IPv4 the router fragments, and nothing is lost. In IPv6 it may not, and reports
/// what it drops. From then on the fragments that are sent fit, to the upstream and to the client.
#[test]
fn a_small_hop_further_on() {
    netns_test!(needs = ["ip"]);
    let router = neighbour(1_500);
    let beyond = behind(&router, 1_280);
    for (near, there, local) in [(HERE, BEYOND, "127.0.0.1"), (HERE_V6, BEYOND_V6, "::1")] {
        let ways = BothWays::start(&beyond, there, near, local);
        for (client, here) in &ways.clients {
            // The hosts resolve each other's addresses first. Until then, what is sent waits.
            assert_eq!(client.ask(b"small", here).0, b"small");
            let timeout = if there == BEYOND {
                TIMEOUT
            } else {
                Duration::from_millis(100)
            };
            let mut sent = 0;
            eventually(format!("a large answer of {here}"), || {
                assert!(there == BEYOND_V6 || sent == 0, "lost: {here}");
                sent += 1;
                client.try_ask(&[1; 1_400], here, timeout)
            });
            skip_late_answers(client, here);
            ask_at_length(&ways.daemon, client, here);
        }
        let ledger = ways.daemon.stop();
        assert_eq!(
            ["on", "back"].map(|name| not_sent(ledger.handler(name))),
            [0, 0],
            "{ledger:#?}"
        );
    }
}

/// Reads until the reply to a new request. All late replies have come before it.
fn skip_late_answers(client: &Client, here: &str) {
    client.send(b"the last", here);
    while !client.receive().0.ends_with(b"the last") {}
}

/// A session's path to its upstream has one fault after another: a firewall that drops, one that rejects, one that
/// drops replies on their way to the client, a missing route, a link that is down. The event loop continues: another
/// client of another upstream is served all the time. What is lost has its errno, and after the fault the first client
/// is served again.
#[test]
fn faults_on_the_way() {
    netns_test!(needs = ["ip", "nft"]);
    let next_door = neighbour(1_500);
    firewall();
    for there in [THERE, THERE_V6] {
        let far = Server::answering(next_door.bind(&at(there, 9001)), |bytes| {
            [b"far:", bytes].concat()
        });
        let close = Server::named("close", "127.0.0.1:0");
        let here = "127.0.0.1:1234";
        let other = "127.0.0.1:1235";
        let config = to_one("on", here, far.address()) + &to_one("other", other, close.address());
        let mut daemon = Daemon::start(&config);
        let [client, newcomer, neighbour] = [0, 1, 2].map(|_| Client::bind("127.0.0.1:0"));
        assert_eq!(answer(&client, here), "far:?");
        let mut faults = Fault::all(there == THERE_V6, 9001);
        faults.push(Fault::rule("sport 1234 drop", &["EPERM"]));
        for fault in faults {
            let before = daemon.ledger_when(|_| true);
            fault.begin();
            for _ in 0..10 {
                // One client has a session, and the other one would begin one.
                client.send(b"lost", here);
                newcomer.send(b"lost", here);
                assert_eq!(answer(&neighbour, other), "close:?");
            }
            let is_settled = |ledger: &Ledger| {
                let now = ledger.handler("on");
                let then = before.handler("on");
                let answers = |ledger: &Ledger| ledger.handler("on, replies").handled;
                let handed = now.handled - then.handled + answers(ledger) - answers(&before);
                let lost = not_sent(now) - not_sent(then) + now.dropped - then.dropped;
                now.received == then.received + 20
                    && now.last - then.last + not_sent(now) - not_sent(then) == handed
                    && lost >= 20
            };
            let ledger = daemon.ledger_when(is_settled);
            let row = ledger.handler("on");
            fault.assert_explains(before.handler("on"), row);
            assert_eq!(
                row.reason("no_port"),
                0,
                "ports were not the reason: {row:?}"
            );
            // A new session may not even find a route. That is counted as a drop reason, and as an errno of the
            // upstream.
            let found_none = row.reason("no_upstream") - before.handler("on").reason("no_upstream");
            let upstream = &ledger.upstreams[&format!("on → {}", far.address())];
            assert!(
                found_none == 0
                    || upstream
                        .not_sent
                        .keys()
                        .any(|errno| fault.errnos.contains(&errno.as_str())),
                "{upstream:?}"
            );
            fault.end();
            assert!(client.is_empty() && newcomer.is_empty());
            for client in [&client, &newcomer] {
                // For some time after a port could not be opened, none is opened.
                assert_eq!(answer_at_last(client, here), "far:?", "after {fault:?}");
            }
            for client in [&client, &newcomer] {
                skip_late_answers(client, here);
            }
        }
        daemon.stop();
    }
}

/// A device whose queue is full drops some requests. They are counted under their errno, and each of the others has a
/// reply. When there is space again, all have.
#[test]
fn a_full_queue() {
    netns_test!(needs = ["ip", "tc"]);
    let next_door = neighbour(1_500);
    for there in [THERE, THERE_V6] {
        let far = echo(next_door.bind(&at(there, 9001)));
        let here = "127.0.0.1:1234";
        let mut daemon = Daemon::start(&to_one("on", here, far.address()));
        let clients: Vec<Client> = (0..10).map(|_| Client::bind("127.0.0.1:0")).collect();
        clients
            .iter()
            .for_each(|client| assert_eq!(answer(client, here), "?"));
        run("tc qdisc add dev near root tbf rate 800kbit burst 1600 limit 6000");
        for number in 0..20_u8 {
            clients
                .iter()
                .for_each(|client| client.send(&vec![number; 1_000 + usize::from(number)], here));
        }
        let ledger = daemon.ledger_when(|ledger| ledger.received() == 210);
        let upstream = ledger.upstream(&format!("on → {}", far.address()));
        assert_eq!(upstream.sent + upstream.failed, 210);
        let lost = ledger.handler("on").not_sent.get("ENOBUFS").copied();
        assert!(
            lost.is_some_and(|lost| lost > 50 && lost == upstream.failed),
            "{ledger:#?}"
        );
        // Each request that was taken arrives, and so does its reply.
        let ledger =
            daemon.ledger_when(|ledger| ledger.handler("on, replies").handled == upstream.sent);
        assert_eq!(ledger.handler("on").last, 2 * upstream.sent);
        run("tc qdisc del dev near root");
        for client in &clients {
            while !client.is_empty() {}
            assert_eq!(answer(client, here), "?");
        }
        daemon.stop();
    }
}
