//! The daemon under test: it is started, its log is read from process to process, it is queried over its control
//! socket, and it is ended.

use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, wait};
use udispatch::admin::client::Client;
use udispatch::observe::snapshot::Snapshot;
use udispatch::takeover::path_beside;

/// Longest wait for anything that takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest number of warnings and errors that are kept for the report.
const COMPLAINTS_MAX: usize = 40;

/// The status code of HTTP for a daemon that is about to end.
const UNAVAILABLE: u16 = 503;

/// A daemon, in whichever process it runs now.
pub struct Daemon {
    binary: PathBuf,
    directory: PathBuf,
    pid: u32,
    log: Receiver<String>,
    /// The writing end of the log, for processes that are started later.
    writer: io::PipeWriter,
    /// The first warnings and errors that were not caused on purpose.
    pub complaints: Vec<String>,
    /// Whether warnings and errors are expected now.
    pub is_provoked: bool,
    echo: bool,
}

impl Daemon {
    /// Starts the daemon with `soak.toml` in a directory, which is its runtime directory, too. With `echo`, its log is
    /// shown.
    pub fn start(binary: PathBuf, directory: PathBuf, echo: bool) -> anyhow::Result<Daemon> {
        let (reader, writer) = io::pipe()?;
        let log = follow(reader)?;
        let complaints = Vec::new();
        let is_provoked = false;
        let mut daemon = Daemon {
            binary,
            directory,
            pid: 0,
            log,
            writer,
            complaints,
            is_provoked,
            echo,
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts the daemon while none runs.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.pid = self
            .command(&self.file(), &[])?
            .spawn()
            .context("cannot start the daemon")?
            .id();
        self.wait_for("ready:")?;
        Ok(())
    }

    /// Returns a command that starts the same program with a file.
    pub fn command(&self, file: &Path, options: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(&self.binary);
        command
            .arg("run")
            .arg(file)
            .args(options)
            .env("RUNTIME_DIRECTORY", &self.directory);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.writer.try_clone()?);
        Ok(command)
    }

    /// Returns the path of the configuration file.
    pub fn file(&self) -> PathBuf {
        self.directory.join("soak.toml")
    }

    /// Returns the directory with the configuration file, the control socket and the log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path at which takeovers are requested.
    pub fn gate(&self) -> PathBuf {
        path_beside(&self.control())
    }

    fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Replaces the configuration file.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let beside = self.directory.join("soak.toml.new");
        fs::write(&beside, text)?;
        fs::rename(beside, self.file())
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(of(self.pid)?, signal).context("the daemon is gone")?;
        Ok(())
    }

    /// Reads the log up to a line that contains the words. Returns that line.
    pub fn wait_for(&mut self, words: &str) -> anyhow::Result<String> {
        let lines = self.wait_for_all(&[words])?;
        lines.into_iter().next().context("no line")
    }

    /// Reads the log until each of the words has been in some line. Returns those lines. Two processes write to it at a
    /// time, so their order varies.
    pub fn wait_for_all(&mut self, expected: &[&str]) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + TIMEOUT;
        let mut found: Vec<Option<String>> = vec![None; expected.len()];
        while found.iter().any(Option::is_none) {
            let line = match self
                .log
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let missing = expected
                        .iter()
                        .zip(&found)
                        .filter(|(_, found)| found.is_none());
                    let missing: Vec<_> = missing.map(|(words, _)| *words).collect();
                    bail!(
                        "the log has no line with {missing:?}; its warnings and errors: {:#?}",
                        self.complaints
                    );
                }
            };
            self.check_line(&line);
            let place = expected
                .iter()
                .zip(&mut found)
                .find(|(words, found)| found.is_none() && line.contains(**words));
            if let Some((_, found)) = place {
                *found = Some(line);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads what is in the log now.
    pub fn catch_up(&mut self) {
        while let Ok(line) = self.log.try_recv() {
            self.check_line(&line);
        }
    }

    fn check_line(&mut self, line: &str) {
        if self.echo {
            eprintln!("    {line}");
        }
        let is_complaint = ["WARN", "ERROR", "error:", "panicked"]
            .iter()
            .any(|word| line.contains(word));
        if is_complaint && !self.is_provoked && self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(line.to_owned());
        }
    }

    /// Records that another process serves from now on.
    pub fn set_pid(&mut self, pid: u32) {
        self.pid = pid;
        reap();
    }

    /// Requests the daemon's snapshot, again while the control socket is unavailable.
    pub fn status(&self) -> anyhow::Result<Snapshot> {
        let client = Client::new(self.control(), TIMEOUT);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let response = client
                .get("/status")
                .context("cannot query the control socket")?;
            if response.is_success() {
                return Ok(serde_json::from_slice(&response.body)?);
            }
            // The process that was taken over a moment ago may still have accepted the connection.
            if response.status != UNAVAILABLE || Instant::now() > deadline {
                bail!(
                    "the control socket responds with {}: {}",
                    response.status,
                    response.text()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the daemon, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_until_gone()
    }

    /// Ends the daemon in order.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.wait_until_gone()
    }

    fn wait_until_gone(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            reap();
            self.catch_up();
            if test_kill_process(of(self.pid)?).is_err() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("process {} does not end", self.pid);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = of(self.pid) {
            // A process that has ended already is fine, too.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn of(pid: u32) -> anyhow::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")
}

/// Returns the lines of the log as they arrive.
fn follow(reader: PipeReader) -> io::Result<Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    };
    thread::Builder::new().name("log".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// Waits for every process that has ended. Processes that start each other become children of this one, which is their
/// subreaper.
pub fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Ends a process and waits for it.
pub fn kill_and_wait(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
