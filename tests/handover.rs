//! Reload and takeover, each promise by itself: what is kept is the very same, what goes is read to its end, and whatever goes
//! wrong with a takeover leaves the running daemon as it was. `soak.rs` shows all of it together and under load.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use udispatch::control::snapshot::Snapshot;
use udispatch::control::takeover::path_beside;
use udispatch::control::takeover::wire::{Kind, Wire};
use udispatch::control::takeover::words::{Hello, Manifest, VERSION};

use common::client::Client;
use common::curl::snapshot;
use common::daemon::{Daemon, PATIENCE, udispatch};
use common::namespace::enter;
use common::upstream::{Server, answer, forwarder, list};

/// Longest wait for a word of a takeover; the daemon's own is ten seconds.
const SOON: Duration = Duration::from_secs(15);

/// Writes another file and has it applied.
fn reload(daemon: &mut Daemon, config: &str) {
    fs::write(daemon.file(), config).expect("the configuration is written");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("reloaded:");
}

/// A server that answers with the port that it was asked from.
fn telling(address: &str) -> Server {
    Server::telling(Client::bind(address))
}

/// The inodes of a process's sockets.
fn sockets(pid: u32) -> BTreeSet<PathBuf> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).collect()
}

/// What the daemon at this control socket says of itself, whoever it is by now.
fn status(daemon: &Daemon) -> Snapshot {
    let control = daemon.control();
    let outcome = udispatch(&["status", "--json", "--control", control.to_str().unwrap()]);
    serde_json::from_str(&outcome.output).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// Waits until another process than this serves.
fn served_by_another(daemon: &Daemon, pid: u32) -> Snapshot {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let control = daemon.control();
        let outcome = udispatch(&["status", "--json", "--control", control.to_str().unwrap()]);
        match serde_json::from_str::<Snapshot>(&outcome.output) {
            Ok(snapshot) if snapshot.pid != pid => return snapshot,
            _ => assert!(Instant::now() < deadline, "nobody takes over from {pid}: {:#?}", daemon.log()),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The same process as a successor, started by hand.
fn successor(daemon: &Daemon, file: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udispatch"));
    command.args(["run", file, "--takeover"]).env("RUNTIME_DIRECTORY", daemon.control().parent().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Tells our own child, or a successor of it that serves.
fn tell(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("a process"), signal).expect("it runs");
}

/// An exact listener that goes away beside a wildcard of its port: from one datagram to the next they are the wildcard's, and
/// when it comes back, its own again. Not one is lost.
#[test]
fn an_exact_listener_goes_and_comes() {
    if !enter("an_exact_listener_goes_and_comes") {
        return;
    }
    let wildcard = "[[route]]\nname = \"all\"\ndestination = \"0.0.0.0:1000\"\nhandler = \"drop\"\n";
    let both = format!("{wildcard}[[route]]\nname = \"one\"\ndestination = \"127.0.0.2:1000\"\nhandler = \"drop\"\n");
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
    assert!(ledger.route("all").received > 0 && ledger.listener("(removed)").received > 0, "{ledger:#?}");
    daemon.stop();
}

/// Sessions go on with their source port where their upstream stays. One whose upstream is gone from the file is served to its
/// end: what that upstream still says reaches its client.
#[test]
fn sessions_go_on() {
    if !enter("sessions_go_on") {
        return;
    }
    let first = telling("127.0.0.1:9001");
    let second = Client::bind("127.0.0.1:9002");
    let config = |upstreams: &str| forwarder("on", "127.0.0.1:1000", upstreams, "pick = \"round_robin\"");
    let both = list([first.address(), second.address()]);
    let mut daemon = Daemon::start(&config(&both));
    let [stays, goes] = [Client::newcomer(), Client::newcomer()];
    let port = answer(&stays, "127.0.0.1:1000");
    goes.send(b"?", "127.0.0.1:1000");
    let (_, session) = second.receive();
    let before = sockets(daemon.pid());
    reload(&mut daemon, &config(&both));
    assert_eq!(sockets(daemon.pid()), before, "an unchanged file changes no socket");
    reload(&mut daemon, &config(&list([first.address()])));
    assert_eq!(answer(&stays, "127.0.0.1:1000"), port);
    second.send(b"at last", &session.to_string());
    assert_eq!(goes.receive().0, b"at last");
    // From now on the client is the other one's.
    assert_ne!(answer(&goes, "127.0.0.1:1000"), port);
    let retired = |snapshot: &Snapshot| snapshot.handlers.iter().filter(|row| row.handler.contains("retired")).count();
    let now = snapshot(&daemon);
    assert!(retired(&now) == 1 && now.balances, "{now:#?}");
    daemon.stop();
}

/// A file that is wrong, or whose own tests fail, changes nothing; a dry run opens nothing; each is told.
#[test]
fn a_wrong_file_changes_nothing() {
    if !enter("a_wrong_file_changes_nothing") {
        return;
    }
    let good = "[[route]]\nname = \"one\"\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n";
    let daemon = Daemon::start(good);
    let ask = |words: &[&str]| {
        let control = daemon.control();
        udispatch(&[words, &["--control", control.to_str().unwrap()]].concat())
    };
    let before = sockets(daemon.pid());
    let untrue =
        format!("{good}[[test]]\nsource = \"127.0.0.1\"\ndestination = \"127.0.0.1:1000\"\nexpect = \"no_route\"\n");
    for (wrong, why) in
        [("[[route", "not TOML"), (&good.replace("echo", "ecco"), "did you mean"), (&untrue, "expected no route")]
    {
        fs::write(daemon.file(), wrong).unwrap();
        let refused = ask(&["reload"]);
        assert!(refused.code == 78 && (refused.errors.clone() + &refused.output).contains(why), "{why}: {refused:?}");
    }
    fs::write(daemon.file(), format!("{good}{}", good.replace("one", "two").replace("1000", "1001"))).unwrap();
    let dry = ask(&["reload", "--dry-run"]);
    assert!(dry.code == 0 && dry.output.contains("+ route two"), "{dry:?}");
    assert_eq!(sockets(daemon.pid()), before, "nothing was opened");
    let now = snapshot(&daemon);
    assert_eq!((now.reloads.applied, now.reloads.refused, now.generation), (0, 3, 0));
    assert_eq!(Client::newcomer().ask(b"still here?", "127.0.0.1:1000").0, b"still here?");
    daemon.stop();
}

/// Five successors in a row, by signal and by hand, with another file and another number of workers: the listeners' sockets are
/// the very same, sessions keep their source ports, and the accounts go on.
#[test]
fn successors() {
    if !enter("successors") {
        return;
    }
    let server = telling("127.0.0.1:9001");
    let config = |workers: usize| {
        let forwarder = forwarder("on", "127.0.0.1:1000", &list([server.address()]), "");
        format!("[daemon]\nworkers = {workers}\n{forwarder}")
    };
    // As many sockets as there will ever be: with more, the kernel spreads flows anew.
    let daemon = Daemon::start_with(&config(3), &[]);
    let clients: Vec<Client> = (0..3).map(|_| Client::newcomer()).collect();
    let ask = || clients.iter().map(|client| answer(client, "127.0.0.1:1000")).collect::<Vec<_>>();
    let (ports, inodes) = (ask(), listener_inodes());
    let (mut pid, mut asked) = (daemon.pid(), 3);
    for (round, workers) in [3, 1, 2, 3, 2].into_iter().enumerate() {
        fs::write(daemon.file(), config(workers)).unwrap();
        let mut by_hand = None;
        match round % 2 {
            0 => tell(pid, Signal::USR2),
            _ => by_hand = Some(successor(&daemon, daemon.file().to_str().unwrap())),
        }
        let now = served_by_another(&daemon, pid);
        pid = now.pid;
        if let Some(child) = by_hand {
            assert_eq!(child.id(), pid);
        }
        assert_eq!(ask(), ports, "round {round}");
        asked += 3;
        let now = status(&daemon);
        assert!(listener_inodes().is_superset(&inodes), "the sockets are the very same");
        assert_eq!((now.listeners[0].account.received, now.balances), (asked, true), "{now:#?}");
        assert_eq!(now.generation, round as u64 + 1);
        assert!(now.workers.iter().all(|worker| worker.answers), "{:#?}", now.workers);
    }
    tell(pid, Signal::TERM);
}

/// The inodes of all UDP sockets on port 1000 in this namespace (proc(5): the tenth column).
fn listener_inodes() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/udp").expect("the kernel's table");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(":03E8")).map(|row| row[9].to_owned()).collect()
}

/// How a fake successor behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    OtherVersion,
    Nonsense,
    DiesAfterHello,
    DiesAfterManifest,
    DiesAfterReady,
    DiesAfterReleased,
}

/// Talks with the running daemon as a new process would, up to the fault.
fn misbehave(path: &PathBuf, fault: Fault) {
    let stream = UnixStream::connect(path).expect("the daemon offers takeovers");
    if fault == Fault::Nonsense {
        let _ = std::io::Write::write_all(&mut &stream, b"GET / HTTP/1.1\r\n\r\n");
        thread::sleep(Duration::from_millis(50));
        return;
    }
    let mut wire = Wire::new(stream).unwrap();
    let version = if fault == Fault::OtherVersion { VERSION + 1 } else { VERSION };
    wire.send(Kind::Hello, &Hello { version, pid: std::process::id() }, &[], SOON).unwrap();
    let manifest = wire.receive(Kind::Manifest, SOON);
    match fault {
        Fault::OtherVersion => assert!(manifest.unwrap_err().to_string().contains("version")),
        Fault::DiesAfterHello | Fault::Nonsense => {}
        Fault::DiesAfterManifest => {
            let manifest = manifest.unwrap();
            assert_eq!(manifest.read::<Manifest>().unwrap().seats.len() + 2, manifest.fds.len());
        }
        Fault::DiesAfterReady => wire.say(Kind::Ready, SOON).unwrap(),
        Fault::DiesAfterReleased => {
            wire.say(Kind::Ready, SOON).unwrap();
            wire.receive(Kind::Released, SOON).unwrap();
        }
    }
}

/// Whatever a new process does wrong, the running one goes on: no datagram is lost or answered twice meanwhile, and it says what
/// happened.
#[test]
fn a_takeover_that_fails_leaves_no_trace() {
    if !enter("a_takeover_that_fails_leaves_no_trace") {
        return;
    }
    let server = telling("127.0.0.1:9001");
    let mut daemon = Daemon::start(&forwarder("on", "127.0.0.1:1000", &list([server.address()]), ""));
    let path = path_beside(&daemon.control());
    let is_over = Arc::new(AtomicBool::new(false));
    let talker = {
        let is_over = Arc::clone(&is_over);
        thread::spawn(move || {
            let client = Client::newcomer();
            let mut asked = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                // Each answer is that of this question: nothing is lost, nothing comes twice.
                let question = asked.to_string();
                let told = answer_to(&client, &question);
                assert!(told.ends_with(&format!(" {question}")), "{told} to {question}");
                asked += 1;
            }
            asked
        })
    };
    for fault in [
        Fault::OtherVersion,
        Fault::Nonsense,
        Fault::DiesAfterHello,
        Fault::DiesAfterManifest,
        Fault::DiesAfterReady,
        Fault::DiesAfterReleased,
    ] {
        misbehave(&path, fault);
        let said = match fault {
            Fault::OtherVersion => daemon.wait_for("speaks version"),
            _ => daemon.wait_for("goes on as before"),
        };
        assert!(!said.is_empty(), "{fault:?}");
        assert_eq!(status(&daemon).pid, daemon.pid(), "{fault:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    let asked = talker.join().expect("every question has its answer");
    let ledger = daemon.ledger_when(|ledger| ledger.received() >= asked);
    assert_eq!((ledger.received(), ledger.kernel_drops(), ledger.handler("on, answers").received), (asked, 0, asked));
    daemon.stop();
}

fn answer_to(client: &Client, question: &str) -> String {
    String::from_utf8(client.ask(question.as_bytes(), "127.0.0.1:1000").0).expect("text")
}

/// A successor with a wrong file ends with 78 and takes nothing; a second daemon is told who runs and how to take over; and
/// where nobody runs, `--takeover` says so.
#[test]
fn words_for_who_comes() {
    if !enter("words_for_who_comes") {
        return;
    }
    let config = "[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n";
    let daemon = Daemon::start(config);
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.toml");
    fs::write(&wrong, "[[route]]\n").unwrap();
    let ended = successor(&daemon, wrong.to_str().unwrap()).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(78));
    let mut second = Command::new(env!("CARGO_BIN_EXE_udispatch"));
    second.arg("run").arg(daemon.file()).env("RUNTIME_DIRECTORY", daemon.control().parent().unwrap());
    let told = second.output().unwrap();
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{words}");
    assert!(words.contains("--takeover") && words.contains(&format!("process id {}", daemon.pid())), "{words}");
    let nobody = common::daemon::on_file("run", config, &["--takeover"]);
    assert!(nobody.code == 1 && nobody.errors.contains("nobody runs"), "{nobody:?}");
    assert_eq!(status(&daemon).pid, daemon.pid());
    assert_eq!(Client::newcomer().ask(b"still here?", "127.0.0.1:1000").0, b"still here?");
    daemon.stop();
}
