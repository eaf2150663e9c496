//! Reload and takeover, each promise by itself: what is kept is the very same, and what goes is read to its end. `soak.rs` shows
//! all of it together and under load, `takeover_faults.rs` what happens when a takeover goes wrong.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use udispatch::observe::snapshot::{DaemonState, Snapshot};

use crate::common::client::Client;
use crate::common::curl::{ask, curl, snapshot};
use crate::common::daemon::{Daemon, udispatch};
use crate::common::eventually;
use crate::common::namespace::netns_test;
use crate::common::restart::{
    Talker, asked, process, processes_here, reload, served_by_another, sockets, status, successor,
    tell, telling,
};
use crate::common::upstream::{answer, forwarder, list};

/// An exact listener that goes away beside a wildcard of its port: from one datagram to the next they are the wildcard's, and
/// when it comes back, its own again. Not one is lost.
#[test]
fn an_exact_listener_goes_and_comes() {
    netns_test!();
    let wildcard =
        "[[route]]\nname = \"all\"\ndestination = \"0.0.0.0:1000\"\nhandler = \"drop\"\n";
    let both = format!(
        "{wildcard}[[route]]\nname = \"one\"\ndestination = \"127.0.0.2:1000\"\nhandler = \"drop\"\n"
    );
    let mut daemon = Daemon::start(&both);
    let is_over = Arc::new(AtomicBool::new(false));
    let sender = {
        let is_over = Arc::clone(&is_over);
        thread::spawn(move || {
            let (client, mut sent) = (Client::newcomer(), 0);
            while !is_over.load(Ordering::Relaxed) {
                client.send(b"to one", "127.0.0.2:1000");
                sent += 1;
                if sent % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            sent
        })
    };
    for _ in 0..5 {
        reload(&mut daemon, wildcard);
        thread::sleep(Duration::from_millis(30));
        reload(&mut daemon, &both);
        thread::sleep(Duration::from_millis(30));
    }
    is_over.store(true, Ordering::Relaxed);
    let sent: u64 = sender.join().unwrap();
    let ledger = daemon.ledger_when(|ledger| ledger.received() + ledger.kernel_drops() >= sent);
    assert_eq!((ledger.received(), ledger.kernel_drops()), (sent, 0));
    assert!(
        ledger.route("all").received > 0 && ledger.listener("(removed)").received > 0,
        "{ledger:#?}"
    );
    daemon.stop();
}

/// Sessions go on with their source port where their upstream stays. One whose upstream is gone from the file is served to its
/// end: what that upstream still says reaches its client.
#[test]
fn sessions_go_on() {
    netns_test!();
    let first = telling("127.0.0.1:9001");
    let second = Client::bind("127.0.0.1:9002");
    let config =
        |upstreams: &str| forwarder("on", "127.0.0.1:1000", upstreams, "pick = \"round_robin\"");
    let both = list([first.address(), second.address()]);
    let mut daemon = Daemon::start(&config(&both));
    let [stays, goes] = [Client::newcomer(), Client::newcomer()];
    let port = answer(&stays, "127.0.0.1:1000");
    goes.send(b"?", "127.0.0.1:1000");
    let (_, session) = second.receive();
    let before = sockets(daemon.pid());
    reload(&mut daemon, &config(&both));
    assert_eq!(
        sockets(daemon.pid()),
        before,
        "an unchanged file changes no socket"
    );
    reload(&mut daemon, &config(&list([first.address()])));
    assert_eq!(answer(&stays, "127.0.0.1:1000"), port);
    second.send(b"at last", &session.to_string());
    assert_eq!(goes.receive().0, b"at last");
    // From now on the client is the other one's.
    assert_ne!(answer(&goes, "127.0.0.1:1000"), port);
    let retired = |snapshot: &Snapshot| {
        snapshot
            .handlers
            .iter()
            .filter(|row| row.handler.contains("retired"))
            .count()
    };
    let now = snapshot(&daemon);
    assert!(retired(&now) == 1 && now.balances, "{now:#?}");
    daemon.stop();
}

/// The address alone is that of the handler in the file, though one that a reload has retired has the same upstream; that one is
/// drained by its full name.
#[test]
fn the_retired_are_drained_by_full_name() {
    netns_test!();
    let (first, second) = (telling("127.0.0.1:9001"), telling("127.0.0.1:9002"));
    let config = |upstreams: &str| forwarder("on", "127.0.0.1:1000", upstreams, "");
    let mut daemon = Daemon::start(&config(&list([first.address(), second.address()])));
    let clients = [Client::newcomer(), Client::newcomer()];
    clients
        .iter()
        .for_each(|client| _ = answer(client, "127.0.0.1:1000"));
    reload(&mut daemon, &config(&list([first.address()])));
    let rows = snapshot(&daemon).handlers;
    let retired = rows
        .iter()
        .find(|row| row.handler.contains("retired"))
        .expect("one serves a session to its end");
    let drain = |upstream: &str| ask(&daemon, &["drain", upstream]);
    let outcome = drain("127.0.0.1:9001");
    assert!(
        outcome.code == 0
            && outcome
                .output
                .contains("of handler on gets no new sessions"),
        "{}",
        outcome.errors
    );
    let outcome = drain("127.0.0.1:9002");
    assert!(
        outcome.code == 2 && outcome.errors.contains("there is no upstream"),
        "{}",
        outcome.errors
    );
    let outcome = drain(&format!("{}/127.0.0.1:9002", retired.handler));
    assert!(
        outcome.code == 0 && outcome.output.contains("(retired 0) gets no new sessions"),
        "{}",
        outcome.errors
    );
    daemon.stop();
}

/// A file that is wrong, or whose own tests fail, changes nothing; a dry run opens nothing; each is told.
#[test]
fn a_wrong_file_changes_nothing() {
    netns_test!();
    let good = "[[route]]\nname = \"one\"\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n";
    let daemon = Daemon::start(good);
    let ask = |words: &[&str]| {
        let control = daemon.control();
        udispatch(&[words, &["--control", control.to_str().unwrap()]].concat())
    };
    let before = sockets(daemon.pid());
    let untrue = format!(
        "{good}[[test]]\nsource = \"127.0.0.1\"\ndestination = \"127.0.0.1:1000\"\nexpect = \"no_route\"\n"
    );
    for (wrong, why) in [
        ("[[route", "not TOML"),
        (&good.replace("echo", "ecco"), "did you mean"),
        (&untrue, "expected no route"),
    ] {
        fs::write(daemon.file(), wrong).unwrap();
        let refused = ask(&["reload"]);
        assert!(
            refused.code == 78 && (refused.errors.clone() + &refused.output).contains(why),
            "{why}: {refused:?}"
        );
    }
    fs::write(
        daemon.file(),
        format!(
            "{good}{}",
            good.replace("one", "two").replace("1000", "1001")
        ),
    )
    .unwrap();
    let dry = ask(&["reload", "--dry-run"]);
    assert!(
        dry.code == 0 && dry.output.contains("+ route two"),
        "{dry:?}"
    );
    assert_eq!(sockets(daemon.pid()), before, "nothing was opened");
    let now = snapshot(&daemon);
    assert_eq!(
        (now.reloads.applied, now.reloads.refused, now.generation),
        (0, 3, 0)
    );
    assert_eq!(
        Client::newcomer().ask(b"still here?", "127.0.0.1:1000").0,
        b"still here?"
    );
    daemon.stop();
}

/// Where the daemon is asked is decided at its start: a dry run, a reload and the log each say that a change of it waits.
#[test]
fn what_waits_for_the_next_start_is_told() {
    netns_test!();
    let mut daemon =
        Daemon::start("[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n");
    let reload = |options: &[&str]| ask(&daemon, &[&["reload"], options].concat());
    let words = "! `http` and `http_hosts` below [daemon]: the old value stays in use until the next start or takeover";
    assert!(
        !reload(&["--dry-run"]).output.contains('!'),
        "nothing has changed"
    );
    let file = fs::read_to_string(daemon.file()).unwrap();
    fs::write(
        daemon.file(),
        format!("[daemon]\nhttp = \"9253\"\nhttp_hosts = [\"a.example\"]\n{file}"),
    )
    .unwrap();
    for options in [&["--dry-run"][..], &[]] {
        let outcome = reload(options);
        assert!(
            outcome.code == 0 && outcome.output.lines().any(|line| line == words),
            "{options:?}: {outcome:?}"
        );
    }
    assert!(daemon.wait_for(words).contains("WARN"));
    daemon.stop();
}

/// A watched file is applied when it has come to rest, however it is replaced; a wrong one is refused once, and what is put
/// right is applied.
#[test]
fn a_watched_file() {
    netns_test!();
    let route =
        |port: u16| format!("[[route]]\ndestination = \"127.0.0.1:{port}\"\nhandler = \"echo\"\n");
    let config = format!("[daemon]\nwatch = true\n{}", route(1000));
    let mut daemon = Daemon::start(&config);
    let [more, most] = [
        format!("{config}{}", route(1001)),
        format!("{config}{}{}", route(1001), route(1002)),
    ];
    fs::write(daemon.file(), &more).unwrap();
    daemon.wait_for("reloaded:");
    assert_eq!(Client::newcomer().ask(b"new", "127.0.0.1:1001").0, b"new");
    fs::write(daemon.file(), "[[route").unwrap();
    daemon.wait_for("reload refused");
    // Another file in its place, as editors do.
    let beside = daemon.file().with_extension("new");
    fs::write(&beside, &most).unwrap();
    fs::rename(&beside, daemon.file()).unwrap();
    daemon.wait_for("reloaded:");
    assert_eq!(
        Client::newcomer().ask(b"newest", "127.0.0.1:1002").0,
        b"newest"
    );
    let reloads = snapshot(&daemon).reloads;
    assert_eq!((reloads.applied, reloads.refused), (2, 1));
    daemon.stop();
}

/// However often a daemon is reloaded, with whatever changes, it has as many files open as at first.
#[test]
fn reloads_leave_nothing_open() {
    netns_test!();
    let server = telling("127.0.0.1:9001");
    let forwarder = forwarder("on", "127.0.0.1:1000", &list([server.address()]), "");
    let more = "[[route]]\ndestination = [\"127.0.0.1:1001\", \"239.1.2.3:1002\"]\ninterface = \"lo\"\nhandler = [\"echo\", \"print\"]\n";
    let configs = [1, 3].map(|workers| format!("[daemon]\nworkers = {workers}\n{forwarder}"));
    let mut daemon = Daemon::of(&configs[1]).workers_of_file().start();
    let client = Client::newcomer();
    let port = answer(&client, "127.0.0.1:1000");
    // The first time round what is opened once for all is opened.
    let round = |daemon: &mut Daemon| {
        for config in [&configs[0], &format!("{}{more}", configs[0]), &configs[1]] {
            reload(daemon, config);
            // A port that somebody else has: most of it is ready by the time that this is known.
            fs::write(
                daemon.file(),
                format!(
                    "{config}[[route]]\ndestination = \"127.0.0.1:9001\"\nhandler = \"echo\"\n"
                ),
            )
            .unwrap();
            daemon.signal(libc::SIGHUP);
            daemon.wait_for("reload refused");
        }
        assert_eq!(answer(&client, "127.0.0.1:1000"), port);
        (
            daemon.open_files(),
            fs::read_dir(format!("/proc/{}/task", daemon.pid()))
                .unwrap()
                .count(),
        )
    };
    let first = round(&mut daemon);
    for _ in 0..16 {
        assert_eq!(round(&mut daemon), first, "files and threads");
    }
    daemon.stop();
}

/// Reloads and takeovers are asked for at 1,000 a second, both at once: each is done or refused, one after the other; one
/// process serves at the end, and no question of a client stays without its answer.
#[test]
fn a_storm_of_signals() {
    netns_test!();
    let server = telling("127.0.0.1:9001");
    let mut daemon = Daemon::start(&forwarder(
        "on",
        "127.0.0.1:1000",
        &list([server.address()]),
        "",
    ));
    let talker = Talker::begin("127.0.0.1:1000");
    let mut pid = daemon.pid();
    for _ in 0..5 {
        for number in 0..200 {
            // Once another serves, this one has no more ears.
            let _ = kill_process(
                process(pid),
                if number % 2 == 0 {
                    Signal::HUP
                } else {
                    Signal::USR2
                },
            );
            thread::sleep(Duration::from_millis(1));
        }
        // Where each came while a reload was under way, all were refused; in the calm, one is not.
        pid = eventually(format!("another process than {pid} serves"), || {
            let _ = kill_process(process(pid), Signal::USR2);
            asked(&daemon).map(|now| now.pid).filter(|now| *now != pid)
        });
    }
    // One at a time, however many are asked for.
    daemon.wait_for("is already taking over");
    let questions = talker.end();
    // One that was started by a late signal may still be at work.
    eventually("one process is left", || {
        let left = processes_here("udispatch");
        if left.len() == 1 {
            return Ok(());
        }
        Err(format!("{left:?}"))
    });
    let now = status(&daemon);
    assert!(now.generation >= 5 && now.balances, "{now:#?}");
    assert_eq!(
        (
            now.listeners[0].account.received,
            now.handlers[0].account.received
        ),
        (questions, questions)
    );
    assert!(
        now.listeners[0].counters.kernel_drops == 0 && questions > 0,
        "{now:#?}"
    );
    tell(now.pid, Signal::TERM);
}

/// Five successors in a row, by signal and by hand, with another file and another number of workers: the listeners' sockets are
/// the very same, sessions keep their source ports, and the accounts go on.
#[test]
fn successors() {
    netns_test!();
    let server = telling("127.0.0.1:9001");
    let config = |workers: usize| {
        let forwarder = forwarder("on", "127.0.0.1:1000", &list([server.address()]), "");
        format!("[daemon]\nworkers = {workers}\n{forwarder}")
    };
    // As many sockets as there will ever be: with more, the kernel spreads flows anew.
    let daemon = Daemon::of(&config(3)).workers_of_file().start();
    let clients: Vec<Client> = (0..3).map(|_| Client::newcomer()).collect();
    let ask = || {
        clients
            .iter()
            .map(|client| answer(client, "127.0.0.1:1000"))
            .collect::<Vec<_>>()
    };
    let (ports, inodes) = (ask(), listener_inodes());
    let (mut pid, mut asked) = (daemon.pid(), 3);
    for (round, workers) in [3, 1, 2, 3, 2].into_iter().enumerate() {
        fs::write(daemon.file(), config(workers)).unwrap();
        let mut by_hand = None;
        match round % 2 {
            0 => tell(pid, Signal::USR2),
            _ => by_hand = Some(successor(&[], &daemon.control(), &daemon.file())),
        }
        let now = served_by_another(&daemon, pid);
        pid = now.pid;
        if let Some(child) = by_hand {
            assert_eq!(child.id(), pid);
        }
        assert_eq!(ask(), ports, "round {round}");
        asked += 3;
        let now = status(&daemon);
        assert!(
            listener_inodes().is_superset(&inodes),
            "the sockets are the very same"
        );
        assert_eq!(
            (now.listeners[0].account.received, now.balances),
            (asked, true),
            "{now:#?}"
        );
        assert_eq!(now.generation, round as u64 + 1);
        assert_eq!(
            (now.reloads.applied, now.reloaded),
            (0, None),
            "a takeover is no reload"
        );
        assert!(
            now.workers.iter().all(|worker| worker.responsive),
            "{:#?}",
            now.workers
        );
    }
    tell(pid, Signal::TERM);
}

/// HTTP at another address of the same port: a successor has it as soon as the one before has left it.
#[test]
fn http_moves_to_another_address() {
    netns_test!();
    let config = |http: &str| {
        format!(
            "[daemon]\nhttp = \"{http}\"\n[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n"
        )
    };
    let daemon = Daemon::start(&config("0.0.0.0:9253"));
    fs::write(daemon.file(), config("127.0.0.1:9253")).unwrap();
    tell(daemon.pid(), Signal::USR2);
    let now = served_by_another(&daemon, daemon.pid());
    assert_eq!(
        (now.state, now.reasons.len()),
        (DaemonState::Serving, 0),
        "{:?}",
        now.reasons
    );
    assert_eq!(curl(&["http://127.0.0.1:9253/readyz"]).status, 200);
    tell(now.pid, Signal::TERM);
}

/// The inodes of all UDP sockets on port 1000 in this namespace (proc(5): the tenth column).
fn listener_inodes() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/udp").expect("the kernel's table");
    let rows = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(":03E8"))
        .map(|row| row[9].to_owned())
        .collect()
}

/// A successor with a wrong file ends with 78 and takes nothing; a second daemon is told who runs and how to take over; and
/// where nobody runs, `--takeover` says so.
#[test]
fn words_for_who_comes() {
    netns_test!();
    let config = "[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n";
    let daemon = Daemon::start(config);
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.toml");
    fs::write(&wrong, "[[route]]\n").unwrap();
    let ended = successor(&[], &daemon.control(), &wrong)
        .wait_with_output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(78));
    let mut second = Command::new(env!("CARGO_BIN_EXE_udispatch"));
    second
        .arg("run")
        .arg(daemon.file())
        .env("RUNTIME_DIRECTORY", daemon.control().parent().unwrap());
    let told = second.output().unwrap();
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{words}");
    assert!(
        words.contains("--takeover") && words.contains(&format!("process id {}", daemon.pid())),
        "{words}"
    );
    let nobody = crate::common::daemon::on_file("run", config, &["--takeover"]);
    assert!(
        nobody.code == 1 && nobody.errors.contains("no process offers a takeover"),
        "{nobody:?}"
    );
    assert_eq!(status(&daemon).pid, daemon.pid());
    assert_eq!(
        Client::newcomer().ask(b"still here?", "127.0.0.1:1000").0,
        b"still here?"
    );
    daemon.stop();
}
