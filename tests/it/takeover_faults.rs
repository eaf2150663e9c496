//! Takeovers that go wrong, on either side and at each step: whoever serves goes on as if nobody had asked, and both say what has
//! happened. `handover.rs` shows those that go well.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs, thread};

use rustix::process::Signal;
use socket2::SockRef;
use udispatch::takeover::messages::{Hello, Manifest, MessageKind, Refused, VERSION};
use udispatch::takeover::path_beside;
use udispatch::takeover::wire::Wire;

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::{again, netns_test, run, this_test};
use crate::common::restart::{Talker, asked, status, successor, tell, telling};
use crate::common::upstream::{Server, forwarder, list};

/// Longest wait for a word of a takeover; the daemon's own is ten seconds.
const SOON: Duration = Duration::from_secs(15);
const HERE: &str = "127.0.0.1:1000";
/// Set in the process that a test starts as a client that fails: the control socket.
const FAILING: &str = "UDISPATCH_TEST_FAILING_CLIENT";
/// What that process prints when it has the state.
const HAS_STATE: &str = "has the state";

fn forwarding() -> (Server, Daemon) {
    let server = telling("127.0.0.1:9001");
    let daemon = Daemon::start(&forwarder("on", HERE, &list([server.address()]), ""));
    (server, daemon)
}

/// The same process serves, and has counted each question and each answer once.
fn assert_undisturbed(mut daemon: Daemon, questions: u64) {
    assert_eq!(status(&daemon).pid, daemon.pid());
    let ledger = daemon.ledger_when(|ledger| ledger.received() >= questions);
    let answers = ledger.handler("on, replies").received;
    assert_eq!(
        (ledger.received(), ledger.kernel_drops(), answers),
        (questions, 0, questions)
    );
    daemon.stop();
}

/// How a fake successor behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    OtherVersion,
    Nonsense,
    DiesAfterHello,
    DiesAfterManifest,
    ChangesSockets,
    DiesAfterReady,
    DiesAfterReleased,
}

/// Begins as a new process would.
fn hello(control: &Path, version: u32) -> Wire {
    let mut wire =
        Wire::new(UnixStream::connect(path_beside(control)).expect("takeovers are offered"))
            .unwrap();
    let hello = Hello {
        version,
        pid: std::process::id(),
    };
    // A daemon that is busy has refused before it reads this, and closed its end; what it has sent can still be read.
    let _ = wire.send(MessageKind::Hello, &hello, &[], SOON);
    wire
}

/// What else somebody who has the socket may change of it: its receive buffer, and whether others may bind over it.
fn settings(socket: &OwnedFd) -> (usize, bool) {
    let socket = SockRef::from(socket);
    (
        socket.recv_buffer_size().unwrap(),
        socket.reuse_address().unwrap(),
    )
}

/// What a daemon tells a new process while it is still with another one. It logs the end of a takeover before it is done with it.
const IS_BUSY: &str = "another process is already taking over";

/// Talks with the running daemon as a new process would, up to the fault.
fn misbehave(control: &Path, fault: Fault) {
    if fault == Fault::Nonsense {
        return eventually("nonsense is read", || {
            let path = path_beside(control);
            let mut stream = UnixStream::connect(path).expect("takeovers are offered");
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            // It is told nothing, and the connection ends.
            let mut told = Vec::new();
            let _ = stream.read_to_end(&mut told);
            !String::from_utf8_lossy(&told).contains(IS_BUSY)
        });
    }
    let version = if fault == Fault::OtherVersion {
        VERSION + 1
    } else {
        VERSION
    };
    let (mut wire, manifest) = eventually("it has time for another", || {
        let mut wire = hello(control, version);
        let manifest = wire.expect(MessageKind::Manifest, SOON);
        let is_busy = manifest
            .as_ref()
            .is_err_and(|error| error.to_string().contains(IS_BUSY));
        (!is_busy).then_some((wire, manifest))
    });
    match fault {
        Fault::OtherVersion => {
            let error = manifest.unwrap_err().to_string();
            assert!(error.contains("version"), "{error}");
        }
        Fault::DiesAfterHello | Fault::Nonsense => {}
        Fault::DiesAfterManifest => {
            let manifest = manifest.unwrap();
            assert_eq!(
                manifest.read::<Manifest>().unwrap().slots.len() + 2,
                manifest.fds.len()
            );
        }
        Fault::ChangesSockets => {
            // As one does that prepares to bind beside them with other buffers, and is killed then.
            let manifest = manifest.unwrap();
            let listener = SockRef::from(&manifest.fds[0]);
            listener.set_recv_buffer_size(4_096).unwrap();
            listener.set_reuse_address(true).unwrap();
        }
        Fault::DiesAfterReady => wire.send(MessageKind::Ready, &(), &[], SOON).unwrap(),
        Fault::DiesAfterReleased => {
            wire.send(MessageKind::Ready, &(), &[], SOON).unwrap();
            wire.expect(MessageKind::Released, SOON).unwrap();
        }
    }
}

/// Whatever a new process does wrong, the running one goes on: no datagram is lost or answered twice meanwhile, and it says what
/// happened.
#[test]
fn a_takeover_that_fails_leaves_no_trace() {
    netns_test!();
    let (_server, mut daemon) = forwarding();
    let talker = Talker::begin(HERE);
    let listener = hello(&daemon.control(), VERSION)
        .expect(MessageKind::Manifest, SOON)
        .unwrap()
        .fds
        .swap_remove(0);
    daemon.wait_for("continues to serve");
    let before = settings(&listener);
    for fault in [
        Fault::OtherVersion,
        Fault::Nonsense,
        Fault::DiesAfterHello,
        Fault::DiesAfterManifest,
        Fault::ChangesSockets,
        Fault::DiesAfterReady,
        Fault::DiesAfterReleased,
    ] {
        misbehave(&daemon.control(), fault);
        let said = match fault {
            Fault::OtherVersion => daemon.wait_for("takeover protocol"),
            _ => daemon.wait_for("continues to serve"),
        };
        assert!(!said.is_empty(), "{fault:?}");
        assert_eq!(status(&daemon).pid, daemon.pid(), "{fault:?}");
        eventually(format!("{before:?} again after {fault:?}"), || {
            let now = settings(&listener);
            if now == before {
                return Ok(());
            }
            Err(format!("{now:?}"))
        });
    }
    assert_undisturbed(daemon, talker.end());
}

/// A new process that falls silent before it is ready is waited for ten seconds, while everything is served; others are
/// refused meanwhile.
#[test]
fn silence_before_ready() {
    netns_test!();
    let (_server, mut daemon) = forwarding();
    let talker = Talker::begin(HERE);
    let mut silent = hello(&daemon.control(), VERSION);
    silent.expect(MessageKind::Manifest, SOON).unwrap();
    let second = successor(&[], &daemon.control(), &daemon.file())
        .wait_with_output()
        .unwrap();
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(
        second.status.code() == Some(1) && words.contains("another process is already taking over"),
        "{words}"
    );
    let said = daemon.wait_for("has not taken over");
    assert!(
        said.contains("sent no `Ready` for 10s") && said.contains("continues to serve"),
        "{said}"
    );
    drop(silent);
    assert_undisturbed(daemon, talker.end());
}

/// A client that has the state and is silent is killed, so that it cannot serve later, and the server goes on.
#[test]
fn silence_after_released() {
    if let Some(control) = env::var_os(FAILING) {
        let _wire = until_released(Path::new(&control));
        wait_to_be_killed();
    }
    netns_test!();
    assert_killed(this_test!(), "sent no `Started`");
}

/// A client that has the state and sends something else than `Started` may serve: it is killed, too.
#[test]
fn nonsense_after_released() {
    if let Some(control) = env::var_os(FAILING) {
        let mut wire = until_released(Path::new(&control));
        wire.send(MessageKind::Ready, &(), &[], SOON).unwrap();
        wait_to_be_killed();
    }
    netns_test!();
    assert_killed(this_test!(), "received `Ready` instead of `Started`");
}

/// Begins as a client would, up to the moment when it could start.
fn until_released(control: &Path) -> Wire {
    let mut wire = hello(control, VERSION);
    wire.expect(MessageKind::Manifest, SOON).unwrap();
    wire.send(MessageKind::Ready, &(), &[], SOON).unwrap();
    wire.expect(MessageKind::Released, SOON).unwrap();
    println!("{HAS_STATE}");
    wire
}

fn wait_to_be_killed() -> ! {
    loop {
        thread::park();
    }
}

/// Starts this test once more as a client that fails. It is killed, the log has the reason, and sessions go on.
fn assert_killed(test: &str, reason: &str) {
    let (_server, mut daemon) = forwarding();
    let client = Client::newcomer();
    let before = String::from_utf8(client.ask(b"before", HERE).0).unwrap();
    let mut failing = again(&[], test);
    failing
        .env(FAILING, daemon.control())
        .stdout(Stdio::piped());
    let mut failing = failing.spawn().expect("it starts");
    let mut words = BufReader::new(failing.stdout.take().expect("a pipe")).lines();
    assert!(
        words.any(|line| line.expect("text").contains(HAS_STATE)),
        "it ends before it has the state"
    );
    // Nobody reads the sockets now: what comes waits in them.
    client.send(b"meanwhile", HERE);
    let said = daemon.wait_for("has not taken over");
    assert!(said.contains(reason), "{said}");
    let status = failing.wait().expect("it has ended");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGKILL),
        "{status}"
    );
    let meanwhile = String::from_utf8(client.receive().0).unwrap();
    assert_eq!(
        meanwhile,
        before.replace("before", "meanwhile"),
        "the same session"
    );
    assert_undisturbed(daemon, 2);
}

/// A new process that cannot be seen from here could not be ended, should it fall silent: it is refused, and told why.
#[test]
fn another_pid_namespace() {
    netns_test!();
    let config = "[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n";
    let daemon = Daemon::of(config)
        .under(&["unshare", "--pid", "--fork", "--kill-child"])
        .start();
    let ended = successor(&[], &daemon.control(), &daemon.file())
        .wait_with_output()
        .unwrap();
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.code() == Some(1) && words.contains("another PID namespace"),
        "{words}"
    );
    assert_eq!(
        Client::newcomer().ask(b"still here?", HERE).0,
        b"still here?"
    );
    daemon.end(libc::SIGKILL);
}

/// Several new processes at once: one at a time takes over from whoever runs, the others are told so or take over after it. At
/// the end one serves, and no question has stayed without its answer.
#[test]
fn many_at_once() {
    netns_test!();
    let (_server, daemon) = forwarding();
    let talker = Talker::begin(HERE);
    let children: Vec<_> = (0..6)
        .map(|_| successor(&[], &daemon.control(), &daemon.file()))
        .collect();
    let (mut winner, mut losers, mut replaced) = (None, 0, 0);
    let mut left = children;
    eventually("one is left, and serves", || {
        winner = asked(&daemon)
            .map(|snapshot| snapshot.pid)
            .filter(|pid| *pid != daemon.pid());
        let mut running = Vec::new();
        for mut child in left.drain(..) {
            match child.try_wait().unwrap() {
                None => running.push(child),
                Some(status) => {
                    let mut words = String::new();
                    child
                        .stderr
                        .take()
                        .unwrap()
                        .read_to_string(&mut words)
                        .unwrap();
                    match status.code() {
                        Some(0) => replaced += 1,
                        Some(1)
                            if words.contains("only one can")
                                || words.contains("ended before it sent") =>
                        {
                            losers += 1
                        }
                        _ => panic!("{status}: {words}"),
                    }
                }
            }
        }
        left = running;
        winner.is_some() && left.len() == 1
    });
    assert_eq!((winner, losers + replaced), (Some(left[0].id()), 5));
    let (questions, now) = (talker.end(), status(&daemon));
    assert_eq!((now.pid, now.generation), (left[0].id(), replaced + 1));
    assert_eq!(
        (
            now.listeners[0].account.received,
            now.listeners[0].counters.kernel_drops
        ),
        (questions, 0)
    );
    tell(now.pid, Signal::TERM);
    assert_eq!(left[0].wait().unwrap().code(), Some(0));
}

/// A new process that may have too few files open says so and ends; one that comes while the running one has none left is told
/// that. Nothing changes.
#[test]
fn too_few_files() {
    netns_test!(needs = ["prlimit"]);
    let (_server, mut daemon) = forwarding();
    let talker = Talker::begin(HERE);
    for limit in [8, 12, 16] {
        let limit = format!("--nofile={limit}:{limit}");
        let ended = successor(&["prlimit", &limit], &daemon.control(), &daemon.file())
            .wait_with_output()
            .unwrap();
        let words = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.code() == Some(1) && words.contains("open"),
            "{limit}: {words}"
        );
    }
    let pid = daemon.pid();
    run(&format!(
        "prlimit --pid {pid} --nofile={}:",
        daemon.next_file()
    ));
    let ended = successor(&[], &daemon.control(), &daemon.file())
        .wait_with_output()
        .unwrap();
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{words}");
    run(&format!("prlimit --pid {pid} --nofile=1000:"));
    daemon.wait_for("files can be opened again");
    assert_undisturbed(daemon, talker.end());
}

/// How a fake running daemon behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Running {
    EndsAtOnce,
    Nonsense,
    OtherVersion,
    FalseManifest,
    Silent,
}

/// A new process that finds something else than a daemon says so, and ends with 1. It has bound nothing by then.
#[test]
fn whoever_runs_misbehaves() {
    netns_test!();
    let directory = tempfile::tempdir().unwrap();
    let (control, file) = (
        directory.path().join("control.sock"),
        directory.path().join("u.toml"),
    );
    fs::write(
        &file,
        "[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n",
    )
    .unwrap();
    let listener = UnixListener::bind(path_beside(&control)).unwrap();
    for running in [
        Running::EndsAtOnce,
        Running::Nonsense,
        Running::OtherVersion,
        Running::FalseManifest,
        Running::Silent,
    ] {
        let child = successor(&[], &control, &file);
        if running == Running::EndsAtOnce {
            // Whoever leaves may be followed by somebody who stays: it asks again.
            (0..2).for_each(|_| drop(listener.accept().unwrap()));
        }
        let (mut stream, _) = listener.accept().unwrap();
        if running == Running::Nonsense {
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        }
        let mut wire = Wire::new(stream).unwrap();
        let said = match running {
            Running::EndsAtOnce => "the other process ended before it",
            Running::Nonsense => "sent an unexpected message",
            Running::OtherVersion => {
                wire.expect(MessageKind::Hello, SOON).unwrap();
                wire.send(
                    MessageKind::Refused,
                    &Refused {
                        reason: "another version".to_owned(),
                    },
                    &[],
                    SOON,
                )
                .unwrap();
                "another version"
            }
            Running::FalseManifest => {
                wire.expect(MessageKind::Hello, SOON).unwrap();
                wire.send(
                    MessageKind::Manifest,
                    &serde_json::json!({ "pid": "many" }),
                    &[],
                    SOON,
                )
                .unwrap();
                "sent an unexpected message"
            }
            Running::Silent => "sent no `Manifest` for 10s",
        };
        let held = (running != Running::EndsAtOnce).then_some(wire);
        let ended = child.wait_with_output().unwrap();
        drop(held);
        let words = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.code() == Some(1) && words.contains(said),
            "{running:?}: {}: {words}",
            ended.status
        );
        assert!(!words.contains("panicked"), "{words}");
    }
}
