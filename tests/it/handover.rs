//! Reload and takeover, one promise at a time: what is kept is the same object, and what goes is read to its end.
//! `soak.rs` tests all of it together and under load, `takeover_faults.rs` the faults of a takeover.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    Talker, asked, process, processes_here, reload, reporting, send_signal, served_by_another,
    sockets, status, successor,
};
use crate::common::upstream::{answer, forwarder, list};

/// An exact listener is removed beside a wildcard of its port. From one datagram to the next, the wildcard gets its
/// traffic. When it is added again, it gets its own traffic again. No datagram is lost.
#[test]
fn an_exact_listener_goes_and_comes() {
    netns_test!();
    let wildcard =
        "[[route]]\nname = \"all\"\ndestination = \"0.0.0.0:1000\"\nhandler = \"drop\"\n";
    let both = format!(
        "{wildcard}[[route]]\nname = \"one\"\ndestination = \"127.0.0.2:1000\"\nhandler = \"drop\"\n"
    );
    let mut daemon = Daemon::start(&both);
    let is_over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let send = || {
        let client = Client::newcomer();
        while !is_over.load(Ordering::Relaxed) {
            client.send(b"to one", "127.0.0.2:1000");
            if sent.fetch_add(1, Ordering::Relaxed) % 50 == 49 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(send);
        // A failing assertion must end the sender, too.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..5 {
                for config in [wildcard, &both] {
                    reload(&mut daemon, config);
                    let before = sent.load(Ordering::Relaxed);
                    eventually("more is sent", || {
                        sent.load(Ordering::Relaxed) >= before + 500
                    });
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
    let sent = sent.into_inner();
    let ledger = daemon.ledger_when(|ledger| ledger.received() + ledger.kernel_drops() >= sent);
    assert_eq!((ledger.received(), ledger.kernel_drops()), (sent, 0));
    assert!(
        ledger.route("all").received > 0 && ledger.listener("(removed)").received > 0,
        "{ledger:#?}"
    );
    daemon.stop();
}

/// Sessions continue with their source port if their upstream stays. A session whose upstream is removed from the file
/// is served to its end: replies of that upstream still reach the client.
#[test]
fn sessions_go_on() {
    netns_test!();
    let first = reporting("127.0.0.1:9001");
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
    // From now on the client belongs to the other upstream.
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

/// An address alone names the upstream of the handler in the file, even if a handler that a reload has retired has it,
/// too. The upstream of the retired handler is drained by its full name.
#[test]
fn the_retired_are_drained_by_full_name() {
    netns_test!();
    let first = reporting("127.0.0.1:9001");
    let second = reporting("127.0.0.1:9002");
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

/// A file that is wrong, or whose own tests fail, changes nothing. A dry run opens nothing. Each reports what it found.
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
    // The daemon closes the connections of the commands some time after these have ended.
    eventually("the sockets are those from before", || {
        let now = sockets(daemon.pid());
        if now == before {
            return Ok(());
        }
        Err(format!("{now:?}, before: {before:?}"))
    });
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

/// The addresses of the control socket and of HTTP are fixed at the start. A dry run, a reload and the log each say
/// that a change of them waits.
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

/// A watched file is applied when it has not changed for some time, however it is replaced. A wrong one is refused
/// once, and a corrected one is applied.
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
    // The file is replaced by another one, as editors do.
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

/// However often a daemon is reloaded, with whatever changes, it has as many files and threads as after the first
/// reloads.
#[test]
fn reloads_leave_nothing_open() {
    netns_test!();
    let server = reporting("127.0.0.1:9001");
    let forwarder = forwarder("on", "127.0.0.1:1000", &list([server.address()]), "");
    let more = "[[route]]\ndestination = [\"127.0.0.1:1001\", \"239.1.2.3:1002\"]\ninterface = \"lo\"\nhandler = [\"echo\", \"print\"]\n";
    let configs = [1, 3].map(|workers| format!("[daemon]\nworkers = {workers}\n{forwarder}"));
    let mut daemon = Daemon::of(&configs[1]).workers_of_file().start();
    let client = Client::newcomer();
    let port = answer(&client, "127.0.0.1:1000");
    let round = |daemon: &mut Daemon| {
        for config in [&configs[0], &format!("{}{more}", configs[0]), &configs[1]] {
            reload(daemon, config);
            // Another process has this port. Most of the configuration is ready before that is found.
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
    };
    // The first round opens what is opened once for all.
    round(&mut daemon);
    let first = (daemon.open_files(), daemon.threads());
    for _ in 0..16 {
        round(&mut daemon);
        // A thread that was joined stays in /proc until the kernel has released it: pthread_join(3) returns when
        // mm_release() clears the thread's id, which is before release_task().
        eventually("as many files and threads as after the first round", || {
            let threads = daemon.threads();
            if daemon.open_files() <= first.0 && threads.len() <= first.1.len() {
                return Ok(());
            }
            Err(format!(
                "{} files and {threads:?}, at first {first:?}",
                daemon.open_files()
            ))
        });
    }
    daemon.stop();
}

/// Reloads and takeovers are requested 1,000 times a second, both at once. Each is done or refused, one after the
/// other. One process serves at the end, and every request of a client has its reply.
#[test]
fn a_storm_of_signals() {
    netns_test!();
    let server = reporting("127.0.0.1:9001");
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
            // Once another process serves, this one reads no more signals.
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
        // If each of them came during a reload, all were refused. Without a reload, one is not.
        pid = eventually(format!("another process than {pid} serves"), || {
            let _ = kill_process(process(pid), Signal::USR2);
            asked(&daemon).map(|now| now.pid).filter(|now| *now != pid)
        });
    }
    // There is one at a time, however many are requested.
    daemon.wait_for("is already taking over");
    let questions = talker.end();
    // A process that was started by a late signal may still be at work.
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
    send_signal(now.pid, Signal::TERM);
}

/// Five successors in a row, by signal and by hand, with another file and another number of workers. The listeners keep
/// the same sockets, sessions keep their source ports, and the counters continue.
#[test]
fn successors() {
    netns_test!();
    let server = reporting("127.0.0.1:9001");
    let config = |workers: usize| {
        let forwarder = forwarder("on", "127.0.0.1:1000", &list([server.address()]), "");
        format!("[daemon]\nworkers = {workers}\n{forwarder}")
    };
    // There are as many sockets from the start as there will ever be. With more, the kernel would distribute flows
    // anew.
    let daemon = Daemon::of(&config(3)).workers_of_file().start();
    let clients: Vec<Client> = (0..3).map(|_| Client::newcomer()).collect();
    let ask = || {
        clients
            .iter()
            .map(|client| answer(client, "127.0.0.1:1000"))
            .collect::<Vec<_>>()
    };
    let ports = ask();
    let inodes = listener_inodes();
    let mut pid = daemon.pid();
    let mut asked = 3;
    for (round, workers) in [3, 1, 2, 3, 2].into_iter().enumerate() {
        fs::write(daemon.file(), config(workers)).unwrap();
        let mut by_hand = None;
        match round % 2 {
            0 => send_signal(pid, Signal::USR2),
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
    send_signal(pid, Signal::TERM);
}

/// HTTP at another address of the same port: a successor has it as soon as the process before has closed it.
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
    send_signal(daemon.pid(), Signal::USR2);
    let now = served_by_another(&daemon, daemon.pid());
    assert_eq!(
        (now.state, now.reasons.len()),
        (DaemonState::Serving, 0),
        "{:?}",
        now.reasons
    );
    assert_eq!(curl(&["http://127.0.0.1:9253/readyz"]).status, 200);
    send_signal(now.pid, Signal::TERM);
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

/// A successor with a wrong file ends with 78 and takes nothing. A second daemon is refused with the process that runs
/// and the way to take over. Without a running process, `--takeover` says so.
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
