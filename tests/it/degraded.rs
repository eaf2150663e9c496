//! A daemon that lacks something while datagrams can still flow: the directory of its control socket, file descriptors,
//! space for its log. It continues, reports the condition, and reports its end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::common::client::Client;
use crate::common::curl::{ask, curl, get, snapshot};
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::ledger::Ledger;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, answer, answer_at_last, forwarder, list};
use udispatch::observe::snapshot::{DaemonState, Snapshot};

const HERE: &str = "127.0.0.1:1234";
const ECHO: &str = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";

/// Requests the snapshot until it satisfies the condition.
fn wait_for(
    what: &str,
    snapshot: impl Fn() -> Snapshot,
    satisfied: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    eventually(what, || {
        let seen = snapshot();
        if satisfied(&seen) {
            return Ok(seen);
        }
        Err(format!("{:?} {:?}", seen.state, seen.reasons))
    })
}

/// Mounts a small file system for the test.
fn mount(directory: &Path, options: &str) {
    run(&format!(
        "mount -t tmpfs -o {options} tmpfs {}",
        directory.display()
    ));
}

/// If the directory of the control socket cannot be written, the daemon starts, says so and serves. Over TCP it reports
/// that it is degraded, and why. This holds for a directory that the file names, and for the default one.
#[test]
fn an_unwritable_control_directory() {
    netns_test!(with = [mounts]);
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "ro,size=64k");
    let place = directory.path().display();
    let named =
        format!("[daemon]\nhttp = \"127.0.0.1:9253\"\ncontrol = \"{place}/control.sock\"\n{ECHO}");
    let default = format!("[daemon]\nhttp = \"127.0.0.1:9253\"\n{ECHO}");
    let under = format!("env RUNTIME_DIRECTORY={place}");
    for (config, said) in [
        (&named, "cannot create the control socket"),
        (&default, "cannot create the control socket"),
    ] {
        let mut daemon = if config == &default {
            // The wrapper sets a directory that cannot be used, because tests otherwise give each daemon one that can.
            Daemon::of(config)
                .under(&under.split(' ').collect::<Vec<_>>())
                .start()
        } else {
            Daemon::start(config)
        };
        let warning = daemon
            .log()
            .iter()
            .find(|line| line.contains(said))
            .expect("it is logged")
            .clone();
        assert!(
            warning.contains("WARN") && warning.contains("Read-only file system"),
            "{warning}"
        );
        assert!(
            warning.contains("et `control`"),
            "it says what to do: {warning}"
        );
        assert_eq!(Client::bind("127.0.0.1:0").ask(b"hello", HERE).0, b"hello");
        let answer = curl(&["http://127.0.0.1:9253/status"]);
        let seen: Snapshot = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(seen.state, DaemonState::Degraded);
        assert!(
            seen.reasons.len() == 1 && warning.contains(&seen.reasons[0]),
            "{:?}",
            seen.reasons
        );
        assert_eq!(
            curl(&["http://127.0.0.1:9253/readyz"]).status,
            200,
            "datagrams can be sent"
        );
        assert_eq!(
            daemon
                .ledger_when(|ledger| ledger.received() == 1)
                .received(),
            1
        );
        daemon.stop();
    }
}

/// No file can be opened any more while there are sessions. The sessions continue, new clients are refused with a
/// reason, and the log says it once. The status can be requested by one client after another, while connected clients
/// keep their connections. The daemon does not busy-loop, and a reload is refused and changes nothing. When the
/// condition is over, everything is as before.
#[test]
fn files_run_out() {
    netns_test!(needs = ["prlimit"]);
    let upstream = Server::reporting(Client::bind("127.0.0.1:9001"));
    let config = forwarder("on", HERE, &list([upstream.address()]), "");
    let mut daemon = Daemon::of(&config)
        .under(&["prlimit", "--nofile=1000:1000"])
        .start();
    let established: Vec<Client> = (0..20).map(|_| Client::newcomer()).collect();
    let before: Vec<String> = established
        .iter()
        .map(|client| answer(client, HERE))
        .collect();
    assert_eq!(snapshot(&daemon).state, DaemonState::Serving);
    let pid = daemon.pid();
    let limit = |files: usize| run(&format!("prlimit --pid {pid} --nofile={files}:1000"));
    limit(daemon.next_file());
    let begun = Instant::now();
    let said = daemon.wait_for("no more files can be opened");
    assert!(
        said.contains("WARN")
            && said.contains("LimitNOFILE=")
            && said.contains("Too many open files"),
        "{said}"
    );

    let degraded = |daemon: &Daemon| {
        let outcome = ask(daemon, &["status"]);
        assert_eq!(outcome.code, 0, "{}", outcome.errors);
        outcome.output.contains("degraded")
            && outcome.output.contains("no more files can be opened")
    };
    (0..5).for_each(|_| assert!(degraded(&daemon)));
    (0..30).for_each(|_| Client::newcomer().send(b"no room", HERE));
    let refused = wait_for(
        "refused by name",
        || snapshot(&daemon),
        |seen| seen.drops.get("no_port") == Some(&30),
    );
    assert!(
        refused.send_errors.is_empty() && refused.balances,
        "{refused:?}"
    );
    let failed: Vec<i32> = refused.upstreams[0]
        .failed
        .iter()
        .map(|(errno, _)| errno)
        .collect();
    assert_eq!(failed, [libc::EMFILE], "{refused:?}");

    // This file would add a listener. A file that changes nothing needs no descriptor.
    fs::write(
        daemon.file(),
        format!("{config}\n[[route]]\ndestination = \"127.0.0.1:1235\"\nhandler = \"echo\"\n"),
    )
    .unwrap();
    let reload = ask(&daemon, &["reload"]);
    assert_eq!(reload.code, 1, "{}", reload.output);
    assert!(
        reload.errors.contains("Too many open files"),
        "{}",
        reload.errors
    );
    let now = snapshot(&daemon);
    assert_eq!(
        (now.generation, now.reloads.refused, now.routes.len()),
        (0, 1, 1)
    );
    assert_eq!(now.alarms, [], "what cannot be looked at is no alarm");

    // A silent client takes the one connection that is left. Others wait, and are let in when its time is over.
    let silent = std::os::unix::net::UnixStream::connect(daemon.control()).unwrap();
    assert!(degraded(&daemon));
    drop(silent);
    let stats = snapshot(&daemon).admin;
    let paces = u64::try_from(begun.elapsed().as_millis() / 100).unwrap();
    assert!(
        (1..=stats.accepted + paces).contains(&stats.failed_accepts),
        "once for each connection, and else ten times a second at most: {stats:?} in {paces} tenths"
    );

    for (client, before) in established.iter().zip(&before) {
        assert_eq!(&answer(client, HERE), before, "its session, and its port");
    }
    limit(1_000);
    daemon.wait_for("files can be opened again");
    let over = snapshot(&daemon);
    assert_eq!((over.state, over.reasons.len()), (DaemonState::Serving, 0));
    answer_at_last(&Client::newcomer(), HERE);
    assert_eq!(ask(&daemon, &["reload"]).code, 0);
    assert_eq!(Client::newcomer().ask(b"new", "127.0.0.1:1235").0, b"new");
    let told = daemon
        .log()
        .iter()
        .filter(|line| line.contains("no more files can be opened"))
        .count();
    assert_eq!(told, 1, "once: {:#?}", daemon.log());
    daemon.stop();
}

/// The disk of the log is full. Datagrams flow, nothing ends, and the status says that the log cannot be written, and
/// why. When there is space again, the log gets what was held back, in whole lines, and the state is what it was.
#[test]
fn a_full_disk_under_the_log() {
    netns_test!(with = [mounts]);
    let disk = tempfile::tempdir().unwrap();
    mount(disk.path(), "size=64k");
    let log = disk.path().join("log");
    let filler = disk.path().join("filler");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap();
    let daemon = Daemon::of(ECHO).log(file.into()).start();
    let client = Client::bind("127.0.0.1:0");
    answer_at_last(&client, HERE);
    eventually("a control socket", || get(&daemon, "/livez").status == 200);
    assert_eq!(snapshot(&daemon).state, DaemonState::Serving);
    let mut rest = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&filler)
        .unwrap();
    while rest.write_all(&[b'-'; 512]).is_ok() {}

    let seen = wait_for(
        "no room for the log",
        || {
            // The last page of the log may have space for some of it.
            daemon.signal(libc::SIGUSR1);
            snapshot(&daemon)
        },
        |seen| seen.state == DaemonState::Degraded,
    );
    assert_eq!(seen.reasons.len(), 1, "{:?}", seen.reasons);
    assert!(
        seen.reasons[0].starts_with("the log cannot be written: No space left on device"),
        "{:?}",
        seen.reasons
    );
    let outcome = ask(&daemon, &["status"]);
    assert!(
        outcome.code == 0 && outcome.output.contains(&seen.reasons[0]),
        "{}",
        outcome.output
    );
    let written = fs::metadata(&log).unwrap().len();
    for _ in 0..20 {
        daemon.signal(libc::SIGUSR1);
        assert_eq!(client.ask(b"still there?", HERE).0, b"still there?");
    }
    assert_eq!(
        fs::metadata(&log).unwrap().len(),
        written,
        "the disk is full all the while"
    );

    drop(rest);
    fs::remove_file(&filler).unwrap();
    wait_for(
        "room again",
        || snapshot(&daemon),
        |seen| seen.state == DaemonState::Serving,
    );
    let told = eventually("the log can be written again", || {
        let told = fs::read_to_string(&log).unwrap();
        if told.contains("the log can be written again") {
            return Ok(told);
        }
        Err(told)
    });
    assert!(fs::metadata(&log).unwrap().len() > written);
    // Ledgers that were begun on a full disk ended where they stopped.
    assert_eq!(
        told.matches("listener ").count(),
        told.matches("balance: exact").count(),
        "{told}"
    );
    assert_eq!(daemon.end(libc::SIGTERM), Some(0));
    let lines: Vec<String> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    let last = lines
        .iter()
        .rposition(|line| line.starts_with("listener "))
        .expect("the last accounts are there");
    Ledger::parse(&lines[last..]).assert_balanced();
}
