//! `udispatch top` as a person uses it: in a terminal, with a real daemon and real datagrams, and on a pipe.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::{Daemon, udispatch};
use crate::common::namespace::netns_test;
use crate::common::terminal::Terminal;

const CONFIG: &str = "\
    [[route]]\ndestination = \"127.0.0.1:4000\"\nhandler = \"echo\"\n\
    [[route]]\ndestination = \"127.0.0.2:4000\"\nhandler = \"drop\"\n";

fn top(control: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udispatch"));
    command
        .args(["top", "--interval", "200ms", "--control"])
        .arg(control)
        .args(options);
    command.env_remove("NO_COLOR");
    command
}

/// Sends to the second route all the time, while a function runs.
fn under_traffic<T>(act: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let client = Client::bind("127.0.0.1:0");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                client.send(b"x", "127.0.0.2:4000");
                thread::sleep(Duration::from_millis(1));
            }
        });
        // This also ends the thread if a check fails, because the scope waits for it.
        let end = End(&is_over);
        let result = act();
        drop(end);
        result
    })
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The line of a table that begins with this name, after its marks, as words.
fn row(lines: &[String], name: &str) -> Option<Vec<String>> {
    let words = lines
        .iter()
        .map(|line| line.trim_start_matches(['>', '!', ' ']));
    let line = words
        .into_iter()
        .find(|line| line.split(' ').next() == Some(name))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

/// The position of a row on the screen.
fn place(lines: &[String], name: &str) -> usize {
    let is_it = |line: &String| line.trim_start_matches(['>', '!', ' ']).starts_with(name);
    lines.iter().position(is_it).unwrap_or(usize::MAX)
}

/// A person sees rates of datagrams, sorts, filters, opens a row, changes the window, pauses and quits. Afterwards the
/// terminal is in its old state.
#[test]
fn a_person_looks() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    let mut terminal = Terminal::start(top(&daemon.control(), &[]), 80, 24);
    terminal.wait_for("udispatch serving");
    assert!(terminal.is_alternate() && !terminal.is_as_before());
    under_traffic(|| {
        let is_counted = |lines: &[String]| {
            let rate = |name, column: usize| {
                row(lines, name).and_then(|words| words[column].parse::<f64>().ok())
            };
            rate("127.0.0.2:4000", 1) > Some(0.0)
                && rate("127.0.0.2:4000", 3) > Some(0.0)
                && rate("127.0.0.1:4000", 1) == Some(0.0)
                && place(lines, "127.0.0.2:4000") < place(lines, "127.0.0.1:4000")
        };
        let lines = terminal.wait_until(
            "the busy route is the first, and counted as dropped",
            is_counted,
        );
        assert!(
            lines[1].starts_with("in ") && !lines[1].starts_with("in 0/s"),
            "{lines:#?}"
        );

        terminal.press("<");
        let by_name =
            |lines: &[String]| place(lines, "127.0.0.1:4000") < place(lines, "127.0.0.2:4000");
        let lines = terminal.wait_until("sorted by name", by_name);
        assert!(
            lines.iter().any(|line| line.contains("▲route")),
            "{lines:#?}"
        );
        terminal.press("r");
        terminal.wait_until("and the other way", |lines| {
            lines.iter().any(|line| line.contains("▼route"))
                && place(lines, "127.0.0.2:4000") < place(lines, "127.0.0.1:4000")
        });

        terminal.press("/0.0.2");
        terminal.wait_for("/0.0.2_");
        terminal.press("\r");
        let lines = terminal.wait_for("1 of 2 routes");
        assert_eq!(place(&lines, "127.0.0.1:4000"), usize::MAX, "{lines:#?}");

        terminal.press("\r");
        terminal.wait_for("dropped, by reason");
        terminal.wait_for("discarded");
        // This is the last line of the picture, so what is above it is there.
        let lines = terminal.wait_for("Esc back");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("127.0.0.2:4000  received/s of the last 2 minutes")),
            "{lines:#?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("handlers: drop")),
            "{lines:#?}"
        );
    });
    terminal.press("\u{1b}");
    // The table shows when the key was read. Two Escapes at once would be one key with Alt.
    terminal.wait_for("Esc clears");
    terminal.press("\u{1b}");
    terminal.wait_until("no filter any more", |lines| {
        row(lines, "127.0.0.1:4000").is_some()
    });
    terminal.press("2");
    terminal.wait_until("handlers", |lines| {
        row(lines, "drop").is_some() && row(lines, "echo").is_some()
    });

    terminal.resize(60, 20);
    let lines = terminal.wait_until("fits the window", |lines| {
        lines.len() == 20 && lines[19].starts_with("q quit") && row(lines, "drop").is_some()
    });
    assert!(lines[0].starts_with("udispatch serving"), "{lines:#?}");
    terminal.press(" ");
    terminal.wait_for("PAUSED");
    terminal.press("?");
    terminal.wait_for("Ctrl-C");

    terminal.press("q");
    assert_eq!(terminal.wait_for_end().code(), Some(0));
    assert!(terminal.is_as_before(), "{:?}", terminal.written());
    daemon.stop();
}

/// Signals and Ctrl-C end the command, too, and the terminal is restored.
#[test]
fn signals_give_the_terminal_back() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, 0] {
        let mut terminal = Terminal::start(top(&daemon.control(), &[]), 80, 24);
        terminal.wait_for("127.0.0.1:4000");
        assert!(!terminal.is_as_before());
        match signal {
            0 => terminal.press("\u{3}"),
            signal => terminal.signal(signal),
        }
        assert_eq!(terminal.wait_for_end().code(), Some(0), "signal {signal}");
        assert!(
            terminal.is_as_before(),
            "signal {signal}: {:?}",
            terminal.written()
        );
    }
    daemon.stop();
}

/// A daemon that goes away is reported, and found again when it is back at the same place.
#[test]
fn a_daemon_that_goes_away_is_waited_for() {
    netns_test!();
    let directory = tempfile::tempdir().expect("a directory");
    let control = directory.path().join("c.sock");
    let config = format!("[daemon]\ncontrol = \"{}\"\n{CONFIG}", control.display());
    let daemon = Daemon::start(&config);
    let mut terminal = Terminal::start(top(&control, &[]), 100, 24);
    terminal.wait_for("udispatch serving");
    daemon.stop();
    terminal.wait_for("NO RESPONSE");
    let lines = terminal.wait_for("retrying");
    assert_ne!(
        place(&lines, "127.0.0.1:4000"),
        usize::MAX,
        "what was known is still shown: {lines:#?}"
    );
    let daemon = Daemon::start(&config);
    let pid = format!("pid {}", daemon.pid());
    terminal.wait_until("it is back", |lines| {
        lines[0].contains("serving") && lines[0].contains(&pid)
    });
    terminal.press("q");
    assert_eq!(terminal.wait_for_end().code(), Some(0));
    daemon.stop();
}

/// On a pipe the command prints its tables once, with rates, and ends. As JSON it prints one object. `--once` does so
/// in a terminal, without changing its state.
#[test]
fn a_pipe_gets_one_table() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    let run = |options: &[&str]| {
        let output = top(&daemon.control(), options)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    };
    under_traffic(|| {
        let text = run(&[]);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(
            lines[0].starts_with("udispatch ") && lines[0].contains("serving"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let words = row(&lines, "127.0.0.2:4000").expect("the route");
        assert!(words[1].parse::<f64>().unwrap() > 0.0, "{text}");
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with("route "))
                .count(),
            1,
            "one table of routes: {text}"
        );
        assert!(
            row(&lines, "worker-0").is_some_and(|words| words[1] == "responsive"),
            "{text}"
        );

        let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).expect("JSON");
        assert_eq!(json["routes"][1]["route"], "127.0.0.2:4000");
        assert!(
            json["routes"][1]["received_per_second"].as_f64().unwrap() > 0.0,
            "{json}"
        );
    });
    let mut terminal = Terminal::start(top(&daemon.control(), &["--once"]), 80, 24);
    assert_eq!(terminal.wait_for_end().code(), Some(0));
    let written = terminal.written();
    assert!(
        written.contains("127.0.0.2:4000") && !written.contains("\u{1b}[?1049h"),
        "{written:?}"
    );
    daemon.stop();
}

/// If there is no daemon, the command says so and leaves the terminal alone. A wrong interval is a usage error.
#[test]
fn no_daemon_no_view() {
    let directory = tempfile::tempdir().expect("a directory");
    let control = directory.path().join("none.sock");
    let mut terminal = Terminal::start(top(&control, &[]), 80, 24);
    assert_eq!(terminal.wait_for_end().code(), Some(1));
    let written = terminal.written();
    assert!(
        written.contains("there is no control socket") && !written.contains("\u{1b}[?1049h"),
        "{written:?}"
    );
    assert!(terminal.is_as_before());
    for interval in ["0s", "2", "1ms", "2h"] {
        assert_eq!(
            udispatch(&["top", "--interval", interval]).code,
            2,
            "{interval}"
        );
    }
}

/// Without colours, alarms are still visible.
#[test]
fn no_colours_where_they_are_not_wanted() {
    netns_test!();
    let config = "[[route]]\ndestination = \"127.0.0.1:4000\"\nhandler = \"pool\"\n\
        [handler.pool]\nkind = \"forward\"\nupstreams = [\"127.0.0.9:9\"]\n\
        health = { probe = \"udp\", send = \"x\", interval = \"100ms\", timeout = \"50ms\", rise = 1, fall = 1 }\n";
    let daemon = Daemon::start(config);
    let is_coloured = |written: &str| {
        let sequences = written
            .split("\u{1b}[")
            .filter_map(|rest| rest.split_once('m').map(|(sequence, _)| sequence));
        let is_digits = |sequence: &&str| {
            sequence
                .chars()
                .all(|char| char.is_ascii_digit() || char == ';')
        };
        let mut numbers = sequences
            .filter(is_digits)
            .flat_map(|sequence| sequence.split(';'));
        numbers.any(|number| matches!(number.parse(), Ok(30..=38 | 40..=48 | 90..=107)))
    };
    for (value, expected) in [("", true), ("1", false)] {
        let mut command = top(&daemon.control(), &[]);
        command.env("NO_COLOR", value);
        let mut terminal = Terminal::start(command, 80, 24);
        terminal.wait_for("! upstream_dead");
        terminal.press("3");
        terminal.wait_for("DEAD");
        terminal.press("q");
        terminal.wait_for_end();
        assert_eq!(
            is_coloured(&terminal.written()),
            expected,
            "NO_COLOR={value}"
        );
    }
    daemon.stop();
}

/// The view ends when its terminal is gone, whether or not a SIGHUP says so, and on each signal that ends a program.
#[test]
fn it_ends_with_its_terminal() {
    netns_test!();
    let daemon = Daemon::start(CONFIG);
    let hung_up = Terminal::start(top(&daemon.control(), &[]), 80, 24);
    hung_up.wait_for("udispatch serving");
    assert_eq!(hung_up.close().code(), Some(0));
    let unnoticed = Terminal::start_in_session(top(&daemon.control(), &[]), 80, 24);
    unnoticed.wait_for("udispatch serving");
    assert_eq!(unnoticed.close().code(), Some(0));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut terminal = Terminal::start(top(&daemon.control(), &[]), 80, 24);
        terminal.wait_for("udispatch serving");
        terminal.signal(signal);
        assert_eq!(terminal.wait_for_end().code(), Some(0));
        assert!(terminal.is_as_before());
    }
}
