//! The real daemon, started with a configuration, observed through its output, and always ended.
#![expect(unsafe_code, reason = "signals, and options of the child process")]

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::{TIMEOUT, eventually};

/// A running `udispatch run`.
pub struct Daemon {
    child: Child,
    errors: Lines,
    output: Option<Lines>,
    directory: tempfile::TempDir,
    /// The directory of the control socket.
    control: tempfile::TempDir,
}

/// The lines of a stream, in the order in which they come.
struct Lines {
    receiver: Receiver<String>,
    seen: Vec<String>,
    /// Reads the stream until it ends or the receiver of the lines is dropped.
    reader: JoinHandle<()>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Lines {
        let (sender, receiver) = channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                if sender
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });
        Lines {
            receiver,
            seen: Vec::new(),
            reader,
        }
    }

    /// The next line, if one comes before the deadline.
    fn next(&mut self, deadline: Instant) -> Option<String> {
        let line = self
            .receiver
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .ok()?;
        self.seen.push(line.clone());
        Some(line)
    }
}

/// How a daemon is started. By default it has one worker, and its output is read by the test.
pub struct Builder<'a> {
    config: &'a str,
    workers: Option<String>,
    files: Vec<(&'a str, &'a [u8])>,
    wrapper: &'a [&'a str],
    output: Stdio,
    log: Option<Stdio>,
}

impl<'a> Builder<'a> {
    /// Starts the daemon with this number of workers.
    pub fn workers(self, count: impl Display) -> Self {
        let workers = Some(count.to_string());
        Builder { workers, ..self }
    }

    /// Leaves the number of workers to the configuration.
    pub fn workers_of_file(self) -> Self {
        Builder {
            workers: None,
            ..self
        }
    }

    /// Writes a file into the directory of the configuration.
    pub fn beside(mut self, name: &'a str, content: &'a [u8]) -> Self {
        self.files.push((name, content));
        self
    }

    /// Starts the daemon by way of another program, such as `prlimit --nofile=90`.
    pub fn under(self, wrapper: &'a [&'a str]) -> Self {
        Builder { wrapper, ..self }
    }

    /// Sends the daemon's standard output elsewhere.
    pub fn output(self, output: Stdio) -> Self {
        Builder { output, ..self }
    }

    /// Sends the daemon's standard error elsewhere. `start` then cannot wait until the daemon is ready.
    pub fn log(self, log: Stdio) -> Self {
        let log = Some(log);
        Builder { log, ..self }
    }

    /// Starts the daemon, and waits until it is ready.
    pub fn start(self) -> Daemon {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, content) in &self.files {
            std::fs::write(directory.path().join(name), content).expect("the file is written");
        }
        let file = directory.path().join("test.toml");
        std::fs::write(&file, self.config).expect("the configuration is written");
        let mut words = self.wrapper.to_vec();
        words.push(env!("CARGO_BIN_EXE_udispatch"));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("run").arg(&file);
        if let Some(workers) = &self.workers {
            command.args(["--workers", workers]);
        }
        let is_log_read = self.log.is_none();
        let log = self.log.unwrap_or_else(Stdio::piped);
        let mut daemon = Daemon::spawn(command, self.output, log, directory);
        if is_log_read {
            daemon.wait_for("ready");
        }
        daemon
    }
}

impl Daemon {
    /// Starts a daemon with one worker, and waits until it is ready.
    pub fn start(config: &str) -> Daemon {
        Daemon::of(config).start()
    }

    /// A daemon with this configuration, to be started with other options.
    pub fn of(config: &str) -> Builder<'_> {
        Builder {
            config,
            workers: Some("1".to_owned()),
            files: Vec::new(),
            wrapper: &[],
            output: Stdio::piped(),
            log: None,
        }
    }

    /// Starts an example program that is a daemon of its own, and waits until it is ready. Its configuration is a file
    /// in the directory of the examples.
    pub fn example(name: &str, arguments: &[&str], directory: tempfile::TempDir) -> Daemon {
        let test = std::env::current_exe().expect("the test's own path");
        let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
        let mut command = Command::new(profile.join("examples").join(name));
        command.args(arguments).current_dir(&directory);
        let mut daemon = Daemon::spawn(command, Stdio::piped(), Stdio::piped(), directory);
        daemon.wait_for("ready");
        daemon
    }

    fn spawn(
        mut command: Command,
        output: Stdio,
        log: Stdio,
        directory: tempfile::TempDir,
    ) -> Daemon {
        let control = tempfile::tempdir().expect("a temporary directory");
        command.env("RUNTIME_DIRECTORY", control.path());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        let errors = match child.stderr.take() {
            Some(errors) => Lines::of(errors),
            None => Lines::of(std::io::empty()),
        };
        let output = child.stdout.take().map(Lines::of);
        Daemon {
            child,
            errors,
            output,
            directory,
            control,
        }
    }

    /// The process id of the daemon, or of the wrapper that it was started under.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The path of the control socket.
    pub fn control(&self) -> std::path::PathBuf {
        self.control.path().join("control.sock")
    }

    /// The path of the configuration file.
    pub fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("test.toml")
    }

    /// The names of the files in the configuration's directory.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("the directory is there");
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// The anonymous memory of the daemon that is resident now, in KiB (RssAnon in proc(5)). The text of the program is
    /// not counted: its size depends on the compiler's settings, and the kernel may discard it at any time.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .expect("RssAnon in KiB")
    }

    /// The number of the file descriptor that the daemon opens next. As a limit, it lets no further file be opened.
    /// Some files are open only for a moment, for a client or for a check of the host, so the least of many samples is
    /// returned.
    pub fn next_file(&self) -> usize {
        let is_open = |number: &usize| {
            std::path::Path::new(&format!("/proc/{}/fd/{number}", self.pid())).exists()
        };
        let look = |_| {
            thread::sleep(Duration::from_millis(10));
            (0..)
                .find(|number| !is_open(number))
                .expect("there is an end")
        };
        (0..50).map(look).min().expect("looked")
    }

    /// The number of files and sockets that the daemon has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// The names of the daemon's threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            // A thread may end between the two reads.
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let mut names: Vec<String> = tasks
            .filter_map(name)
            .map(|name| name.trim_end().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Stops every thread of the daemon by SIGSTOP and waits until they have stopped. What is sent then stays in its
    /// sockets.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        eventually("every thread stands", || {
            self.states().iter().all(|state| *state == 'T')
        });
    }

    /// Continues the daemon after [`Daemon::pause`].
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// The state of each thread of the daemon (proc(5)).
    fn states(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let state = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // The name before the state is in parentheses and may contain anything.
            stat.rsplit_once(") ")?.1.chars().next()
        };
        tasks.filter_map(state).collect()
    }

    /// Waits for a line on standard error that contains the words.
    pub fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        while let Some(line) = self.errors.next(deadline) {
            if line.contains(words) {
                return line;
            }
        }
        panic!(
            "no `{words}` on standard error, but: {:#?}",
            self.errors.seen
        );
    }

    /// Reads standard error from now on, which went elsewhere so far.
    pub fn read_log(&mut self, log: impl Read + Send + 'static) {
        self.errors = Lines::of(log);
    }

    /// All lines on standard error that were waited for or passed over so far.
    pub fn log(&self) -> &[String] {
        &self.errors.seen
    }

    /// The next line on standard output.
    pub fn line(&mut self) -> String {
        let output = self.output.as_mut().expect("standard output is piped");
        output
            .next(Instant::now() + TIMEOUT)
            .expect("a line on standard output")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our own child and not yet waited for, so the id is its.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// The ledger, requested by SIGUSR1 until it satisfies the condition.
    pub fn ledger_when(&mut self, satisfied: impl Fn(&Ledger) -> bool) -> Ledger {
        eventually("the ledger satisfies", || {
            let ledger = self.ledger_now();
            if satisfied(&ledger) {
                return Ok(ledger);
            }
            Err(format!("{ledger:#?}"))
        })
    }

    /// The ledger of this moment, requested by SIGUSR1. It has to balance.
    pub fn ledger_now(&mut self) -> Ledger {
        let from = self.errors.seen.len();
        self.signal(libc::SIGUSR1);
        self.wait_for("balance:");
        let ledger = Ledger::parse(&self.errors.seen[from..]);
        ledger.assert_balanced();
        ledger
    }

    /// Stops the daemon by SIGTERM. It must end within 5 s with exit code 0 and a ledger that balances.
    pub fn stop(self) -> Ledger {
        self.stop_by(libc::SIGTERM)
    }

    /// Stops the daemon by a signal, as [`Daemon::stop`] does.
    pub fn stop_by(self, signal: i32) -> Ledger {
        self.stop_while(signal, |_| {})
    }

    /// Stops the daemon by a signal, and calls `meanwhile` again and again until it has ended.
    pub fn stop_while(mut self, signal: i32, meanwhile: impl FnMut(&Daemon)) -> Ledger {
        let from = self.errors.seen.len();
        let begun = Instant::now();
        self.signal(signal);
        let status = self.wait_for_exit(meanwhile);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "stopping took {:?}",
            begun.elapsed()
        );
        while self.errors.next(Instant::now() + TIMEOUT).is_some() {}
        assert!(status.success(), "{status}: {:#?}", self.errors.seen);
        let ledger = Ledger::parse(&self.errors.seen[from..]);
        ledger.assert_balanced();
        ledger
    }

    fn wait_for_exit(&mut self, mut meanwhile: impl FnMut(&Daemon)) -> ExitStatus {
        eventually("the daemon's end", || {
            // The process was not waited for yet, so its id is still its own even if it has just ended.
            meanwhile(self);
            self.child.try_wait().expect("the daemon is our child")
        })
    }

    /// Closes this end of standard error, as a log reader that ends does.
    pub fn close_log(&mut self) {
        let Lines {
            receiver, reader, ..
        } = std::mem::replace(&mut self.errors, Lines::of(std::io::empty()));
        drop(receiver);
        // The signal makes the daemon write a line, which ends the reader.
        self.signal(libc::SIGHUP);
        reader.join().expect("the reader ends");
    }

    /// Ends the daemon by a signal, without reading its log. Returns its exit code.
    pub fn end(mut self, signal: i32) -> Option<i32> {
        self.signal(signal);
        self.wait_for_exit(|_| {}).code()
    }

    /// The rest of standard output, once the daemon has ended.
    pub fn take_output(&mut self) -> impl Iterator<Item = String> + use<> {
        self.output
            .take()
            .expect("standard output is piped")
            .receiver
            .into_iter()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            // A successor of the process may serve, and would outlive the test.
            let control = self.control();
            let _ = udispatch(&["stop", "--control", &control.to_string_lossy()]);
        }
        // After `stop` the process has ended already, and both calls do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result of a command that ends by itself.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code of the command.
    pub code: i32,
    /// What the command wrote to its standard output.
    pub output: String,
    /// What the command wrote to its standard error.
    pub errors: String,
}

/// Runs `udispatch` with these arguments until it ends.
pub fn udispatch(arguments: &[&str]) -> Outcome {
    udispatch_under(&[], arguments)
}

/// Runs `udispatch` by way of another program, such as `prlimit --nofile=9`.
pub fn udispatch_under(wrapper: &[&str], arguments: &[&str]) -> Outcome {
    let mut words = wrapper.to_vec();
    words.push(env!("CARGO_BIN_EXE_udispatch"));
    words.extend(arguments);
    // Variables of the environment in which the tests run must not influence the command.
    let control = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env("RUNTIME_DIRECTORY", control.path())
        .env_remove("UDISPATCH_CONTROL");
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("udispatch starts");
    Outcome {
        code: output.status.code().expect("it ended by itself"),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `udispatch COMMAND FILE OPTIONS`, where the file contains this text.
pub fn on_file(command: &str, config: &str, options: &[&str]) -> Outcome {
    on_file_under(&[], command, config, options)
}

/// Runs `udispatch COMMAND FILE OPTIONS` by way of another program.
pub fn on_file_under(wrapper: &[&str], command: &str, config: &str, options: &[&str]) -> Outcome {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("test.toml");
    std::fs::write(&file, config).expect("the configuration is written");
    let mut arguments = vec![command, file.to_str().expect("a path in UTF-8")];
    arguments.extend(options);
    udispatch_under(wrapper, &arguments)
}
