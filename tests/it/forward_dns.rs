//! `forward` in front of DNS: real servers reply to real queries, one of them by way of the PROXY protocol. Upstreams
//! by name, whose address changes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::{Daemon, on_file};
use crate::common::eventually;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, answer, forwarder};

const HERE: &str = "127.0.0.1:1234";
const A: u16 = 1;
const AAAA: u16 = 28;

/// A program that runs until it is dropped.
struct Program(Child);

impl Program {
    fn start(words: &[&str]) -> Program {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Program(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("{words:?}: {error}")),
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A query for `www.example.test` (RFC 1035 4.1).
fn query(id: u16, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in ["www", "example", "test", ""] {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes
}

/// Returns the id of a response without error, and the address at its end. A single answer has nothing after it.
fn response(bytes: &[u8], address_len: usize) -> (u16, Vec<u8>) {
    let is_answer = bytes[2] & 0x80 != 0 && bytes[3] & 0x0f == 0 && bytes[6..8] == [0, 1];
    assert!(is_answer, "{bytes:?}");
    (
        u16::from_be_bytes([bytes[0], bytes[1]]),
        bytes[bytes.len() - address_len..].to_vec(),
    )
}

/// Queries a server directly until it responds.
fn wait_until_served(question: &[u8], at: &str) {
    let client = Client::bind(if at.starts_with('[') {
        "[::1]:0"
    } else {
        "127.0.0.1:0"
    });
    eventually(format!("an answer of {at}"), || {
        client.try_ask(question, at, Duration::from_millis(100))
    });
}

/// Knot with a zone of its own, on loopback.
fn knot(directory: &Path) -> Program {
    let at = directory.display();
    let zone = "$ORIGIN example.test.\n@ 60 SOA ns admin 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 127.0.0.1\n\
                * 60 A 192.0.2.1\n* 60 AAAA 2001:db8::1\n";
    let config = format!(
        "server:\n    rundir: \"{at}\"\n    listen: [ \"127.0.0.1@5301\", \"::1@5301\" ]\n    udp-workers: 1\n    \
         tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: \"{at}\"\nzone:\n  - domain: example.test\n    \
         storage: \"{at}\"\n    file: zone\n"
    );
    std::fs::write(directory.join("zone"), zone).unwrap();
    std::fs::write(directory.join("knot.conf"), config).unwrap();
    let program = Program::start(&["knotd", "-c", directory.join("knot.conf").to_str().unwrap()]);
    wait_until_served(&query(1, A), "127.0.0.1:5301");
    wait_until_served(&query(1, A), "[::1]:5301");
    program
}

/// Two upstreams of a real server get 1,000 queries, each from a port of its own. Of the two questions that resolvers
/// send at once from one port, each gets its own reply. All replies are right, and every session has ended at the end.
#[test]
fn a_real_server() {
    netns_test!(needs = ["knotd"]);
    let directory = tempfile::tempdir().unwrap();
    let _knot = knot(directory.path());
    let config = forwarder(
        "on",
        HERE,
        "[\"127.0.0.1:5301\", \"[::1]:5301\"]",
        "replies_max = 1",
    );
    let mut daemon = Daemon::of(&config).workers(2).start();
    for id in 0..1_000 {
        let client = Client::bind("127.0.0.1:0");
        let (bytes, from) = client.ask(&query(id, A), HERE);
        assert_eq!(
            (response(&bytes, 4), from.to_string().as_str()),
            ((id, vec![192, 0, 2, 1]), HERE)
        );
    }
    let v6 = "2001:db8::1"
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets()
        .to_vec();
    let clients: Vec<Client> = (0..250).map(|_| Client::bind("127.0.0.1:0")).collect();
    for clients in clients.chunks(25) {
        for client in clients {
            client.send(&query(1, A), HERE);
            client.send(&query(2, AAAA), HERE);
        }
        for client in clients {
            let mut got: Vec<(u16, Vec<u8>)> = vec![];
            for bytes in [client.receive().0, client.receive().0] {
                got.push(response(&bytes, if bytes[1] == 1 { 4 } else { 16 }));
            }
            got.sort();
            assert_eq!(got, [(1, vec![192, 0, 2, 1]), (2, v6.clone())]);
        }
    }
    let ledger = daemon.ledger_when(|ledger| ledger.handler("on").sessions.open == 0);
    let row = ledger.handler("on");
    assert_eq!(
        (row.handled, row.dropped, row.sessions.complete),
        (1_500, 0, row.sessions.opened)
    );
    daemon.stop();
}

/// dnsdist takes the client's address from the PROXY header, and its reply depends on it. Without the header it does
/// not reply at all. Replies reach the right client, in both families.
#[test]
fn a_proxy_header_for_dnsdist() {
    netns_test!(needs = ["dnsdist"]);
    let directory = tempfile::tempdir().unwrap();
    let clients = [
        ("127.0.7.7:0", "192.0.2.7"),
        ("127.0.8.8:0", "192.0.2.8"),
        ("[::1]:0", "192.0.2.9"),
    ];
    let mut config = "setLocal('127.0.0.1:5302')\naddLocal('127.0.0.1:5303')\n\
                      setACL({'0.0.0.0/0', '::/0'})\nsetProxyProtocolACL({'127.0.0.1/32'})\n"
        .to_owned();
    for (client, answer) in clients {
        let address = client.parse::<SocketAddr>().unwrap();
        let net = format!(
            "{}/{}",
            address.ip(),
            if address.is_ipv4() { 32 } else { 128 }
        );
        config += &format!(
            "do local net = newNMG(); net:addMask('{net}')\naddAction(NetmaskGroupRule(net), SpoofAction('{answer}')) end\n"
        );
    }
    config += "addAction(AllRule(), RCodeAction(5))\n";
    let file = directory.path().join("dnsdist.conf");
    std::fs::write(&file, config).unwrap();
    let _dnsdist = Program::start(&[
        "dnsdist",
        "-C",
        file.to_str().unwrap(),
        "--supervised",
        "--disable-syslog",
    ]);
    // A header written by hand (2.2 of the PROXY protocol's specification): from 127.0.0.1:1 to 127.0.0.1:2.
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02";
    wait_until_served(&[&header[..], &query(1, A)].concat(), "127.0.0.1:5302");
    let config = forwarder(
        "on",
        "X",
        "{ address = \"127.0.0.1:5302\", proxy = \"v2\" }",
        "",
    );
    let config = config.replace("\"X\"", "[\"127.0.0.1:1234\", \"[::1]:1234\"]");
    let plain = forwarder("plain", "127.0.0.1:1235", "\"127.0.0.1:5302\"", "");
    let mut daemon = Daemon::of(&(config + &plain)).workers(2).start();
    for round in 0..20 {
        for (address, expected) in clients {
            let client = Client::bind(address);
            let here = if address.starts_with('[') {
                "[::1]:1234"
            } else {
                HERE
            };
            if round == 0 && here == HERE {
                client.send(&query(9, A), "127.0.0.1:1235");
            }
            let (bytes, from) = client.ask(&query(round, A), here);
            let expected = expected
                .parse::<std::net::Ipv4Addr>()
                .unwrap()
                .octets()
                .to_vec();
            assert_eq!(
                (response(&bytes, 4), from.to_string().as_str()),
                ((round, expected), here)
            );
            assert!(client.is_empty());
        }
    }
    let ledger = daemon.ledger_when(|ledger| ledger.handler("plain").received == 2);
    assert_eq!(ledger.upstream("plain → 127.0.0.1:5302").answers, 0);
    assert_eq!(ledger.upstream("on → 127.0.0.1:5302").answers, 60);
    daemon.stop();
}

/// The names in /etc/hosts, as seen in the mount namespace of the test.
struct Hosts(tempfile::TempDir);

impl Hosts {
    fn new(hosts: &str) -> Hosts {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [("hosts", hosts), ("nsswitch.conf", "hosts: files\n")] {
            let path = directory.path().join(file);
            std::fs::write(&path, text).unwrap();
            run(&format!("mount --bind {} /etc/{file}", path.display()));
        }
        Hosts(directory)
    }

    /// Writes the file in place, because it is a mount point.
    fn become_now(&self, hosts: &str) {
        std::fs::write(self.0.path().join("hosts"), hosts).unwrap();
    }
}

/// Sends requests from new clients until this is the reply.
fn wait_until_answered(expected: &str) {
    eventually(format!("{expected} as the answer"), || {
        let told = Client::newcomer().try_ask(b"?", HERE, Duration::from_millis(50));
        told.is_some_and(|told| told == expected.as_bytes())
    });
}

/// The address of a name changes. New sessions go to the new address, and old ones end where they began. So it is when
/// the address changes back. A name that is missing for a while changes nothing.
#[test]
fn a_name_moves() {
    netns_test!(needs = ["mount"], with = [mounts]);
    let hosts = Hosts::new("127.0.0.11 up.test\n");
    let _servers = [("old", "127.0.0.11:9001"), ("new", "127.0.0.12:9001")].map(|(name, at)| {
        // Two replies end a session.
        Server::with(Client::bind(at), move |socket, bytes, from| {
            let answer = [name.as_bytes(), b":", bytes].concat();
            for _ in 0..=u32::from(bytes == b"twice") {
                socket.send_to(&answer, from).unwrap();
            }
        })
    });
    let more = "resolve_interval = \"1s\"\nreplies_max = 2";
    let mut daemon = Daemon::of(&forwarder("on", HERE, "\"up.test:9001\"", more))
        .workers(2)
        .start();
    let first: Vec<Client> = (0..8).map(|_| Client::bind("127.0.0.1:0")).collect();
    first
        .iter()
        .for_each(|client| assert_eq!(answer(client, HERE), "old:?"));
    // Sessions that have ended leave ports behind that lead to the old address.
    let over: Vec<Client> = (0..8).map(|_| Client::newcomer()).collect();
    over.iter()
        .for_each(|client| assert_eq!(client.ask(b"twice", HERE).0, b"old:twice"));
    daemon.ledger_when(|ledger| ledger.handler("on").sessions.complete == 8);
    hosts.become_now("127.0.0.12 up.test\n");
    wait_until_answered("new:?");
    // After this time, their quarantine would have ended.
    std::thread::sleep(Duration::from_millis(2_100));
    daemon.wait_for("up.test");
    first
        .iter()
        .for_each(|client| assert_eq!(answer(client, HERE), "old:?"));
    let second: Vec<Client> = (0..8).map(|_| Client::bind("127.0.0.1:0")).collect();
    hosts.become_now("# nobody\n");
    daemon.wait_for("does not resolve");
    second
        .iter()
        .for_each(|client| assert_eq!(answer(client, HERE), "new:?"));
    hosts.become_now("127.0.0.11 up.test\n");
    wait_until_answered("old:?");
    second
        .iter()
        .for_each(|client| assert_eq!(answer(client, HERE), "new:?"));
    daemon.stop();
}

/// A name that does not resolve keeps the daemon from starting, unless `resolve_optional` is set. Then its datagrams
/// are dropped with a reason until it resolves, and forwarded from then on.
#[test]
fn a_name_comes_later() {
    netns_test!(needs = ["mount"], with = [mounts]);
    let hosts = Hosts::new("# nobody\n");
    let config = |optional| {
        let more = format!("resolve_interval = \"1s\"\nresolve_optional = {optional}");
        forwarder("on", HERE, "\"up.test:9001\"", &more)
    };
    let outcome = on_file("run", &config(false), &[]);
    assert!(
        outcome.code != 0 && outcome.errors.contains("up.test"),
        "{}: {}",
        outcome.code,
        outcome.errors
    );
    let mut daemon = Daemon::start(&config(true));
    let client = Client::bind("127.0.0.1:0");
    (0..5).for_each(|_| client.send(b"lost", HERE));
    daemon.ledger_when(|ledger| ledger.handler("on").reason("no_upstream") == 5);
    let _server = Server::named("up", "127.0.0.11:9001");
    hosts.become_now("127.0.0.11 up.test\n");
    wait_until_answered("up:?");
    assert_eq!(answer(&client, HERE), "up:?");
    daemon.stop();
}
