//! `udispatch tap` with the real daemon: it shows what happened to each datagram, costs the daemon none, reports what
//! it missed, and ends when it should. The latency, which is measured at the same place, is tested here, too.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::curl::{ask, curl, get, post, snapshot};
use crate::common::daemon::{Daemon, udispatch};
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, answer_at_last, forwarder, list};
use crate::common::{TIMEOUT, eventually};
use udispatch::observe::tap::{TapCount, TapLine, TappedDatagram};

const HERE: &str = "127.0.0.1:1234";
const ECHO: &str = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";

/// A running `udispatch tap`, until it is dropped.
struct TapReader {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl TapReader {
    /// Starts the command, and waits until every worker copies datagrams.
    fn start(daemon: &Daemon, options: &[&str]) -> TapReader {
        let (mut tap_reader, output) = TapReader::unread(daemon, options);
        tap_reader.lines = read(output);
        tap_reader
    }

    /// Starts the command, waits until every worker copies datagrams, and returns its unread output as well.
    fn unread(daemon: &Daemon, options: &[&str]) -> (TapReader, ChildStdout) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udispatch"));
        command
            .arg("tap")
            .arg("--control")
            .arg(daemon.control())
            .args(options);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("udispatch starts");
        let output = child.stdout.take().unwrap();
        let tap_reader = TapReader {
            lines: channel().1,
            errors: read(child.stderr.take().unwrap()),
            child,
        };
        let first = tap_reader.errors.recv_timeout(TIMEOUT).expect("it begins");
        assert!(first.contains("tapping"), "{first}");
        (tap_reader, output)
    }

    /// The next line of JSON.
    fn next(&self) -> TapLine {
        let line = self.lines.recv_timeout(TIMEOUT).expect("a line comes");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The next datagram.
    fn datagram(&self) -> TappedDatagram {
        loop {
            if let TapLine::Datagram(datagram) = self.next() {
                return *datagram;
            }
        }
    }

    /// All datagrams until the command ends by itself, and the last count.
    fn rest(&self) -> (Vec<TappedDatagram>, TapCount) {
        let mut datagrams = Vec::new();
        let mut last = TapCount::default();
        while last.end.is_none() {
            match self.next() {
                TapLine::Datagram(datagram) => datagrams.push(*datagram),
                TapLine::Count(count) => last = count,
            }
        }
        (datagrams, last)
    }

    /// Waits for the end of the command. Returns its exit code.
    fn code(&mut self) -> Option<i32> {
        eventually("its end", || self.child.try_wait().unwrap()).code()
    }

    fn signal(&self, signal: &str) {
        run(&format!("kill -{signal} {}", self.child.id()));
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Source, destination, route, verdict, the verdicts of the handlers, and payload, as words in the form in which they
/// are compared.
fn words(datagram: &TappedDatagram) -> String {
    let TappedDatagram {
        src,
        dst,
        route,
        verdict,
        handlers,
        upstream,
        payload,
        ..
    } = datagram;
    let handlers: Vec<_> = handlers
        .iter()
        .map(|said| format!("{}={}", said.handler, said.verdict))
        .collect();
    let ends = src.zip(*dst).map_or("nobody".to_owned(), |(src, dst)| {
        format!("{} > {dst}", src.ip())
    });
    let from = upstream
        .as_ref()
        .map_or(String::new(), |upstream| format!(" of {upstream}"));
    let route = route.as_deref().unwrap_or("no route");
    format!(
        "{} {ends}{from} | {route} | {verdict} [{}] {}",
        datagram.direction,
        handlers.join(" "),
        payload.as_deref().unwrap_or("?")
    )
}

/// Datagrams that are handled, dropped by one handler of two, dropped by all, or without a route, and the reply of an
/// upstream. Each is shown with what happened to it, and with its sender even where no handler uses that.
#[test]
fn each_datagram_with_its_route_and_verdict() {
    netns_test!();
    let server = Server::named("a", "127.0.0.1:9001");
    let config = forwarder("on", "127.0.0.1:1236", &list([server.address()]), "")
        + ECHO
        + "[[route]]\ndestination = \"127.0.0.2:1234\"\nhandler = \"drop\"\n\
           [[route]]\nname = \"both\"\ndestination = \"127.0.0.3:1234\"\nhandler = [\"drop\", \"echo\"]\n\
           [[route]]\ndestination = \"0.0.0.0:1235\"\nsource = \"127.0.0.9\"\nhandler = \"echo\"\n";
    let daemon = Daemon::start(&config);
    let tap_reader = TapReader::start(&daemon, &["--json"]);
    let client = Client::bind("127.0.0.5:0");
    let cases = [
        (
            HERE,
            "request 127.0.0.5 > 127.0.0.1:1234 | 127.0.0.1:1234 | handled [echo=handled] 1",
        ),
        (
            "127.0.0.2:1234",
            "request 127.0.0.5 > 127.0.0.2:1234 | 127.0.0.2:1234 | discarded [drop=discarded] 2",
        ),
        (
            "127.0.0.3:1234",
            "request 127.0.0.5 > 127.0.0.3:1234 | both | handled [drop=discarded echo=handled] 3",
        ),
        (
            "127.0.0.1:1235",
            "request 127.0.0.5 > 127.0.0.1:1235 | no route | no_route [] 4",
        ),
        (
            "127.0.0.1:1236",
            "request 127.0.0.5 > 127.0.0.1:1236 | 127.0.0.1:1236 | handled [on=handled] 5",
        ),
    ];
    for (number, (to, expected)) in cases.iter().enumerate() {
        client.send((number + 1).to_string().as_bytes(), to);
        let datagram = tap_reader.datagram();
        assert_eq!(words(&datagram), *expected);
        assert_eq!((datagram.length, datagram.src), (1, Some(client.address())));
    }
    let expected =
        "reply 127.0.0.1 > CLIENT of 127.0.0.1:9001 | no route | handled [on=handled] a:5";
    let answer = tap_reader.datagram();
    assert_eq!(
        words(&answer),
        expected.replace("CLIENT", &client.address().to_string())
    );
    assert_eq!(answer.src, Some("127.0.0.1:1236".parse().unwrap()));
    daemon.stop();
    let (datagrams, last) = tap_reader.rest();
    assert_eq!((datagrams.len(), last.end.as_deref()), (0, Some("stopped")));
    assert_eq!((last.matched, last.shown, last.missed), (6, 6, 0));
}

/// Each filter passes what it should and nothing else, and two filters pass what both do. The limit ends the command.
/// Text and colours are for people: there is no escape sequence on a pipe, and each payload is on one line.
#[test]
fn filters_and_the_limit() {
    netns_test!();
    let config = ECHO.to_owned()
        + "[[route]]\ndestination = \"0.0.0.0:1235\"\nhandler = [\"drop\", \"echo\"]\n";
    let daemon = Daemon::of(&config).workers(2).start();
    let filters: [(&[&str], &[u8]); 6] = [
        (&["--to", HERE], b"13"),
        (&["--to", "127.0.0.2"], b"56"),
        (&["--to", ":1235"], b"2456"),
        (&["--from", "127.0.0.8/30"], b"346"),
        (&["--handler", "drop"], b"2456"),
        (
            &[
                "--from",
                "127.0.0.8/30",
                "--to",
                ":1235",
                "--handler",
                "echo",
            ],
            b"46",
        ),
    ];
    let near = Client::bind("127.0.0.7:0");
    let far = Client::bind("127.0.0.9:0");
    for (options, expected) in filters {
        let limit = expected.len().to_string();
        let mut tap_reader =
            TapReader::start(&daemon, &[options, &["--json", "--limit", &limit]].concat());
        near.send(b"1", HERE);
        near.send(b"2", "127.0.0.1:1235");
        far.send(b"3", HERE);
        far.send(b"4", "127.0.0.1:1235");
        near.send(b"5", "127.0.0.2:1235");
        far.send(b"6", "127.0.0.2:1235");
        let (datagrams, last) = tap_reader.rest();
        let mut seen: Vec<u8> = datagrams
            .iter()
            .map(|datagram| datagram.payload.as_ref().unwrap().as_bytes()[0])
            .collect();
        seen.sort_unstable();
        assert_eq!(
            (seen.as_slice(), last.end.as_deref()),
            (expected, Some("limit")),
            "{options:?}"
        );
        assert_eq!(tap_reader.code(), Some(0));
    }
    let mut tap_reader = TapReader::start(&daemon, &["--limit", "1"]);
    near.send(b"a\x1b[2J\nb", HERE);
    let line = tap_reader.lines.recv_timeout(TIMEOUT).unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
    let from = near.address();
    let expected =
        format!("{from} > 127.0.0.1:1234 (route 127.0.0.1:1234, echo handled) 7 B: a\\x1b[2J\\nb");
    assert_eq!((rest, tap_reader.code()), (expected.as_str(), Some(0)));
    daemon.stop();
}

/// Impossible requests are refused with a message that helps. Only clients of the control socket see payloads.
#[test]
fn who_may_not_look() {
    netns_test!();
    let config = "[daemon]\nhttp = \"127.0.0.1:9253\"\n".to_owned() + ECHO;
    let daemon = Daemon::start(&config);
    for (options, code, expected) in [
        (
            ["--handler", "ecko"],
            2,
            "there is no handler \"ecko\"; did you mean \"echo\"?",
        ),
        (
            ["--to", "localhost:53"],
            2,
            "write an address, a port or both",
        ),
        (["--from", "10.0.0.0/33"], 2, "write an address or a prefix"),
        (["--limit", "0"], 2, "0 is not in 1.."),
    ] {
        let outcome = ask(&daemon, &[&["tap"], &options[..]].concat());
        assert!(
            outcome.code == code && outcome.errors.contains(expected),
            "{}: {}",
            outcome.code,
            outcome.errors
        );
    }
    let answer = curl(&["http://127.0.0.1:9253/tap"]);
    assert!(
        answer.status == 403 && answer.body.contains("not shown over TCP"),
        "{} {}",
        answer.head,
        answer.body
    );
    daemon.stop();
}

/// A reader on a pipe may end after a line, as `head -1` does. The command ends then, though no further datagram comes.
/// A file is written on, whether standard output is read or not.
#[test]
fn it_ends_with_its_reader() {
    netns_test!();
    let daemon = Daemon::start(ECHO);
    let file = daemon.file().with_file_name("on.pcapng");
    let client = Client::bind("127.0.0.1:0");
    let (mut head, output) = TapReader::unread(&daemon, &[]);
    let (mut kept, _) = TapReader::unread(&daemon, &["--pcap", file.to_str().unwrap()]);
    client.ask(b"x", HERE);
    BufReader::new(output)
        .read_line(&mut String::new())
        .unwrap();
    assert_eq!(head.code(), Some(0));
    assert!(kept.child.try_wait().unwrap().is_none(), "this one goes on");
    kept.signal("INT");
    assert_eq!(kept.code(), Some(0));
    daemon.stop();
}

/// If nothing can be tapped, the output file keeps its contents. Otherwise it is replaced.
#[test]
fn a_refusal_leaves_the_file() {
    netns_test!();
    let daemon = Daemon::start(ECHO);
    let path = daemon.file().with_file_name("kept.pcapng");
    let file = path.to_str().unwrap().to_owned();
    fs::write(&path, "of yesterday").unwrap();
    let outcome = ask(&daemon, &["tap", "--handler", "ecko", "--pcap", &file]);
    assert_eq!(
        (outcome.code, &*fs::read(&path).unwrap()),
        (2, &b"of yesterday"[..]),
        "{}",
        outcome.errors
    );
    let outcome = udispatch(&["tap", "--control", "/nowhere/control.sock", "--pcap", &file]);
    assert_eq!(
        (outcome.code, &*fs::read(&path).unwrap()),
        (1, &b"of yesterday"[..]),
        "{}",
        outcome.errors
    );
    let outcome = ask(&daemon, &["tap", "--pcap", "/nowhere/file"]);
    assert!(
        outcome.code == 1 && outcome.errors.contains("cannot write /nowhere/file"),
        "{}",
        outcome.errors
    );
    drop(TapReader::start(&daemon, &["--pcap", &file]));
    assert!(
        fs::read(&path).unwrap().starts_with(b"\n\r\r\n"),
        "a file of pcapng"
    );
    daemon.stop();
}

/// There are eight places for tap readers. A reader that ends in any way frees its place and costs nothing more.
#[test]
fn places_are_given_back() {
    netns_test!();
    let daemon = Daemon::of(ECHO).workers(2).start();
    let client = Client::bind("127.0.0.1:0");
    for death in ["KILL", "INT"] {
        let mut tap_readers: Vec<TapReader> = (0..8)
            .map(|_| TapReader::start(&daemon, &["--json"]))
            .collect();
        client.ask(b"x", HERE);
        tap_readers
            .iter()
            .for_each(|tap_reader| assert_eq!(tap_reader.datagram().payload.as_deref(), Some("x")));
        let outcome = ask(&daemon, &["tap"]);
        assert!(
            outcome.code == 1 && outcome.errors.contains("8 taps are open already"),
            "{}",
            outcome.errors
        );
        tap_readers
            .iter()
            .for_each(|tap_reader| tap_reader.signal(death));
        let expected = if death == "INT" { Some(0) } else { None };
        tap_readers
            .iter_mut()
            .for_each(|tap_reader| assert_eq!(tap_reader.code(), expected, "{death}"));
        eventually("their threads end", || tap_threads(&daemon) == 0);
    }
    drop(TapReader::start(&daemon, &[]));
    daemon.stop();
}

/// The number of threads that format datagrams.
fn tap_threads(daemon: &Daemon) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let is_tap = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "tap\n")
    };
    tasks
        .filter_map(Result::ok)
        .filter(|task| fs::metadata(task.path()).is_ok())
        .map(is_tap)
        .filter(|is| *is)
        .count()
}

/// A flood, with one reader that is stopped and one that reads. Datagrams that the kernel gave to the daemon are
/// handled as without a tap. Shown and missed are together exactly these, and the reader gets both numbers.
#[test]
fn a_flood_loses_nothing_to_those_who_look() {
    const DATAGRAMS: u64 = 60_000;
    netns_test!();
    let config = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"drop\"\n";
    let daemon = Daemon::of(config).workers(2).start();
    let still = TapReader::start(&daemon, &["--json"]);
    let reading = TapReader::start(&daemon, &["--json"]);
    still.signal("STOP");
    let client = Client::bind("127.0.0.1:0");
    let bytes = [7_u8; 1_000];
    for number in 0..DATAGRAMS {
        client.send(&bytes, HERE);
        if number % 500 == 0 {
            // The flood is no faster than the daemon, because kernel drops are not the subject here. It is short,
            // because a reader that is stopped for ten seconds is disconnected.
            eventually("the daemon keeps up", || queued("0100007F:04D2") == 0);
        }
    }
    let row = eventually("all are accounted for", || {
        let row = snapshot(&daemon).listeners.remove(0);
        if row.account.received + row.counters.kernel_drops == DATAGRAMS {
            return Ok(row);
        }
        Err(format!("{row:?}"))
    });
    assert_eq!(
        (row.account.received, row.counters.kernel_drops),
        (DATAGRAMS, 0)
    );
    still.signal("CONT");
    let seen = [&still, &reading].map(|tap_reader| {
        let mut shown = 0;
        let mut last = TapCount::default();
        while shown + last.missed < DATAGRAMS {
            match tap_reader.next() {
                TapLine::Count(count) => last = count,
                TapLine::Datagram(datagram) => {
                    assert_eq!(
                        (datagram.length, datagram.verdict.as_str()),
                        (1_000, "discarded")
                    );
                    shown += 1;
                }
            }
        }
        (shown, last.missed)
    });
    assert_eq!(daemon.stop().listener(HERE).received, DATAGRAMS);
    assert!(
        seen[0].1 > 0,
        "a reader that stands still misses something: {seen:?}"
    );
    for (tap_reader, (shown, missed)) in [still, reading].iter().zip(seen) {
        let (datagrams, last) = tap_reader.rest();
        assert_eq!((datagrams.len(), last.end.as_deref()), (0, Some("stopped")));
        assert_eq!(
            (last.matched, last.shown, last.missed),
            (DATAGRAMS, shown, missed)
        );
        if missed > 0 {
            let expected = format!("sampled: {shown} of {DATAGRAMS} shown; {missed} were missed");
            let told = tap_reader
                .errors
                .iter()
                .find(|line| line.contains("were missed"));
            assert!(
                told.as_ref().is_some_and(|line| line.contains(&expected)),
                "{told:?} lacks {expected}"
            );
        }
    }
}

/// Number of bytes in the queues of the sockets on this address, in the notation of /proc/net/udp (`rx_queue`).
fn queued(address: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let rows = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1] == address)
        .map(|row| row[4].split_once(':').expect("two queues").1)
        .map(|bytes| u64::from_str_radix(bytes, 16).expect("a number"))
        .sum()
}

/// A reload replaces the workers. A tap continues, and shows the new names.
#[test]
fn a_reload_does_not_end_it() {
    netns_test!();
    let daemon = Daemon::of(ECHO).workers(2).start();
    let tap_reader = TapReader::start(&daemon, &["--json", "--handler", "echo"]);
    let client = Client::bind("127.0.0.1:0");
    client.ask(b"before", HERE);
    assert_eq!(tap_reader.datagram().route.as_deref(), Some(HERE));
    let config = "[[route]]\ndestination = \"127.0.0.2:1234\"\nhandler = \"drop\"\n".to_owned()
        + &ECHO.replace("handler =", "name = \"renamed\"\nhandler =");
    fs::write(daemon.file(), config).unwrap();
    assert!(post(&daemon, "/reload").status == 200);
    Client::bind("127.0.0.1:0").send(b"dropped", "127.0.0.2:1234");
    // Between the end of the old workers and the first copies of the new ones, nothing is copied.
    let line = eventually("something is seen after the reload", || {
        client.ask(b"after", HERE);
        tap_reader
            .lines
            .recv_timeout(Duration::from_millis(50))
            .ok()
    });
    let seen = serde_json::from_str::<TapLine>(&line).unwrap();
    let TapLine::Datagram(datagram) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (datagram.payload.as_deref(), datagram.route.as_deref()),
        (Some("after"), Some("renamed"))
    );
    daemon.stop();
}

/// tshark reads the file: addresses, ports, payloads, correct checksums, times in order, and a comment with what
/// happened to each datagram.
#[test]
fn tshark_reads_the_file() {
    netns_test!(needs = ["tshark"]);
    let config = ECHO.to_owned()
        + "[[route]]\nname = \"six\"\ndestination = \"[::1]:1234\"\nhandler = [\"drop\", \"echo\"]\n\
           [[route]]\ndestination = \"0.0.0.0:1235\"\nsource = \"127.0.0.9\"\nhandler = \"echo\"\n";
    let daemon = Daemon::start(&config);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("seen.pcapng");
    let file = file.to_str().unwrap();
    let mut tap_reader = TapReader::start(&daemon, &["--pcap", file, "--limit", "5"]);
    let v4 = Client::bind("127.0.0.5:0");
    let v6 = Client::bind("[::1]:0");
    let long = vec![b'x'; 60_001];
    v4.ask(b"hello", HERE);
    v4.ask(b"", HERE);
    v6.ask(b"odd", "[::1]:1234");
    v4.ask(&long, HERE);
    v4.send(b"lost", "127.0.0.1:1235");
    assert_eq!(tap_reader.code(), Some(0));
    let fields = "ip.src ipv6.src udp.srcport ip.dst ipv6.dst udp.dstport udp.length udp.checksum.status \
                  ip.checksum.status udp.payload frame.comment";
    let mut tshark = Command::new("tshark");
    tshark.args([
        "-n",
        "-r",
        file,
        "-o",
        "udp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ]);
    // tshark takes port 1234 for another protocol, and its complaints do not matter here.
    tshark.args([
        "--disable-protocol",
        "data",
        "-T",
        "fields",
        "-E",
        "separator=|",
    ]);
    fields
        .split_whitespace()
        .for_each(|field| _ = tshark.args(["-e", field]));
    let output = tshark.env("HOME", directory.path()).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let from = v4.address().port();
    let six = v6.address().port();
    let xs = "78".repeat(60_001);
    let expected = [
        format!(
            "127.0.0.5||{from}|127.0.0.1||1234|13|1|1|68656c6c6f|route 127.0.0.1:1234, echo handled"
        ),
        format!("127.0.0.5||{from}|127.0.0.1||1234|8|1|1||route 127.0.0.1:1234, echo handled"),
        format!("|::1|{six}||::1|1234|11|1||6f6464|route six, drop discarded, echo handled"),
        format!(
            "127.0.0.5||{from}|127.0.0.1||1234|60009|1|1|{xs}|route 127.0.0.1:1234, echo handled"
        ),
        format!("127.0.0.5||{from}|127.0.0.1||1235|12|1|1|6c6f7374|no_route"),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    let output = Command::new("tshark")
        .args(["-n", "-r", file, "-T", "fields", "-e", "frame.time_epoch"])
        .output()
        .unwrap();
    let times = String::from_utf8(output.stdout).unwrap();
    let times: Vec<f64> = times.lines().map(|time| time.parse().unwrap()).collect();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(
        times.is_sorted() && now - times[0] < 600.0 && times[4] <= now,
        "{times:?} at {now}"
    );
    daemon.stop();
}

/// With `latency = true` each handled datagram is measured once, each one of a train, and no dropped one, in status and
/// metrics alike. Without it there is no latency.
#[test]
fn time_in_the_daemon_is_measured() {
    netns_test!();
    let server = Server::named("a", "127.0.0.1:9001");
    let routes = forwarder("on", "127.0.0.1:1236", &list([server.address()]), "")
        + ECHO
        + "[[route]]\ndestination = \"127.0.0.2:1234\"\nhandler = \"drop\"\n";
    let daemon = Daemon::of(&("[daemon]\nlatency = true\n".to_owned() + &routes))
        .workers(2)
        .start();
    let client = Client::bind("127.0.0.1:0");
    answer_at_last(&client, "127.0.0.1:1236");
    for _ in 0..20 {
        client.ask(b"x", HERE);
        client.send(b"x", "127.0.0.2:1234");
    }
    client.send_segmented(&[0; 1_050], 100, HERE);
    (0..11).for_each(|_| _ = client.receive());
    let seen = eventually("twenty are dropped", || {
        let seen = snapshot(&daemon);
        let dropped: u64 = seen.listeners.iter().map(|row| row.account.dropped).sum();
        (dropped == 20).then_some(seen)
    });
    let handled: u64 = seen.listeners.iter().map(|row| row.account.handled).sum();
    let latency = seen.latency.expect("it is measured");
    assert!(handled >= 32, "{handled}");
    assert_eq!(latency.count, handled);
    let p50 = latency.p50_seconds.unwrap();
    let p99 = latency.p99_seconds.unwrap();
    assert!(
        0.0 < p50 && p50 <= p99 && p99 <= latency.p999_seconds.unwrap(),
        "{latency:?}"
    );
    let last = latency.buckets.last().unwrap();
    assert!(
        latency.sum_seconds > 0.0 && last.count <= handled && last.up_to_seconds > 10.0,
        "{latency:?}"
    );
    let text = get(&daemon, "/metrics").body;
    for line in [
        format!("bucket{{le=\"+Inf\"}} {handled}"),
        format!("count {handled}"),
        "bucket{le=\"0.000005\"} ".to_owned(),
    ] {
        assert!(
            text.contains(&format!("udispatch_time_in_daemon_seconds_{line}")),
            "{line} in {text}"
        );
    }
    daemon.stop();
    let daemon = Daemon::start(&routes);
    client.ask(b"x", HERE);
    assert!(
        snapshot(&daemon).latency.is_none()
            && !get(&daemon, "/metrics").body.contains("time_in_daemon")
    );
    daemon.stop();
}
