//! The law under overload. Of five times more datagrams than the daemon can take, each one is in its ledger or among
//! the kernel's drops, to the last, while it runs and across reloads. The kernel's own counters are the second source.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use udispatch::net::socket::block_new_datagrams;
use udispatch::observe::snapshot::{Account, Snapshot};

use crate::common::curl::snapshot;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::netns_test;

/// The destinations of the load.
const DESTINATIONS: [&str; 4] = [
    "127.0.0.1:1001",
    "127.0.0.1:1002",
    "127.0.0.9:1002",
    "127.0.0.1:1003",
];
/// The sources of the load. Only the first may send to the last destination.
const SENDERS: [&str; 4] = ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.4:0", "127.0.0.5:0"];
/// Smallest ratio of datagrams sent to datagrams taken.
const OVERLOAD: u64 = 5;
/// Number of upstreams that each datagram is forwarded to, which makes it expensive.
const UPSTREAMS: u16 = 20;
/// Shortest time for which each configuration is under load.
const STAGE: Duration = Duration::from_millis(800);

/// A daemon with this number of workers whose forwarder sends to this number of upstreams, with or without the listener
/// and the route that a reload removes.
fn config(workers: usize, upstreams: u16, is_whole: bool) -> String {
    let upstreams: Vec<String> = (0..upstreams)
        .map(|number| format!("127.0.0.1:{}", 9_001 + number))
        .collect();
    let removed = "[[route]]\nname = \"removed\"\ndestination = \"127.0.0.1:1002\"\nhandler = [\"dear\", \"tape\"]\n";
    format!(
        "[daemon]\nworkers = {workers}\nreceive_buffer = \"128KiB\"\n\
         [[route]]\nname = \"kept\"\ndestination = \"127.0.0.1:1001\"\nhandler = \"dear\"\n\
         {}\
         [[route]]\nname = \"rest\"\ndestination = \"0.0.0.0:1002\"\nhandler = \"dear\"\n\
         [[route]]\nname = \"some\"\ndestination = \"127.0.0.1:1003\"\nsource = \"127.0.0.2\"\nhandler = \"tape\"\n\
         [handler.dear]\nkind = \"forward\"\npick = \"all\"\nreplies = false\nupstreams = {upstreams:?}\n\
         [handler.tape]\nkind = \"print\"\n",
        if is_whole { removed } else { "" }
    )
}

/// Senders that send as fast as they can.
struct Load {
    sent: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn begin() -> Load {
        let sent = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let send = |address: &&str| {
            let sent = Arc::clone(&sent);
            let is_over = Arc::clone(&is_over);
            let socket = UdpSocket::bind(address).unwrap();
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    for to in DESTINATIONS.iter().cycle().take(100) {
                        socket
                            .send_to(b"too much", to)
                            .unwrap_or_else(|error| panic!("to {to}: {error}"));
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads = SENDERS.iter().map(send).collect();
        Load {
            sent,
            is_over,
            threads,
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the senders. Returns the number of datagrams sent.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .for_each(|thread| thread.join().expect("it only sends"));
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sockets that take nothing, so that they do not count in the kernel's number of received datagrams.
fn dead_ends() -> Vec<UdpSocket> {
    let bind = |number| {
        let socket = UdpSocket::bind(("127.0.0.1", 9_001 + number)).unwrap();
        block_new_datagrams(&socket).unwrap();
        socket
    };
    (0..UPSTREAMS).map(bind).collect()
}

/// The kernel's counters of IPv4 UDP in this namespace (RFC 4113 and udp_mib).
fn kernel() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().unwrap();
    let numbers = lines.next().unwrap();
    let numbers = numbers
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    names
        .split_whitespace()
        .map(str::to_owned)
        .zip(numbers)
        .collect()
}

/// The number of datagrams that all sockets on an address have dropped, by the kernel (the last column of
/// /proc/net/udp).
fn drops_of(address: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| words[1] == address)
        .map(|words| words.last().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn received<'a>(accounts: impl Iterator<Item = &'a Account>) -> u64 {
    accounts.map(|account| account.received).sum()
}

/// Asserts the law in each row, and between listeners, workers, routes and handlers.
fn assert_lawful(seen: &Snapshot) {
    assert!(seen.balances, "{seen}");
    let listeners = seen.listeners.iter().map(|row| &row.account);
    let workers = seen.workers.iter().map(|row| &row.account);
    let routes = seen.routes.iter().map(|row| &row.account);
    let handlers = seen.handlers.iter().map(|row| &row.account);
    for account in listeners
        .clone()
        .chain(workers.clone())
        .chain(routes.clone())
        .chain(handlers.clone())
    {
        assert_eq!(
            account.received,
            account.handled + account.dropped + account.in_flight,
            "{seen}"
        );
        assert_eq!(
            account.dropped,
            account.drops.values().sum::<u64>(),
            "{seen}"
        );
    }
    assert_eq!(
        received(listeners.clone()),
        received(workers.clone()),
        "{seen}"
    );
    let dropped = |name: &str| -> u64 {
        listeners
            .clone()
            .filter_map(|account| account.drops.get(name))
            .sum()
    };
    assert_eq!(
        received(listeners.clone()),
        received(routes.clone()) + dropped("no_route"),
        "{seen}"
    );
    // Only the removed route has two handlers. Once it is gone, its datagrams are in the row `(removed)`.
    let twice = |row: &&udispatch::observe::snapshot::RouteRow| {
        ["removed", "(removed)"].contains(&row.route.as_str())
    };
    let twice = received(seen.routes.iter().filter(twice).map(|row| &row.account));
    assert_eq!(received(handlers), received(routes) + twice, "{seen}");
    // Each datagram that the forwarder handled was meant for each upstream, and what happened to it is known.
    for row in &seen.upstreams {
        let failed = row.failed.total();
        assert!(
            row.counters.sent + failed + row.counters.skipped
                <= received(seen.handlers.iter().map(|row| &row.account)),
            "{seen}"
        );
    }
}

/// The number of sent datagrams that the ledger has, received or dropped by the kernel.
fn accounted(seen: &Snapshot) -> (u64, u64) {
    let kernel_drops = seen
        .listeners
        .iter()
        .map(|row| row.counters.kernel_drops)
        .sum();
    (
        received(seen.listeners.iter().map(|row| &row.account)),
        kernel_drops,
    )
}

/// Sent = received + dropped by the kernel, to the last datagram, with five times more than the daemon can take.
/// Meanwhile it changes from one worker to three and on to two, its forwarder gets other upstreams, and a listener is
/// removed and added again. In every snapshot the law holds in and between all rows, and nothing is counted that was
/// not sent. The kernel counts equal numbers: received by sockets, dropped because of full buffers, and none without a
/// socket.
#[test]
fn nothing_is_lost_without_a_name() {
    netns_test!(with = [heavy]);
    let _dead_ends = dead_ends();
    let mut daemon = Daemon::of(&config(1, UPSTREAMS, true))
        .workers_of_file()
        .start();
    let output = daemon.take_output();
    let reader = thread::spawn(move || output.count());
    let file = snapshot(&daemon).config_file;
    let before = kernel();
    let load = Load::begin();
    let stages = [
        None,
        Some(config(3, UPSTREAMS - 5, false)),
        Some(config(2, UPSTREAMS, true)),
        Some(config(1, 1, false)),
    ];
    for stage in stages {
        if let Some(config) = stage {
            fs::write(&file, config).unwrap();
            daemon.signal(libc::SIGHUP);
            daemon.wait_for("reloaded: ");
        }
        let begun = Instant::now();
        while begun.elapsed() < STAGE {
            let seen = snapshot(&daemon);
            assert_lawful(&seen);
            let (received, dropped) = accounted(&seen);
            // Each sender may have sent one datagram that it has not counted yet.
            assert!(
                received + dropped <= load.sent() + SENDERS.len() as u64,
                "{seen}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
    let sent = load.end();
    let seen = eventually("all are accounted for", || {
        let seen = snapshot(&daemon);
        assert_lawful(&seen);
        let (received, dropped) = accounted(&seen);
        if received + dropped >= sent {
            return Ok(seen);
        }
        Err(format!(
            "sent {sent}, received {received}, dropped {dropped}: {seen}"
        ))
    });
    let (received, dropped) = accounted(&seen);
    println!("sent {sent}, received {received}, dropped by the kernel {dropped}");
    assert_eq!(sent, received + dropped, "{seen}");
    assert!(
        sent >= OVERLOAD * received,
        "no overload: sent {sent}, received {received}"
    );

    let now = kernel();
    let counted = |name: &str| now[name] - before[name];
    assert_eq!(
        counted("InDatagrams"),
        received,
        "the kernel's word: {now:?}"
    );
    assert_eq!(
        counted("RcvbufErrors") + counted("MemErrors"),
        dropped,
        "the kernel's word: {now:?}"
    );
    assert_eq!(
        counted("NoPorts"),
        0,
        "what is removed leaves no gap: {now:?}"
    );
    assert_eq!(
        seen.host.udp_receive_buffer_errors, now["RcvbufErrors"],
        "the host's counts are this namespace's"
    );
    let kept = seen
        .listeners
        .iter()
        .find(|row| row.listener == "127.0.0.1:1001")
        .unwrap();
    assert_eq!(
        kept.counters.kernel_drops,
        drops_of("0100007F:03E9"),
        "the sockets' own count"
    );
    assert!(
        seen.alarms.iter().any(|alarm| alarm.name == "kernel_drops"),
        "{:?}",
        seen.alarms
    );
    daemon.stop();
    reader.join().unwrap();
}
