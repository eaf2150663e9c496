//! Faults around the daemon do not break it: dead upstreams, small MTUs, firewalls, floods, blocked output, signals.
//! Each loss has its name in the ledger, and afterwards everything works again.

use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::curl::{ask, get};
use crate::common::daemon::{Daemon, on_file_under};
use crate::common::ledger::{Ledger, not_sent};
use crate::common::namespace::{netns_test, run};
use crate::common::neighbour::{
    BEYOND, BEYOND_V6, Fault, THERE, THERE_V6, behind, firewall, neighbour,
};
use crate::common::{TIMEOUT, eventually};

const ECHO: &str = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";

/// A route on 127.0.0.1 and a forwarder of its own, called `name`, to all these upstreams.
fn forward(name: &str, port: u16, upstreams: &[&str]) -> String {
    format!(
        "[[route]]\ndestination = \"127.0.0.1:{port}\"\nhandler = \"{name}\"\n\
         [handler.{name}]\nkind = \"forward\"\npick = \"all\"\nupstreams = {upstreams:?}\n"
    )
}

/// Sends numbered datagrams.
fn send_numbers(client: &Client, to: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        client.send(&number.to_be_bytes(), to);
    }
}

fn expect_numbers(client: &Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(client.receive().0, number.to_be_bytes());
    }
}

/// An upstream that is down refuses (ICMP). The kernel reports that to the next send call, instead of sending. Whatever
/// it reported, the first datagram after the upstream is back arrives, again and again. Another upstream of the handler
/// gets everything meanwhile. Sent plus refused is what the handler was to send.
#[test]
fn a_refusing_upstream_comes_back() {
    netns_test!();
    for (local, upstream) in [("127.0.0.1:0", "127.0.0.1:9001"), ("[::1]:0", "[::1]:9001")] {
        let good = Client::bind(local);
        let good_address = good.address().to_string();
        let mut daemon = Daemon::start(&forward("on", 1234, &[upstream, &good_address]));
        let client = Client::bind("127.0.0.1:0");
        let mut next = 0;
        for round in 0..20 {
            // Sends one datagram, or a batch of them.
            let down = if round % 2 == 0 { 1 } else { 40 };
            send_numbers(&client, "127.0.0.1:1234", next..next + down);
            next += down;
            daemon.ledger_when(|ledger| {
                let row = ledger.handler("on");
                row.last + not_sent(row) == 2 * u64::from(next)
            });
            let revived = Client::bind(upstream);
            send_numbers(&client, "127.0.0.1:1234", next..next + 3);
            expect_numbers(&revived, next..next + 3);
            next += 3;
        }
        expect_numbers(&good, 0..next);
        let ledger = daemon.stop();
        let row = ledger.handler("on");
        assert_eq!(row.handled, u64::from(next));
        assert_eq!(row.last + not_sent(row), 2 * u64::from(next));
        assert!(
            row.not_sent.keys().all(|errno| errno == "ECONNREFUSED"),
            "{row:?}"
        );
    }
}

/// Datagrams of 1,400 to 9,000 bytes in runs of equal size, which are sent as segmented sends, take a path with an MTU
/// of 1,280. The segments are refused, so the datagrams are sent one by one, in fragments, and all arrive in order. So
/// does a second burst, after the refusal is known, and so do small ones between them. This holds for IPv4 and IPv6,
/// and for plain and segmenting senders.
#[test]
fn a_path_with_a_small_mtu() {
    netns_test!(needs = ["ip"]);
    let next_door = neighbour(1_280);
    for there in [format!("{THERE}:9001"), format!("[{THERE_V6}]:9001")] {
        let upstream = next_door.bind(&there);
        let daemon = Daemon::start(&forward("on", 1234, &[&there]));
        let client = Client::bind("127.0.0.1:0");
        let mut count = 0;
        for burst in 0..2_u8 {
            for size in [
                1_400, 100, 1_252, 1_253, 1_473, 9_000, 1_232, 1_233, 5_000, 1_280,
            ] {
                for in_train in [false, true] {
                    let mut bytes: Vec<u8> = (0..7)
                        .flat_map(|number| {
                            (0..size).map(move |index| (index as u8) ^ number ^ burst)
                        })
                        .collect();
                    // A run may end with a shorter datagram.
                    bytes.truncate(bytes.len() - size / 3 * usize::from(burst));
                    // The stop makes runs form.
                    daemon.pause();
                    if in_train {
                        client.send_segmented(&bytes, size as u16, "127.0.0.1:1234");
                    } else {
                        for bytes in bytes.chunks(size) {
                            client.send(bytes, "127.0.0.1:1234");
                        }
                    }
                    daemon.resume();
                    for bytes in bytes.chunks(size) {
                        let got = upstream.receive().0;
                        assert!(got == bytes, "{size} bytes to {there}, got {}", got.len());
                        count += 1;
                    }
                }
            }
        }
        let ledger = daemon.stop();
        let row = ledger.handler("on");
        assert_eq!((row.handled, row.last, not_sent(row)), (count, count, 0));
        assert!(upstream.is_empty());
    }
}

/// Upstreams to which there is no route yet do not keep the daemon from starting. Once there is a route, it is used. An
/// upstream whose port is closed shows in the ledger.
#[test]
fn an_upstream_that_comes_later() {
    netns_test!(needs = ["ip"]);
    let mut daemon = Daemon::start(&forward("on", 1234, &["192.0.2.9:9001"]));
    assert!(
        daemon
            .log()
            .iter()
            .any(|line| line.contains("192.0.2.9:9001: this host has no route to it;"))
    );
    let client = Client::bind("127.0.0.1:0");
    client.send(b"lost", "127.0.0.1:1234");
    let ledger = daemon.ledger_when(|ledger| ledger.handler("on").received == 1);
    assert_eq!(ledger.handler("on").not_sent.get("ENETUNREACH"), Some(&1));
    run("ip addr add 192.0.2.9/32 dev lo");
    for sent in 1..=2 {
        client.send(b"nobody listens", "127.0.0.1:1234");
        daemon.ledger_when(|ledger| ledger.handler("on").last == sent);
    }
    let upstream = Client::bind("192.0.2.9:9001");
    client.send(b"arrives", "127.0.0.1:1234");
    assert_eq!(upstream.receive().0, b"arrives");
    assert_eq!(
        daemon.stop().handler("on").came_back.get("ECONNREFUSED"),
        Some(&2)
    );
}

/// The small MTU is not on this host's link but behind a router. In IPv4 the router fragments, and nothing is lost. In
/// IPv6 it may not, and reports what it drops. From then on the datagrams are sent in fragments that fit.
#[test]
fn a_small_mtu_further_on() {
    netns_test!(needs = ["ip"]);
    let router = neighbour(1_500);
    let beyond = behind(&router, 1_280);
    for (there, may_lose) in [
        (format!("{BEYOND}:9001"), false),
        (format!("[{BEYOND_V6}]:9001"), true),
    ] {
        let upstream = beyond.bind(&there);
        let daemon = Daemon::start(&forward("on", 1234, &[&there]));
        let client = Client::bind("127.0.0.1:0");
        // The hosts resolve each other's addresses first. Until then, what is sent waits.
        client.send(b"small", "127.0.0.1:1234");
        assert_eq!(upstream.receive().0, b"small");
        // Each lost datagram brings the MTU of the path, as soon as the router's report is here.
        let timeout = if may_lose {
            Duration::from_millis(100)
        } else {
            TIMEOUT
        };
        let mut sent = 0;
        eventually(format!("a large one at {there}"), || {
            assert!(may_lose || sent == 0, "lost on the way to {there}");
            client.send(&[sent; 1_400], "127.0.0.1:1234");
            sent += 1;
            upstream.receive_within(timeout)
        });
        for size in [1_400, 100, 1_452, 1_232, 9_000] {
            for number in 0..14_u8 {
                client.send(&vec![number; size], "127.0.0.1:1234");
            }
            for number in 0..14_u8 {
                let got = upstream.receive().0;
                assert!(got == vec![number; size], "{size} to {there}");
            }
        }
        assert_eq!(not_sent(daemon.stop().handler("on")), 0);
    }
}

/// A device whose queue is full drops what is sent, and the ledger counts it: what it counts as sent has arrived.
#[test]
fn a_full_device_queue_is_counted() {
    netns_test!(needs = ["ip", "tc"]);
    let next_door = neighbour(1_500);
    for there in [format!("{THERE}:9001"), format!("[{THERE_V6}]:9001")] {
        let upstream = next_door.bind(&there);
        let mut daemon = Daemon::start(&forward("on", 1234, &[&there]));
        let client = Client::bind("127.0.0.1:0");
        client.send(b"neighbours know each other", "127.0.0.1:1234");
        upstream.receive();
        run("tc qdisc add dev near root tbf rate 400kbit burst 1600 limit 6000");
        for number in 0..100_u8 {
            client.send(&vec![number; 1_000 + usize::from(number)], "127.0.0.1:1234");
        }
        let ledger = daemon.ledger_when(|ledger| ledger.received() == 101);
        let row = ledger.handler("on");
        assert_eq!(row.last + not_sent(row), 101);
        assert!(
            row.not_sent.get("ENOBUFS").is_some_and(|lost| *lost > 50),
            "{row:?}"
        );
        for _ in 1..row.last {
            upstream.receive();
        }
        run("tc qdisc del dev near root");
        client.send(b"again", "127.0.0.1:1234");
        assert_eq!(upstream.receive().0, b"again");
        daemon.stop();
    }
}

/// The path from the daemon to an upstream has one fault after another: a firewall that drops, one that rejects, a
/// missing route, a link that is down. Each loss is counted under its errno, another upstream of the handler gets
/// everything all the time, and after the fault, traffic flows again.
#[test]
fn a_firewall_and_a_lost_route() {
    netns_test!(needs = ["ip", "nft"]);
    let next_door = neighbour(1_500);
    firewall();
    for there in [THERE, THERE_V6] {
        let is_v6 = there == THERE_V6;
        let there = std::net::SocketAddr::new(there.parse().unwrap(), 9001).to_string();
        let lost = next_door.bind(&there);
        let good = Client::bind("127.0.0.1:0");
        let good_address = good.address().to_string();
        let mut daemon = Daemon::start(&forward("on", 1234, &[&there, &good_address]));
        let client = Client::bind("127.0.0.1:0");
        let mut next = 0;
        let mut losses = 0;
        for fault in Fault::all(is_v6, 9001) {
            let pass = |numbers: std::ops::Range<u32>| {
                send_numbers(&client, "127.0.0.1:1234", numbers.clone());
                expect_numbers(&lost, numbers.clone());
                expect_numbers(&good, numbers);
            };
            pass(next..next + 20);
            next += 20;
            fault.begin();
            let before = daemon.ledger_when(|_| true);
            for _ in 0..3 {
                send_numbers(&client, "127.0.0.1:1234", next..next + 30);
                expect_numbers(&good, next..next + 30);
                next += 30;
                losses += 30;
            }
            let ledger = daemon.ledger_when(|ledger| {
                let row = ledger.handler("on");
                row.last + not_sent(row) == 2 * u64::from(next)
            });
            let row = ledger.handler("on");
            assert_eq!(not_sent(row), losses, "{fault:?}: {row:?}");
            fault.assert_explains(before.handler("on"), row);
            fault.end();
            pass(next..next + 20);
            next += 20;
        }
        assert_eq!(daemon.stop().handler("on").handled, u64::from(next));
        assert!(lost.is_empty() && good.is_empty());
    }
}

/// The address that the daemon sends from is replaced by another one, as DHCP or a reconnecting VPN does. The upstream
/// gets traffic from the new one, without a restart.
#[test]
fn the_own_address_changes() {
    netns_test!(needs = ["ip"]);
    let next_door = neighbour(1_500);
    for (there, old, new) in [
        (THERE, "10.9.0.1/24", "10.9.0.7/24"),
        (THERE_V6, "fd00:9::1/64", "fd00:9::7/64"),
    ] {
        let there = std::net::SocketAddr::new(there.parse().unwrap(), 9001).to_string();
        let upstream = next_door.bind(&there);
        let mut daemon = Daemon::start(&forward("on", 1234, &[&there]));
        let client = Client::bind("127.0.0.1:0");
        client.send(b"before", "127.0.0.1:1234");
        let (bytes, source) = upstream.receive();
        assert_eq!((bytes.as_slice(), source.ip()), (&b"before"[..], ip(old)));
        run(&format!("ip addr del {old} dev near"));
        // Without an address, datagrams are lost, whatever the errno.
        client.send(b"between", "127.0.0.1:1234");
        daemon.ledger_when(|ledger| ledger.received() == 2);
        let nodad = if there.starts_with('[') { "nodad" } else { "" };
        run(&format!("ip addr add {new} dev near {nodad}"));
        client.send(b"after", "127.0.0.1:1234");
        let (bytes, source) = upstream.receive();
        assert_eq!((bytes.as_slice(), source.ip()), (&b"after"[..], ip(new)));
        let ledger = daemon.stop();
        let row = ledger.handler("on");
        assert_eq!((row.last, not_sent(row)), (2, 1), "{row:?}");
    }
}

fn ip(prefix: &str) -> std::net::IpAddr {
    prefix.split_once('/').unwrap().0.parse().unwrap()
}

/// With one worker, one route is flooded, and a client of another route sends 200 requests, one after the other. Each
/// has its reply while the flood lasts, and the ledger has every datagram of the flood as received or as dropped by the
/// kernel.
#[test]
fn a_flood_starves_nobody() {
    netns_test!();
    const FLOOD_MAX: u64 = 3_000_000;
    let config =
        "[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"drop\"\n".to_owned() + ECHO;
    let daemon = Daemon::start(&config);
    let is_over = AtomicBool::new(false);
    let (begun, is_begun) = std::sync::mpsc::channel();
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let client = Client::bind("127.0.0.1:0");
            let mut sent = 0;
            while sent < FLOOD_MAX && !is_over.load(Ordering::Relaxed) {
                client.send(b"flood", "127.0.0.1:1000");
                sent += 1;
                if sent == 10_000 {
                    begun.send(()).unwrap();
                }
            }
            sent
        });
        is_begun.recv().unwrap();
        let client = Client::bind("127.0.0.1:0");
        for number in 0..200_u32 {
            assert_eq!(
                client.ask(&number.to_be_bytes(), "127.0.0.1:1234").0,
                number.to_be_bytes()
            );
        }
        is_over.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(sent < FLOOD_MAX, "the flood ended before the questions");
    let ledger = daemon.stop();
    assert_eq!(ledger.handler("echo").last, 200);
    assert_eq!(ledger.listener("127.0.0.1:1234").last, 0);
    let flooded = ledger.listener("127.0.0.1:1000");
    assert_eq!(flooded.received + flooded.last, sent);
}

/// A hundred listeners all have datagrams in their queues, each of which goes to five hundred upstreams. That is far
/// more work than the time for a stop allows. The daemon ends in time, and the ledger can be requested meanwhile.
#[test]
fn stopping_is_bounded_with_many_listeners_and_upstreams() {
    netns_test!();
    let upstreams: Vec<_> = (0..500)
        .map(|number| format!("\"127.1.{}.{}:9001\"", number / 200, number % 200 + 1))
        .collect();
    let config = format!(
        "[[route]]\ndestination = \"127.0.0.1:2000-2099\"\nhandler = \"all\"\n\
         [handler.all]\nkind = \"forward\"\npick = \"all\"\nupstreams = [{}]\n",
        upstreams.join(", ")
    );
    let _sink = Client::bind("0.0.0.0:9001");
    let mut daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    daemon.pause();
    for _ in 0..400 {
        for port in 2000..2100 {
            client.send(b"much to do", &format!("127.0.0.1:{port}"));
        }
    }
    daemon.resume();
    daemon.ledger_when(|ledger| ledger.received() > 0);
    daemon.stop();
}

/// More than the buffers hold is sent to a daemon that is stopped, and more than it can take to one that runs. What was
/// received and what the kernel dropped are together what was sent, to the last datagram, with one worker and with
/// four.
#[test]
fn overload_is_counted_exactly() {
    netns_test!();
    let config = "[daemon]\nreceive_buffer = \"128KiB\"\n".to_owned()
        + "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = [\"echo\", \"drop\", \"print\"]\n";
    for workers in ["1", "4"] {
        let mut daemon = Daemon::of(&config).workers(workers).start();
        // There are many source ports, so that the kernel's hash reaches every worker's socket.
        let clients: Vec<Client> = (0..50).map(|_| Client::bind("127.0.0.1:0")).collect();
        let mut sent = 0;
        let mut burst = || {
            for client in &clients {
                for _ in 0..200 {
                    client.send(b"one of far too many", "127.0.0.1:1234");
                }
            }
            sent += 10_000;
            sent
        };
        daemon.pause();
        let total = burst();
        daemon.resume();
        let all = |ledger: &Ledger, total| ledger.received() + ledger.kernel_drops() == total;
        let ledger = daemon.ledger_when(|ledger| all(ledger, total));
        assert!(ledger.kernel_drops() > 5_000, "{ledger:#?}");
        for _ in 0..5 {
            burst();
        }
        let total = burst();
        daemon.ledger_when(|ledger| all(ledger, total));
        assert!(all(&daemon.stop(), total));
    }
}

/// The reading and the writing end of the daemon's standard output.
fn output() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}

const PRINT_AND_ECHO: &str = r#"
    [[route]]
    destination = "127.0.0.1:1000"
    handler = "print"
    [[route]]
    destination = "127.0.0.1:1234"
    handler = "echo"
"#;

/// Sends to the route of `print` until the ledger satisfies the condition.
fn print_until(
    daemon: &mut Daemon,
    client: &Client,
    satisfied: impl Fn(&Ledger) -> bool,
) -> Ledger {
    daemon.ledger_when(|ledger| {
        for _ in 0..20 {
            client.send(&[b'x'; 2_000], "127.0.0.1:1000");
        }
        satisfied(ledger)
    })
}

/// Standard output is a pipe that is not read. `print` drops, under its own name, while the other route replies. What
/// waits is in flight in a ledger that balances. SIGTERM, two more of them and SIGINT still end the daemon in time.
#[test]
fn blocked_output_harms_nobody_else() {
    netns_test!();
    let (_reader, writer) = output();
    let mut daemon = Daemon::of(PRINT_AND_ECHO).output(writer).start();
    let client = Client::bind("127.0.0.1:0");
    let full = |ledger: &Ledger| ledger.handler("print").reason("sink_full") > 100;
    print_until(&mut daemon, &client, full);
    for _ in 0..100 {
        assert_eq!(
            client.ask(b"still there?", "127.0.0.1:1234").0,
            b"still there?"
        );
    }
    let status = ask(&daemon, &["status"]).output;
    let [received, handled, dropped, in_flight] = ["received", "handled", "dropped", "in flight"]
        .map(|head| {
            let rest = status
                .lines()
                .find_map(|line| line.strip_prefix(head))
                .expect("a line for each");
            rest.trim().parse::<u64>().expect("a number")
        });
    assert_eq!(received, handled + dropped + in_flight, "{status}");
    assert!(
        status.contains(" handled by sinks are not written yet"),
        "{status}"
    );
    let ledger = daemon.stop_while(libc::SIGTERM, |daemon| {
        daemon.signal(libc::SIGTERM);
        daemon.signal(libc::SIGINT);
    });
    let print = ledger.handler("print");
    assert!(print.in_flight > 0, "{print:?}");
    assert_eq!(print.reasons.keys().collect::<Vec<_>>(), ["sink_full"]);
    let echo = ledger.handler("echo");
    assert_eq!((echo.handled, echo.last, echo.dropped), (100, 100, 0));
}

/// Fills standard output until `print` drops, and then reads it until the sink is empty, and on to the end.
fn fill_and_read(
    daemon: &mut Daemon,
    client: &Client,
    mut reader: impl Read + Send + 'static,
) -> JoinHandle<String> {
    let full = |ledger: &Ledger| ledger.handler("print").reason("sink_full") > 0;
    print_until(daemon, client, full);
    let reading = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    daemon.ledger_when(|ledger| ledger.handler("print").in_flight == 0);
    reading
}

/// A reader of standard output that was slow and continues gets whole lines only, as many as the ledger calls handled,
/// and `print` works on.
#[test]
fn output_that_was_blocked_works_again() {
    netns_test!();
    let (reader, writer) = output();
    let mut daemon = Daemon::of(PRINT_AND_ECHO).output(writer).start();
    let client = Client::bind("127.0.0.1:0");
    let reading = fill_and_read(&mut daemon, &client, reader);
    client.send(b"the last one", "127.0.0.1:1000");
    let ledger = daemon.stop();
    let text = reading.join().unwrap();
    assert!(text.ends_with(" > 127.0.0.1:1000 the last one\n"));
    let print = ledger.handler("print");
    assert_eq!(text.lines().count() as u64, print.handled);
    assert_eq!(print.in_flight, 0);
    let is_whole = |line: &str| line.ends_with(&"x".repeat(2_000)) && line.len() < 2_100;
    assert!(text.lines().rev().skip(1).all(is_whole));
}

/// The reader of standard output is gone. The log says so once, `print` drops as sink_closed from then on, everything
/// else continues, and the daemon ends in order.
#[test]
fn closed_output_harms_nobody_else() {
    netns_test!();
    let (reader, writer) = output();
    let mut daemon = Daemon::of(PRINT_AND_ECHO).output(writer).start();
    let client = Client::bind("127.0.0.1:0");
    drop(reader);
    let closed = |ledger: &Ledger| ledger.handler("print").reason("sink_closed") > 100;
    print_until(&mut daemon, &client, closed);
    let said = |daemon: &Daemon| {
        let gone = |line: &&String| line.contains("ERROR standard output is closed");
        daemon.log().iter().filter(gone).count()
    };
    assert_eq!(said(&daemon), 1);
    for _ in 0..100 {
        assert_eq!(
            client.ask(b"still there?", "127.0.0.1:1234").0,
            b"still there?"
        );
    }
    let ledger = daemon.stop();
    let print = ledger.handler("print");
    assert_eq!((print.handled, print.in_flight), (0, 0));
    assert_eq!(print.reason("sink_closed"), print.received);
    assert_eq!(ledger.handler("echo").last, 100);
}

/// Standard output may be non-blocking, as a parent process may hand it down (O_NONBLOCK belongs to the pipe, and not
/// to the daemon). A full pipe then does not count as closed.
#[test]
fn output_that_does_not_block_is_waited_for() {
    netns_test!();
    // One end of a socket pair may be made so without unsafe code; a pipe would do the same.
    let (reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut daemon = Daemon::of(PRINT_AND_ECHO)
        .output(OwnedFd::from(writer).into())
        .start();
    let client = Client::bind("127.0.0.1:0");
    let reading = fill_and_read(&mut daemon, &client, reader);
    let ledger = daemon.stop();
    let lines = reading.join().unwrap().lines().count();
    assert_eq!(lines as u64, ledger.handler("print").handled);
    assert_eq!(ledger.handler("print").reason("sink_closed"), 0);
}

/// The reader of the log is gone. Signals that make the daemon write to it neither end nor harm the daemon.
#[test]
fn a_closed_log_harms_nobody() {
    netns_test!();
    let mut daemon = Daemon::start(ECHO);
    daemon.close_log();
    let client = Client::bind("127.0.0.1:0");
    for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGUSR1] {
        daemon.signal(signal);
        for _ in 0..20 {
            assert_eq!(
                client.ask(b"still there?", "127.0.0.1:1234").0,
                b"still there?"
            );
        }
    }
    assert_eq!(daemon.end(libc::SIGTERM), Some(0));
}

/// A full standard error that still has its reading end, and that end. One line fills it.
fn full_log(is_nonblocking: bool) -> (UnixStream, Stdio) {
    // One end of a socket pair may be made so without unsafe code; a pipe would do the same.
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    for size in [4_096, 1] {
        while writer.write(&vec![b'-'; size]).is_ok() {}
    }
    writer.set_nonblocking(is_nonblocking).unwrap();
    (reader, OwnedFd::from(writer).into())
}

/// Sends requests until a reply comes, because there is no log that says when the daemon is ready.
fn ask_until_answered(client: &Client) {
    eventually("an answer", || {
        client.try_ask(b"ready?", "127.0.0.1:1234", Duration::from_millis(50))
    });
}

/// Standard error is not read, and is full from the beginning. Signals that make the daemon write do no harm, and
/// SIGTERM ends it in time, with exit code 0.
#[test]
fn a_blocked_log_harms_nobody() {
    netns_test!();
    for is_nonblocking in [false, true] {
        let (_reader, log) = full_log(is_nonblocking);
        let daemon = Daemon::of(ECHO).log(log).start();
        let client = Client::bind("127.0.0.1:0");
        ask_until_answered(&client);
        for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGUSR1] {
            daemon.signal(signal);
            assert_eq!(
                client.ask(b"still there?", "127.0.0.1:1234").0,
                b"still there?"
            );
        }
        let begun = Instant::now();
        assert_eq!(daemon.end(libc::SIGTERM), Some(0));
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "stopping took {:?}",
            begun.elapsed()
        );
    }
}

/// Standard error was full for a long time, and its reader continues. It gets whole lines in their order. One line
/// counts the lines that were dropped, in their place. From then on it gets every line again, to the last one of the
/// ledger.
#[test]
fn a_log_that_was_blocked_works_again() {
    netns_test!();
    // The ledger has 70 KiB, so that a series of them is more than is kept.
    let config = format!(
        "[daemon]\nreceive_buffer = \"128KiB\"\n{ECHO}\
         [[route]]\ndestination = \"127.0.0.1:2000-2999\"\nhandler = \"drop\"\n"
    );
    for is_nonblocking in [false, true] {
        let (reader, log) = full_log(is_nonblocking);
        let mut daemon = Daemon::of(&config).log(log).start();
        let client = Client::bind("127.0.0.1:0");
        ask_until_answered(&client);
        // These are 70 KiB each, of which 1 MiB is kept. A daemon that replies to a request has handled the signals
        // before it, so none of them are merged.
        for _ in 0..40 {
            daemon.signal(libc::SIGUSR1);
            assert_eq!(get(&daemon, "/status").status, 200);
        }
        daemon.read_log(reader);
        let said = daemon.wait_for("dropped because standard error was blocked");
        let count = said
            .split(" WARN  ")
            .nth(1)
            .and_then(|said| said.split_once(" log lines were dropped"))
            .unwrap()
            .0;
        let dropped: usize = count.parse().unwrap();
        let first = daemon.log()[0].trim_start_matches('-').to_owned();
        assert!(first.contains("INFO  ready: "), "{first}");
        // Only whole ledgers were written or dropped: the listeners, three heads, the routes, the handlers, the
        // balance.
        let ledger = 1_001 + 3 + 2 + 2 + 1;
        let told = daemon.log().len() - 2;
        assert_eq!(
            (told % ledger, dropped % ledger),
            (0, 0),
            "{told} told, {dropped} dropped"
        );
        assert!(
            told >= 5 * ledger && dropped > 0,
            "{told} told, {dropped} dropped"
        );
        daemon.signal(libc::SIGHUP);
        daemon.wait_for("SIGHUP");
        let ledger = daemon.stop();
        assert_eq!(ledger.listeners.len(), 1_001);
    }
}

/// Datagrams that wait in the sockets when SIGTERM or SIGINT comes are handled, and get their replies, before the end.
#[test]
fn the_last_datagrams_are_handled() {
    netns_test!();
    let config = "[[route]]\ndestination = [\"127.0.0.1:1234\", \"0.0.0.0:1235\", \"[::1]:1234\"]\nhandler = \"echo\"\n";
    for signal in [libc::SIGTERM, libc::SIGINT] {
        for workers in ["1", "3"] {
            let daemon = Daemon::of(config).workers(workers).start();
            let four = Client::bind("127.0.0.1:0");
            let six = Client::bind("[::1]:0");
            daemon.pause();
            for number in 0..70_u32 {
                four.send(&number.to_be_bytes(), "127.0.0.1:1234");
                four.send(b"wildcard", "127.0.0.9:1235");
                six.send(&number.to_be_bytes(), "[::1]:1234");
            }
            daemon.signal(signal);
            let ledger = daemon.stop_while(signal, Daemon::resume);
            assert_eq!(ledger.received(), 210);
            assert_eq!(ledger.handler("echo").last, 210);
            assert_eq!(ledger.kernel_drops(), 0);
            let mut answers: Vec<_> = (0..140).map(|_| four.receive().0).collect();
            answers.retain(|answer| answer != b"wildcard");
            assert_eq!(answers.len(), 70);
            expect_numbers(&six, 0..70);
        }
    }
}

/// SIGTERM in the middle of a flood ends the daemon in time. Its last ledger has at least what was sent before the
/// signal and at most what was sent before the port was closed. Every datagram that it counts as sent has arrived, in
/// order.
#[test]
fn a_flood_does_not_keep_it() {
    netns_test!();
    for workers in ["1", "2"] {
        let upstream = Client::bind("127.0.0.1:0");
        let config = forward("on", 1234, &[&upstream.address().to_string()]);
        let daemon = Daemon::of(&config).workers(workers).start();
        let sent = AtomicU64::new(0);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let client = Client::bind("127.0.0.1:0");
                client.0.connect("127.0.0.1:1234").unwrap();
                // A send is refused once the port is closed.
                while client
                    .0
                    .send(&sent.load(Ordering::SeqCst).to_be_bytes())
                    .is_ok()
                {
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
            // This empties the upstream's socket, so that what it lost is known to be lost because its buffer was full.
            let collect = scope.spawn(|| {
                let mut got: Vec<u64> = vec![];
                loop {
                    let last = is_over.load(Ordering::SeqCst);
                    upstream.0.set_nonblocking(true).unwrap();
                    let mut number = [0; 8];
                    while upstream.0.recv(&mut number).is_ok() {
                        got.push(u64::from_be_bytes(number));
                    }
                    if last {
                        return got;
                    }
                    thread::yield_now();
                }
            });
            while sent.load(Ordering::SeqCst) < 20_000 {
                thread::yield_now();
            }
            let before = sent.load(Ordering::SeqCst);
            let ledger = daemon.stop();
            flood.join().unwrap();
            is_over.store(true, Ordering::SeqCst);
            let got = collect.join().unwrap();
            let after = sent.load(Ordering::SeqCst);
            let counted = ledger.received() + ledger.kernel_drops();
            assert!(
                (before..=after).contains(&counted),
                "{before} <= {counted} <= {after}"
            );
            let row = ledger.handler("on");
            let lost_there = u64::from(udispatch::net::option::kernel_drops(&upstream.0).unwrap());
            assert_eq!(got.len() as u64 + lost_there, row.last);
            assert!(got.is_sorted());
        });
    }
}

/// SIGUSR1 prints the ledger, and SIGHUP prints a line, however often they come: 2,000 of them at 1,000 a second or
/// faster, while a client sends requests. Nothing is lost and nothing ends.
#[test]
fn signals_disturb_nothing() {
    netns_test!();
    let mut daemon = Daemon::of(ECHO).workers(2).start();
    let is_over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let client = Client::bind("127.0.0.1:0");
            let mut asked = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(
                    client.ask(&asked.to_be_bytes(), "127.0.0.1:1234").0,
                    asked.to_be_bytes()
                );
                asked += 1;
            }
            asked
        });
        for number in 0..2_000 {
            daemon.signal(if number % 4 == 0 {
                libc::SIGHUP
            } else {
                libc::SIGUSR1
            });
            thread::sleep(Duration::from_micros(500));
        }
        is_over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    // Signals that are pending together become one, so there are fewer lines than signals.
    daemon.wait_for("SIGHUP");
    for _ in 0..10 {
        assert!(daemon.wait_for("balance:").contains("exact"));
    }
    let ledger = daemon.stop();
    assert_eq!((ledger.received(), ledger.kernel_drops()), (asked, 0));
    assert_eq!(ledger.handler("echo").last, asked);
}

/// Too few file descriptors for the ports or the upstreams of the file lead to exit code 1 and a message that says what
/// to do, however few there are, and never to a panic.
#[test]
fn too_few_files() {
    netns_test!(needs = ["prlimit"]);
    let ports =
        "[[route]]\ndestination = \"127.0.0.1:2000-2099\"\nhandler = [\"drop\", \"print\"]\n";
    let upstreams: Vec<String> = (1..100).map(|port| format!("127.0.0.1:{port}")).collect();
    let upstreams: Vec<&str> = upstreams.iter().map(String::as_str).collect();
    for config in [ports, &forward("on", 1234, &upstreams)] {
        // With fewer than four, even the dynamic loader cannot work.
        for limit in 4..24 {
            let wrapper = format!("timeout 20 prlimit --nofile={limit}:{limit}");
            let wrapper: Vec<&str> = wrapper.split(' ').collect();
            let outcome = on_file_under(&wrapper, "run", config, &["--workers", "1"]);
            let said = "the limit of open files is reached. Raise it (`ulimit -n`";
            assert_eq!(outcome.code, 1, "{limit}: {}", outcome.errors);
            assert!(outcome.errors.contains(said), "{limit}: {}", outcome.errors);
            assert!(!outcome.errors.contains("panicked"), "{}", outcome.errors);
        }
    }
}

/// A port below 1024 without the capability leads to exit code 1, and the message names the port and the command that
/// grants it.
#[test]
fn a_low_port_without_the_capability() {
    netns_test!(needs = ["setpriv"]);
    let config = "[[route]]\ndestination = \"127.0.0.1:53\"\nhandler = \"echo\"\n";
    let without = ["setpriv", "--bounding-set", "-net_bind_service"];
    let outcome = on_file_under(&without, "run", config, &[]);
    assert_eq!(outcome.code, 1, "{}", outcome.errors);
    for words in [
        "cannot bind 127.0.0.1:53",
        "CAP_NET_BIND_SERVICE",
        "sudo setcap cap_net_bind_service=+ep",
        env!("CARGO_BIN_EXE_udispatch"),
    ] {
        assert!(
            outcome.errors.contains(words),
            "{words}: {}",
            outcome.errors
        );
    }
}

/// A receive buffer above the system's limit, which only CAP_NET_ADMIN of the host itself exceeds: the daemon starts,
/// and reports the size that it got and the sysctl that allows more.
#[test]
fn a_receive_buffer_above_the_limit() {
    netns_test!();
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let asked = 2 * limit;
    let daemon = Daemon::start(&format!("[daemon]\nreceive_buffer = {asked}\n{ECHO}"));
    let warning = format!(
        "the kernel granted receive buffers of {limit} bytes instead of {asked}: short bursts may be lost; \
         `sysctl -w net.core.rmem_max={asked}` allows them"
    );
    assert!(
        daemon
            .log()
            .iter()
            .any(|line| line.contains("WARN") && line.contains(&warning)),
        "{:?}",
        daemon.log()
    );
    daemon.stop();
    let fitting = Daemon::start(&format!("[daemon]\nreceive_buffer = {limit}\n{ECHO}"));
    assert!(!fitting.log().iter().any(|line| line.contains("WARN")));
    fitting.stop();
}

/// After 200,000 forwarded datagrams of all sizes up to a full train, one worker holds at most 10 MiB of memory.
#[test]
fn memory_stays_small() {
    netns_test!();
    let upstream = Client::bind("127.0.0.1:0");
    let daemon = Daemon::start(&forward("on", 1234, &[&upstream.address().to_string()]));
    let client = Client::bind("127.0.0.1:0");
    let train = vec![b'm'; 60_000];
    let mut count = 0;
    while count < 200_000 {
        client.send_segmented(&train, 1_000, "127.0.0.1:1234");
        client.send(&train, "127.0.0.1:1234");
        for _ in 0..32 {
            client.send(&train[..count % 100], "127.0.0.1:1234");
        }
        for _ in 0..93 {
            upstream.receive();
        }
        count += 93;
    }
    let resident = daemon.resident_kib();
    println!("{resident} KiB resident after {count} datagrams");
    assert!(resident <= 10 * 1024, "{resident} KiB");
    assert_eq!(daemon.stop().handler("on").last, count as u64);
}
