//! A daemon whose process changes: which process serves now, and which sockets it has open.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use udispatch::observe::snapshot::Snapshot;

use super::client::Client;
use super::daemon::{Daemon, udispatch};
use super::eventually;
use super::upstream::Server;

/// Writes another configuration and waits until the daemon has applied it.
pub fn reload(daemon: &mut Daemon, config: &str) {
    fs::write(daemon.file(), config).expect("the configuration is written");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("reloaded:");
}

/// A server that replies with the source port of each request.
pub fn reporting(address: &str) -> Server {
    Server::reporting(Client::bind(address))
}

/// The inodes of the sockets that a process has open.
pub fn sockets(pid: u32) -> BTreeSet<PathBuf> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .collect()
}

/// The snapshot of the process that serves this control socket now, if one does.
pub fn asked(daemon: &Daemon) -> Option<Snapshot> {
    let control = daemon.control();
    let outcome = udispatch(&["status", "--json", "--control", control.to_str().unwrap()]);
    serde_json::from_str(&outcome.output).ok()
}

/// The snapshot of the process that serves this control socket now. Panics if none does.
pub fn status(daemon: &Daemon) -> Snapshot {
    asked(daemon).unwrap_or_else(|| panic!("nobody serves: {:#?}", daemon.log()))
}

/// Waits until another process than this one serves.
pub fn served_by_another(daemon: &Daemon, pid: u32) -> Snapshot {
    eventually(format!("another process than {pid} serves"), || {
        asked(daemon)
            .filter(|snapshot| snapshot.pid != pid)
            .ok_or_else(|| format!("{:#?}", daemon.log()))
    })
}

/// The processes of this name in the test's network namespace, without zombies.
pub fn processes_here(name: &str) -> Vec<u32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let ours = namespace("self").expect("a namespace of our own");
    let entries = fs::read_dir("/proc").expect("the processes");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_named = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    // The link of a process that has ended cannot be read.
    pids.filter(is_named)
        .filter(|pid| namespace(pid).as_ref() == Some(&ours))
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Starts a successor by hand, perhaps by way of another program, such as `prlimit --nofile=20`.
pub fn successor(wrapper: &[&str], control: &Path, file: &Path) -> Child {
    let mut words = wrapper.to_vec();
    words.push(env!("CARGO_BIN_EXE_udispatch"));
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg("run")
        .arg(file)
        .arg("--takeover");
    command.env("RUNTIME_DIRECTORY", control.parent().expect("a directory"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Sends a signal to a child of the test, or to a successor of it that serves.
pub fn send_signal(pid: u32, signal: Signal) {
    kill_process(process(pid), signal).expect("it runs");
}

/// The process id in the type that the kernel's calls take.
pub fn process(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a process")
}

/// A client that sends one request after another and checks that the reply to each comes once and in order.
pub struct Talker {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Talker {
    /// Begins to send to a server that reports its clients (`Server::reporting`), or to an echo, at this address.
    pub fn begin(to: &'static str) -> Talker {
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let client = Client::newcomer();
            let mut asked = 0_u64;
            while !end.load(Ordering::Relaxed) {
                let question = format!("q{asked}");
                let told = String::from_utf8(client.ask(question.as_bytes(), to).0).expect("text");
                assert!(
                    told.split(' ').next_back() == Some(&question),
                    "{told} to {question}"
                );
                asked += 1;
            }
            asked
        });
        Talker { is_over, thread }
    }

    /// Ends the client and returns the number of requests.
    pub fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("every question has its answer")
    }
}
