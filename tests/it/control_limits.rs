//! What clients of the control socket and of the TCP port may not do. Each refusal has a reason and a counter.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::curl::{ask, curl, get, snapshot};
use crate::common::daemon::Daemon;
use crate::common::namespace::netns_test;
use crate::common::upstream::answer_at_last;
use crate::common::{TIMEOUT, eventually};
use udispatch::observe::snapshot::AdminRow;

const HTTP: &str = "127.0.0.1:9253";
const CONFIG: &str = "[daemon]\nhttp = \"127.0.0.1:9253\"\nhttp_hosts = [\"stats.example\"]\n\
                      [[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";

/// Time in which the head of a request must be complete (`HEAD_MAX` of `admin/server.rs`).
const HEAD_MAX: Duration = Duration::from_secs(5);

/// Waits until the counters satisfy a condition.
fn wait_for(daemon: &Daemon, what: &str, satisfied: impl Fn(&AdminRow) -> bool) -> AdminRow {
    eventually(what, || {
        let counts = snapshot(daemon).admin;
        if satisfied(&counts) {
            return Ok(counts);
        }
        Err(format!("{counts:?}"))
    })
}

/// Reads until the other end closes, which it must.
fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    // A connection that is closed before all was read is reset, which counts as an end.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(HTTP).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Over TCP every verb is refused, whatever its path, and changes nothing. Host names that are not the daemon's are
/// refused, so that no foreign web page can read it. Responses have the headers that keep browsers from other uses of
/// them.
#[test]
fn tcp_is_read_only_and_knows_its_names() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    for verb in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["stop", "status", "log?level=off", "drain?upstream=x"] {
            let answer = curl(&["-X", verb, &format!("http://{HTTP}/{path}")]);
            assert_eq!(answer.status, 405, "{verb} /{path}: {answer:?}");
            assert!(
                answer.body.contains("read-only") && answer.head.contains("allow: get, head"),
                "{answer:?}"
            );
        }
    }
    for (host, status) in [
        ("127.0.0.1:9253", 200),
        ("localhost", 200),
        ("stats.example:9253", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:9253", 421),
        ("127.0.0.2:9253", 421),
        ("", 421),
    ] {
        let header = format!("Host:{}{host}", if host.is_empty() { "" } else { " " });
        let answer = curl(&["-H", &header, &format!("http://{HTTP}/status")]);
        assert_eq!(answer.status, status, "{host}: {answer:?}");
        assert!(
            status == 200 || (answer.body.contains("http_hosts") && !answer.body.contains("pid")),
            "{answer:?}"
        );
    }
    let answer = curl(&["-I", &format!("http://{HTTP}/status")]);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, ""),
        "HEAD has no body"
    );
    for header in [
        "content-security-policy: default-src 'self'",
        "nosniff",
        "no-store",
        "x-frame-options: deny",
    ] {
        assert!(answer.head.contains(header), "{header}: {}", answer.head);
    }
    assert!(!answer.head.contains("access-control"), "{}", answer.head);
    let counts = snapshot(&daemon).admin;
    assert_eq!((counts.refused_methods, counts.refused_hosts), (20, 4));
    daemon.stop();
}

/// A head that is too large or never complete, a body that is too large, and a request that is not HTTP: each of these
/// connections is closed in bounded time and counted, while others are served.
#[test]
fn requests_have_limits() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    let mut slow = connect();
    slow.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: ")
        .unwrap();
    let silent = connect();
    let begun = Instant::now();
    assert_eq!(
        get(&daemon, "/livez").status,
        200,
        "others are served meanwhile"
    );

    let big = curl(&[
        "-H",
        &format!("X: {}", "x".repeat(9_000)),
        &format!("http://{HTTP}/status"),
    ]);
    assert_eq!(big.status, 431, "{big:?}");
    let mut long = connect();
    write!(
        long,
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n"
    )
    .unwrap();
    assert!(rest(&long).starts_with("HTTP/1.1 413"), "so large a body");
    let mut short = connect();
    write!(short, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
        .unwrap();
    assert!(rest(&short).starts_with("HTTP/1.1 200"), "a small one");
    let mut noise = connect();
    noise
        .write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        .unwrap();
    assert!(rest(&noise).starts_with("HTTP/1.1 400"), "no HTTP");

    assert!(
        !rest(&slow).contains("200"),
        "a head that is never complete gets no answer"
    );
    rest(&silent);
    assert!(
        begun.elapsed() >= HEAD_MAX - Duration::from_secs(1),
        "both had their time"
    );
    // These are the large head, the large body, the noise, the slow head and the silent client.
    wait_for(&daemon, "each is counted", |counts| {
        counts.refused_requests == 5 && counts.connections == 1
    });
    daemon.stop();
}

/// Of a hundred connections over TCP, 64 are served. The others are refused with a reason, and counted. The control
/// socket has connections of its own, so an operator still gets in, and datagrams are not affected.
#[test]
fn connections_have_a_limit() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    // A connection is closed if its request does not come in time. A round that took longer on a busy machine proves
    // nothing, and another one is begun.
    let responses = eventually("a round in which every request comes in time", || {
        let before = wait_for(&daemon, "no other connection", |counts| {
            counts.connections == 1
        });
        let begun = Instant::now();
        let mut clients: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
        let refused = before.refused_connections + 36;
        let counts = wait_for(&daemon, "36 are refused", |counts| {
            counts.refused_connections == refused || begun.elapsed() >= HEAD_MAX
        });
        for client in &mut clients {
            // A connection that was refused may have been closed already.
            let _ = client
                .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        }
        if begun.elapsed() >= HEAD_MAX {
            return None;
        }
        assert_eq!(counts.connections, 64 + 1, "with the one that asks");
        Some(clients.into_iter().map(rest).collect::<Vec<String>>())
    });
    let (served, refused): (Vec<_>, Vec<_>) = responses
        .iter()
        .partition(|text| text.starts_with("HTTP/1.1 200"));
    assert_eq!((served.len(), refused.len()), (64, 36), "{responses:?}");
    assert!(
        refused
            .iter()
            .all(|text| text.is_empty() || text.starts_with("HTTP/1.1 503")),
        "{refused:?}"
    );
    assert_eq!(
        answer_at_last(&Client::bind("127.0.0.1:0"), "127.0.0.1:1234"),
        "?"
    );
    wait_for(&daemon, "all are gone", |counts| counts.connections == 1);
    assert_eq!(
        curl(&[&format!("http://{HTTP}/livez")]).status,
        200,
        "there is room again"
    );
    daemon.stop();
}

/// More clients than the daemon can serve send requests over TCP and disconnect at once. They do not keep anyone from
/// the control socket: its requests wait in a queue of their own, and reading and verbs still work.
#[test]
fn tcp_clients_do_not_take_the_places_of_operators() {
    netns_test!();
    // With so many rows a snapshot takes some time, in which its clients wait.
    let route = |number| {
        let source = format!("10.{}.{}.0/24", number / 256, number % 256);
        format!(
            "[[route]]\ndestination = \"127.0.0.1:1234\"\nsource = \"{source}\"\nhandler = \"echo\"\n"
        )
    };
    let daemon = Daemon::start(&(CONFIG.to_owned() + &(0..1_000).map(route).collect::<String>()));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // A refused connection, or the lack of a free port at this moment, is part of the flood.
                    let Ok(mut stream) = TcpStream::connect(HTTP) else {
                        continue;
                    };
                    let _ = stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
                }
            });
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..5 {
                let before = wait_for(&daemon, "it is asked", |_| true).refused_busy;
                wait_for(
                    &daemon,
                    "TCP clients have taken all their places",
                    |counts| counts.refused_busy > before,
                );
                for command in [&["status"][..], &["log", "info"], &["reload", "--dry-run"]] {
                    let outcome = ask(&daemon, command);
                    assert_eq!(
                        outcome.code, 0,
                        "{command:?}: {}{}",
                        outcome.output, outcome.errors
                    );
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
    daemon.stop();
}

/// Each listener has a limit of viewers of its own, and a viewer that never reads does not delay the others.
#[test]
fn viewers_have_a_limit() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    let watch = || {
        let mut stream = UnixStream::connect(daemon.control()).unwrap();
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        stream
    };
    let viewers: Vec<UnixStream> = (0..32).map(|_| watch()).collect();
    wait_for(&daemon, "32 watch", |counts| counts.viewers == 32);
    let answer = get(&daemon, "/events");
    assert!(
        answer.status == 503 && answer.body.contains("GET /status"),
        "{answer:?}"
    );
    let mut tcp_client = connect();
    tcp_client
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    wait_for(&daemon, "one more watches by the other door", |counts| {
        counts.viewers == 33
    });
    drop(tcp_client);
    let mut last = viewers.last().unwrap();
    let mut bytes = [0; 4_096];
    assert!(last.read(&mut bytes).unwrap() > 0);
    viewers
        .iter()
        .for_each(|viewer| drop(viewer.shutdown(Shutdown::Both)));
    let counts = wait_for(&daemon, "nobody watches", |counts| counts.viewers == 0);
    assert_eq!(counts.refused_viewers, 1);
    daemon.stop();
}

/// Viewers, waiting clients and large requests do not delay the stop: the daemon ends in order.
#[test]
fn clients_do_not_delay_the_stop() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    let control = daemon.control();
    let mut clients = Vec::new();
    for words in [
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /status HTTP/1.1\r\n",
        "",
    ] {
        let mut stream = UnixStream::connect(&control).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        clients.push(stream);
    }
    wait_for(&daemon, "one watches", |counts| {
        counts.viewers == 1 && counts.connections == 4
    });
    // The call asserts that the stop takes less than the five seconds that are promised.
    daemon.stop();
    assert!(!control.exists());
}
