//! The guide for operators, docs/operations.md, is correct: each of its commands is run as it is written, in order,
//! with the file that the guide shows, and does what is promised.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, answer};
use crate::common::{Lazy, eventually};
use udispatch::observe::snapshot::Snapshot;

const GUIDE: &str = include_str!("../../docs/operations.md");
const UNIT: &str = include_str!("../../packaging/systemd/udispatch.service");
const FILE: &str = "/etc/udispatch/udispatch.toml";
/// All files of the test are below this path, on a file system of its own.
const PLACE: &str = "/run/guide";
/// The file to which the daemons write their standard error.
const LOG: &str = "/run/guide/log";

/// What the guide promises of the output: the beginning of a command, how often it has come before, and words.
const PROMISED: &[(&str, usize, &str)] = &[
    ("udispatch check", 0, "3 routes"),
    ("udispatch explain", 0, "resolvers"),
    ("udispatch status", 0, "serving"),
    ("sysctl net.core", 0, "net.core.rmem_max = "),
    ("udispatch reload --dry-run", 0, "127.0.0.1:5302"),
    ("udispatch reload", 1, "applied"),
    ("udispatch drain", 0, "127.0.0.1:9002"),
    ("udispatch upstreams", 0, "draining"),
    ("udispatch status --json", 0, "\"generation\": 4"),
    ("udispatch routes", 0, "flows"),
    ("udispatch sessions", 0, "127.0.0.1:900"),
    ("udispatch status --json", 1, "kernel_drops"),
    (
        "curl -s http://127.0.0.1:9253/metrics",
        0,
        "udispatch_received",
    ),
    ("curl -s http://127.0.0.1:9253/readyz", 0, "ready"),
    ("udispatch top", 0, "echo"),
    ("udispatch tap", 0, "127.0.0.1:5301"),
    ("udispatch log", 0, "debug"),
    ("udispatch explain --live", 0, "resolvers"),
    ("ss -ulnp", 0, "127.0.0.1:5300"),
    ("udispatch stop", 0, "stopping"),
];

/// Every command exits with 0 and prints what is promised. Meanwhile a client has one session and gets every reply,
/// through each reload and takeover, and the upstream sees one source port all the time.
#[test]
fn every_command_of_the_guide() {
    netns_test!(
        needs = ["bash", "jq", "curl", "ss", "sysctl", "mount"],
        with = [mounts]
    );
    make_place();
    let _upstreams = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9011"]
        .map(|at| Server::reporting(Client::bind(at)));
    let mut guide = Walk::default();
    for command in commands() {
        guide.step(&command);
    }
    assert_eq!(guide.left, 0, "the guide ends with `udispatch stop`");
    for (beginning, before, _) in PROMISED {
        assert!(
            guide
                .done
                .iter()
                .filter(|done| done.starts_with(beginning))
                .count()
                > *before,
            "{beginning} is gone"
        );
    }
    let recorded = fs::read("/tmp/echo.pcapng").expect("a recording");
    assert_eq!(
        recorded[..4],
        0x0A0D_0D0A_u32.to_ne_bytes(),
        "a section header of pcapng"
    );
    let log = fs::read_to_string(LOG).unwrap();
    assert!(log.contains("ready: 3 listeners, 3 routes"), "{log}");
    assert!(
        log.contains("balance: exact"),
        "the accounts are on standard error: {log}"
    );
}

/// The lines of the guide's console blocks that a reader types.
fn commands() -> Vec<String> {
    let blocks = GUIDE
        .split("```console\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let lines = blocks
        .flat_map(str::lines)
        .map(|line| line.strip_prefix("$ ").expect("a command a line"));
    lines.map(str::to_owned).collect()
}

/// Directories /etc, /run and /tmp for the test, with the guide's file, the program, and a `systemctl` that knows the
/// unit.
fn make_place() {
    let program = fs::read(env!("CARGO_BIN_EXE_udispatch")).unwrap();
    run("mount -t tmpfs tmpfs /run");
    run("mount -t tmpfs tmpfs /tmp");
    for directory in ["etc/udispatch", "old", "bin"] {
        fs::create_dir_all(format!("{PLACE}/{directory}")).unwrap();
    }
    // The directory contains links to what the host has there, and one directory more.
    run(&format!("mount --rbind /etc {PLACE}/old"));
    for entry in fs::read_dir("/etc").unwrap() {
        let name = entry.unwrap().file_name();
        if name != "udispatch" {
            symlink(
                Path::new(PLACE).join("old").join(&name),
                Path::new(PLACE).join("etc").join(&name),
            )
            .unwrap();
        }
    }
    run(&format!("mount --bind {PLACE}/etc /etc"));
    let toml = GUIDE
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    fs::write(FILE, toml.expect("the guide's file")).unwrap();
    let reload: Vec<&str> = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix("ExecReload="))
        .collect();
    assert!(!reload.is_empty(), "how the unit reloads");
    // The program is not installed on this machine.
    let reload = reload.join("\n").replace("/usr/bin/udispatch", "udispatch");
    let systemctl = format!(
        "#!/bin/sh -e\n[ \"$*\" = 'reload udispatch' ] || exit 64\nMAINPID=$(udispatch status --json | jq .pid)\n{reload}\n"
    );
    for (name, bytes) in [
        ("udispatch", program.as_slice()),
        ("systemctl", systemctl.as_bytes()),
    ] {
        let path = format!("{PLACE}/bin/{name}");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A shell with the test's programs. Daemons that it starts write a log.
fn shell(command: &str) -> Command {
    let mut shell = Command::new("bash");
    let path = format!("{PLACE}/bin:{}", std::env::var("PATH").unwrap());
    shell
        .args(["-o", "pipefail", "-c", command])
        .env("PATH", path)
        .stdin(Stdio::null());
    for variable in [
        "RUNTIME_DIRECTORY",
        "XDG_RUNTIME_DIR",
        "UDISPATCH_CONTROL",
        "NOTIFY_SOCKET",
        "RUST_LOG",
    ] {
        shell.env_remove(variable);
    }
    shell
}

fn output(command: &str) -> Output {
    shell(command).output().unwrap()
}

/// The snapshot of the process that serves now.
fn serving() -> Option<Snapshot> {
    let output = output("udispatch status --json");
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).expect("a snapshot"))
}

/// Waits until a condition is true, and shows the log if it never is.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || {
        if is_so() {
            return Ok(());
        }
        Err(Lazy(|| fs::read_to_string(LOG).unwrap_or_default()))
    });
}

/// One pass through the guide.
#[derive(Default)]
struct Walk {
    done: Vec<String>,
    daemons: Vec<Child>,
    /// Process id of the process that serves.
    pid: u32,
    /// Number of daemons that should be running.
    left: usize,
    traffic: Option<Traffic>,
}

impl Walk {
    fn step(&mut self, command: &str) {
        let before = |beginning: &str| {
            self.done
                .iter()
                .filter(|done| done.starts_with(beginning))
                .count()
        };
        if command.starts_with("udispatch check") && before("udispatch check") == 1 {
            // The guide says to edit the file first.
            let mut file = OpenOptions::new().append(true).open(FILE).unwrap();
            file.write_all(b"\n[[route]]\ndestination = \"127.0.0.1:5302\"\nhandler = \"echo\"\n")
                .unwrap();
        }
        if command == "udispatch stop" {
            self.traffic.take().expect("there was traffic").end();
        }
        let promised: Vec<&str> = PROMISED
            .iter()
            .filter(|(beginning, count, _)| {
                command.starts_with(beginning) && before(beginning) == *count
            })
            .map(|(_, _, words)| *words)
            .collect();
        if let Some(command) = command.strip_suffix(" &") {
            self.begin(command);
        } else {
            let output = output(command);
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{command}: {}\n{text}{errors}",
                output.status
            );
            for words in promised {
                assert!(
                    text.contains(words),
                    "{command}: no `{words}` in\n{text}{errors}"
                );
            }
        }
        self.done.push(command.to_owned());
        self.heed(command);
    }

    /// Starts a command in the background: a daemon.
    fn begin(&mut self, command: &str) {
        let log = || File::options().create(true).append(true).open(LOG).unwrap();
        let daemon = shell(&format!("exec {command}"))
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        self.daemons.push(daemon);
    }

    /// Waits for the effects of a command after it has ended.
    fn heed(&mut self, command: &str) {
        if command.starts_with("udispatch run") && !command.contains("--takeover") {
            wait_until("it serves", || serving().is_some());
            (self.left, self.traffic) = (1, Some(Traffic::begin()));
        } else if command.contains("--takeover")
            || command.contains("USR2")
            || command.starts_with("systemctl")
        {
            let before = self.pid;
            wait_until("another process serves", || {
                serving().is_some_and(|now| now.pid != before)
            });
            wait_until("the old one has ended", || self.is_gone(before));
        } else if command == "udispatch reload" {
            self.reload_a_wrong_file();
        } else if command == "udispatch stop" {
            wait_until("it has ended", || self.is_gone(self.pid));
            self.left = 0;
        }
        if self.left > 0 {
            self.pid = serving().expect("it answers").pid;
        }
    }

    /// Checks "A wrong file changes nothing, and `reload` exits with 78 and says why", with a file with a mistake, and
    /// with one whose test fails.
    fn reload_a_wrong_file(&self) {
        let good = fs::read_to_string(FILE).unwrap();
        for wrong in [
            format!("{good}\nnonsense = 1\n"),
            good.replace("route = \"resolvers\"", "route = \"echo\""),
        ] {
            fs::write(FILE, wrong).unwrap();
            let generation = serving().unwrap().generation;
            let output = output("udispatch reload");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.code() == Some(78) && said.contains("udispatch.toml:"),
                "{}: {said}",
                output.status
            );
            assert_eq!(serving().unwrap().generation, generation);
        }
        fs::write(FILE, good).unwrap();
    }

    /// Whether a process has ended. A child of this process must have ended in order.
    fn is_gone(&mut self, pid: u32) -> bool {
        match self.daemons.iter_mut().find(|daemon| daemon.id() == pid) {
            Some(daemon) => daemon
                .try_wait()
                .unwrap()
                .is_some_and(|status: ExitStatus| {
                    assert!(status.success(), "{pid}: {status}");
                    true
                }),
            // Another daemon started it, and its present parent may not have waited for it.
            None => fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
                stat.rsplit_once(") ")
                    .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
            }),
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if self.left > 0 {
            // The test has failed, so its processes are killed.
            let _ = shell("udispatch stop").status();
        }
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A client with one session that sends requests all the time, an echo, and a stream of flow records.
struct Traffic {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Traffic {
    fn begin() -> Traffic {
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let [asking, echoed, exporter] =
                ["127.0.0.9", "127.0.0.8", "127.0.0.7"].map(|ip| Client::bind(&format!("{ip}:0")));
            let first = answer(&asking, "127.0.0.1:5300");
            let mut exchanges = 0;
            while !end.load(Ordering::Relaxed) {
                assert_eq!(
                    answer(&asking, "127.0.0.1:5300"),
                    first,
                    "the same session, the same source port"
                );
                assert_eq!(echoed.ask(b"hello", "127.0.0.1:5301").0, b"hello");
                exporter.send(b"flow record", "127.0.0.1:2055");
                exchanges += 1;
                thread::sleep(Duration::from_millis(5));
            }
            exchanges
        });
        Traffic { is_over, thread }
    }

    /// Ends the traffic, and asserts that every request had its reply.
    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let exchanges = self.thread.join().expect("every answer came");
        assert!(exchanges > 0);
    }
}
