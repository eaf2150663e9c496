//! `forward` at its limits: source ports, files, memory under a forged flood. What exceeds a limit is refused with a
//! reason, at no cost to existing sessions.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::ledger::Ledger;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{HERE, Server, answer, answer_at_last, on};
use udispatch::net::control_message::Sending;
use udispatch::net::send::Sender;

/// A client with this number, at a port that the kernel does not assign here.
fn client(number: u16) -> Client {
    let [high, low] = number.to_be_bytes();
    Client::bind(&SocketAddr::new(Ipv4Addr::new(127, 2, high, low).into(), 5_000).to_string())
}

/// Asserts that sessions continue: each client gets a reply, through its own port at the upstream, as `ports` has it.
fn go_on(clients: &[Client], ports: &[String]) {
    for (client, port) in clients.iter().zip(ports) {
        assert_eq!(answer(client, HERE), *port);
    }
}

/// There are only 32 source ports, one of which belongs to the handler. Sessions take seven of eight, or what other
/// programs have left. All others are refused with a reason, and cost next to nothing: the kernel does not search all
/// ports for each of them.
#[test]
fn ports_run_out() {
    netns_test!();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40031").unwrap();
    for (taken, room) in [(0, 28), (12, 19)] {
        let _others: Vec<UdpSocket> = (0..taken)
            .map(|port| UdpSocket::bind(("0.0.0.0", 40_000 + port)).unwrap())
            .collect();
        let upstream = Server::reporting(Client::bind("127.0.0.1:9001"));
        let mut daemon = Daemon::start(&on(&upstream, ""));
        let established: Vec<Client> = (0..room).map(client).collect();
        let ports: Vec<String> = established
            .iter()
            .map(|client| answer(client, HERE))
            .collect();
        let refused: Vec<Client> = (1_000..1_500).map(client).collect();
        for round in 1..=4 {
            refused
                .iter()
                .for_each(|client| client.send(b"no room", HERE));
            let sent = u64::from(room) * round + 500 * round;
            let ledger = daemon.ledger_when(|ledger| ledger.received() == sent);
            assert_eq!(ledger.handler("on").reason("no_port"), 500 * round);
            assert_eq!(ledger.handler("on").sessions.open, u64::from(room));
            go_on(&established, &ports);
        }
        assert!(refused.iter().all(Client::is_empty));
        let ledger = daemon.stop();
        // The kernel was asked for a port only now and then, and it had none left each time.
        let asked = ledger.upstreams[&format!("on → {}", upstream.address())]
            .not_sent
            .get("EAGAIN")
            .copied();
        assert!(
            if taken == 0 {
                asked.is_none()
            } else {
                (1..=200).contains(&asked.unwrap_or(0))
            },
            "{asked:?}"
        );
    }
}

/// There are as many sessions as the limit of open files allows. If the limit falls while the daemon runs, new ones are
/// refused with a reason, and existing ones continue. When it rises again, so does the number of sessions.
#[test]
fn files_run_out() {
    netns_test!(needs = ["prlimit"]);
    let upstream = Server::reporting(Client::bind("127.0.0.1:9001"));
    let mut daemon = Daemon::of(&on(&upstream, ""))
        .under(&["prlimit", "--nofile=600:600"])
        .start();
    let mut established: Vec<Client> = (0..20).map(client).collect();
    let mut ports: Vec<String> = established
        .iter()
        .map(|client| answer(client, HERE))
        .collect();
    let pid = daemon.pid();
    let limit = |files: usize| run(&format!("prlimit --pid {pid} --nofile={files}:600"));
    limit(8);
    let refused: Vec<Client> = (1_000..1_100).map(client).collect();
    refused
        .iter()
        .for_each(|client| client.send(b"no room", HERE));
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 120);
    assert_eq!(
        (
            ledger.handler("on").reason("no_port"),
            ledger.handler("on").sessions.open
        ),
        (100, 20)
    );
    assert!(
        ledger.upstreams[&format!("on → {}", upstream.address())]
            .not_sent
            .contains_key("EMFILE")
    );
    go_on(&established, &ports);
    limit(600);
    // After some time the kernel is asked again.
    let newcomer = client(20);
    ports.push(answer_at_last(&newcomer, HERE));
    established.push(newcomer);
    for number in 21..60 {
        established.push(client(number));
        ports.push(answer(&established[usize::from(number)], HERE));
    }
    let before = daemon.ledger_when(|_| true).handler("on").reason("no_port");
    // Of 600 files, all but 512 are for sessions.
    (2_000..2_200).for_each(|number| client(number).send(b"no room", HERE));
    let refused = before + 200 - 28;
    let ledger = daemon.ledger_when(|ledger| ledger.handler("on").reason("no_port") == refused);
    assert_eq!(ledger.handler("on").sessions.open, 88);
    go_on(&established, &ports);
    daemon.stop();
}

/// A flood with 200,000 forged sources, at full speed, meets the limit of ports. Memory stays bounded. The existing
/// sessions keep their ports and get replies all the time. What is lost has a reason, and the reasons add up to what
/// was sent.
#[test]
fn a_forged_flood_meets_the_ports() {
    netns_test!(with = [heavy]);
    let (ledger, _) = forged_flood("");
    assert!(ledger.handler("on").reason("no_port") > 0, "{ledger:#?}");
}

/// A flood of forged sources meets the limit of sessions: forged sessions evict each other.
#[test]
fn a_forged_flood_meets_the_sessions() {
    netns_test!(with = [heavy]);
    let (ledger, open) = forged_flood("session_max = 1000\nsession_share = 1000");
    let sessions = ledger.handler("on").sessions;
    assert!(open <= 1_000 && sessions.evicted > 1_000, "{sessions:?}");
}

/// Number of sources of a flood.
const SOURCES: u32 = 200_000;

/// Returns the ledger after the flood, and the number of sessions then.
fn forged_flood(more: &str) -> (Ledger, u64) {
    // There are so few ports that the flood meets the limit, however much of it the kernel drops before.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 47999").unwrap();
    let upstream = Server::with(Client::bind("127.0.0.1:9001"), |socket, bytes, from| {
        if bytes != b"flood" {
            let _ = socket.send_to(
                format!("{from} {}", String::from_utf8_lossy(bytes)).as_bytes(),
                from,
            );
        }
    });
    let mut daemon = Daemon::of(&on(&upstream, more)).workers(2).start();
    let established: Vec<Client> = (0..20).map(client).collect();
    let port_of = |told: String| told.split(' ').next().unwrap().to_owned();
    let ports: Vec<String> = established
        .iter()
        .map(|client| port_of(answer(client, HERE)))
        .collect();
    let before = daemon.resident_kib();
    let is_over = AtomicBool::new(false);
    let asked = AtomicU64::new(20);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let socket = UdpSocket::bind("0.0.0.0:5001").unwrap();
            let mut sender = Sender::new();
            let to: SocketAddr = HERE.parse().unwrap();
            for number in 0..SOURCES {
                // The sources begin at 127.16.0.0, and every /24 has its share.
                let from = IpAddr::from((0x7f10_0000_u32 + number).to_be_bytes());
                let mut batch = sender.batch();
                batch.begin(
                    Some(&to),
                    &Sending {
                        from: Some(from),
                        ..Sending::default()
                    },
                );
                batch.piece(b"flood");
                assert_eq!(batch.send(&socket, 0).unwrap(), 1);
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let mut number = 0_u32;
        while !is_over.load(Ordering::SeqCst) || number == 0 {
            for (client, port) in established.iter().zip(&ports) {
                number += 1;
                let question = number.to_string();
                let expected = format!("{port} {number}");
                // A request that meets a full receive buffer is lost, so it is sent again.
                eventually("an answer under the flood", || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let told =
                        client.try_ask(question.as_bytes(), HERE, Duration::from_millis(100));
                    told.is_some_and(|told| told == expected.as_bytes())
                });
            }
        }
        flood.join().unwrap();
    });
    let sent = u64::from(SOURCES) + asked.load(Ordering::SeqCst);
    let is_settled = |ledger: &Ledger| ledger.received() + ledger.kernel_drops() == sent;
    let ledger = daemon.ledger_when(is_settled);
    let row = ledger.handler("on").clone();
    let resident = daemon.resident_kib();
    println!(
        "{before} KiB before, {resident} KiB after; {} kernel drops; {row:?}",
        ledger.kernel_drops()
    );
    assert!(
        resident <= before + 32 * 1024,
        "{before} KiB before, {resident} KiB after"
    );
    assert!(row.sessions.open <= 65_536);
    let names: Vec<&str> = row.reasons.keys().map(String::as_str).collect();
    assert!(
        names
            .iter()
            .all(|name| ["no_port", "session_limit", "session_share"].contains(name)),
        "{names:?}"
    );
    assert_eq!(row.handled + row.dropped + ledger.kernel_drops(), sent);
    // None of the assured sessions was evicted.
    for (client, port) in established.iter().zip(&ports) {
        while !client.is_empty() {}
        client.send(b"after", HERE);
        assert_eq!(
            String::from_utf8(client.receive().0).unwrap(),
            format!("{port} after")
        );
    }
    (daemon.stop(), row.sessions.open)
}
