//! Takeovers that fail, on either side and at each step. The process that serves continues undisturbed, and both report
//! what has happened. `handover.rs` tests takeovers that succeed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
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
use crate::common::restart::{Talker, asked, reporting, send_signal, status, successor};
use crate::common::upstream::{Server, forwarder, list};

/// Longest wait for a message of a takeover. The daemon's own limit is ten seconds.
const SOON: Duration = Duration::from_secs(15);
const HERE: &str = "127.0.0.1:1000";
/// Set to the path of the control socket in the process that a test starts as a client that fails.
const FAILING: &str = "UDISPATCH_TEST_FAILING_CLIENT";
/// What that process prints when it has the state.
const HAS_STATE: &str = "has the state";

fn forwarding() -> (Server, Daemon) {
    let server = reporting("127.0.0.1:9001");
    let daemon = Daemon::start(&forwarder("on", HERE, &list([server.address()]), ""));
    (server, daemon)
}

/// Waits until a new process has ended, and asserts that it has failed with these words in its log.
fn assert_fails(new: Child, words: &str) {
    let ended = new.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.code() == Some(1) && log.contains(words) && !log.contains("panicked"),
        "{}, without {words:?}: {log}",
        ended.status
    );
}

/// Asserts that the first process still serves, and that it has counted each request and each reply once.
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

/// The behaviour of a fake successor.
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

/// Begins a takeover as a new process does.
fn hello(control: &Path, version: u32) -> Wire {
    let mut wire =
        Wire::new(UnixStream::connect(path_beside(control)).expect("takeovers are offered"))
            .unwrap();
    let hello = Hello {
        version,
        pid: std::process::id(),
    };
    // A busy daemon refuses before it reads this, and closes its end. What it has sent can still be read.
    let _ = wire.send(MessageKind::Hello, &hello, &[], SOON);
    wire
}

/// Settings of a socket that another process that has it may change: its receive buffer, and whether others may bind
/// over it.
fn settings(socket: &OwnedFd) -> (usize, bool) {
    let socket = SockRef::from(socket);
    (
        socket.recv_buffer_size().unwrap(),
        socket.reuse_address().unwrap(),
    )
}

/// The refusal that a daemon sends to a new process during another takeover.
const IS_BUSY: &str = "another process is already taking over";

/// Talks to the running daemon as a new process does, up to the fault.
fn misbehave(control: &Path, fault: Fault) {
    if fault == Fault::Nonsense {
        return eventually("nonsense is read", || {
            let path = path_beside(control);
            let mut stream = UnixStream::connect(path).expect("takeovers are offered");
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            // It gets no reply, and the connection ends.
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
            // A process does this that prepares to bind beside the sockets with other buffers, and is then killed.
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

/// Whatever a new process does wrong, the running one continues. No datagram is lost or gets two replies meanwhile, and
/// the log says what happened.
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

/// The running process waits ten seconds for a new process that sends nothing more before it is ready. Meanwhile
/// everything is served, and other new processes are refused.
#[test]
fn silence_before_ready() {
    netns_test!();
    let (_server, mut daemon) = forwarding();
    let talker = Talker::begin(HERE);
    let mut silent = hello(&daemon.control(), VERSION);
    silent.expect(MessageKind::Manifest, SOON).unwrap();
    let second = successor(&[], &daemon.control(), &daemon.file());
    assert_fails(second, "another process is already taking over");
    let said = daemon.wait_for("has not taken over");
    assert!(
        said.contains("sent no `Ready` for 10s") && said.contains("continues to serve"),
        "{said}"
    );
    drop(silent);
    assert_undisturbed(daemon, talker.end());
}

/// A client that has the state and sends nothing is killed, so that it cannot serve later, and the server continues.
#[test]
fn silence_after_released() {
    if let Some(control) = env::var_os(FAILING) {
        let _wire = until_released(Path::new(&control));
        wait_to_be_killed();
    }
    netns_test!();
    assert_killed(this_test!(), "sent no `Started`");
}

/// A client that has the state and sends something else than `Started` may serve, so it is killed, too.
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

/// Begins as a client does, up to the moment when it could start.
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

/// Starts this test once more as a client that fails. It is killed, the log has the reason, and sessions continue.
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
    // No process reads the sockets now, so what comes waits in them.
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

/// A new process in another PID namespace could not be killed if it stopped responding. It is refused, with the reason.
#[test]
fn another_pid_namespace() {
    netns_test!();
    let config = "[[route]]\ndestination = \"127.0.0.1:1000\"\nhandler = \"echo\"\n";
    let daemon = Daemon::of(config)
        .under(&["unshare", "--pid", "--fork", "--kill-child"])
        .start();
    let new = successor(&[], &daemon.control(), &daemon.file());
    assert_fails(new, "another PID namespace");
    assert_eq!(
        Client::newcomer().ask(b"still here?", HERE).0,
        b"still here?"
    );
    daemon.end(libc::SIGKILL);
}

/// Several new processes are started at once. One at a time takes over from the process that runs. The others are
/// refused, or take over after it. At the end one serves, and every request has its reply.
#[test]
fn many_at_once() {
    netns_test!();
    let (_server, daemon) = forwarding();
    let talker = Talker::begin(HERE);
    let children: Vec<_> = (0..6)
        .map(|_| successor(&[], &daemon.control(), &daemon.file()))
        .collect();
    let mut losers = 0;
    let mut replaced = 0;
    let mut left = children;
    eventually("one is left, and serves", || {
        let winner = asked(&daemon).map(|snapshot| snapshot.pid);
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
                            losers += 1;
                        }
                        _ => panic!("{status}: {words}"),
                    }
                }
            }
        }
        left = running;
        // The process that replied may have been replaced since.
        left.len() == 1 && winner == Some(left[0].id())
    });
    assert_eq!(losers + replaced, 5);
    let questions = talker.end();
    let now = status(&daemon);
    assert_eq!((now.pid, now.generation), (left[0].id(), replaced + 1));
    assert_eq!(
        (
            now.listeners[0].account.received,
            now.listeners[0].counters.kernel_drops
        ),
        (questions, 0)
    );
    send_signal(now.pid, Signal::TERM);
    assert_eq!(left[0].wait().unwrap().code(), Some(0));
}

/// A new process that may have too few files open says so and ends. One that comes when the running process has none
/// left is refused. Nothing changes.
#[test]
fn too_few_files() {
    netns_test!(needs = ["prlimit"]);
    let (_server, mut daemon) = forwarding();
    let talker = Talker::begin(HERE);
    for limit in [8, 12, 16] {
        let limit = format!("--nofile={limit}:{limit}");
        let new = successor(&["prlimit", &limit], &daemon.control(), &daemon.file());
        assert_fails(new, "open");
    }
    let pid = daemon.pid();
    run(&format!(
        "prlimit --pid {pid} --nofile={}:",
        daemon.next_file()
    ));
    assert_fails(successor(&[], &daemon.control(), &daemon.file()), "");
    run(&format!("prlimit --pid {pid} --nofile=1000:"));
    daemon.wait_for("files can be opened again");
    assert_undisturbed(daemon, talker.end());
}

/// The behaviour of a fake running daemon.
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
    let control = directory.path().join("control.sock");
    let file = directory.path().join("u.toml");
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
            // The running process may be replaced by one that stays, so the new process tries again.
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
        assert_fails(child, said);
        drop(held);
    }
}
