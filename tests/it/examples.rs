//! Runs the programs of examples/ as a reader would, and checks that they do what they say.
//!
//! A plain `cargo test` builds the examples. With `--all-targets` or `--test it` it does not:
//! then `cargo build --examples` must come before it.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::common::namespace::{skip, this_test};

/// Longest wait for anything here. It is far more than needed, and only a test that fails waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Any uid but root's; none that may be running the tests.
const OTHER_USER: u32 = 65533;

/// The path of the built example, found from this test: target/<profile>/deps/<test>, .../examples/NAME.
fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps");
    let program = profile.join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));

    let modified = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    assert!(
        program.exists() && modified(&program) >= modified(&source),
        "{} is missing or older than its source: run `cargo build --examples` (with --release if \
         the tests have it) first",
        program.display()
    );
    program
}

/// A running example, killed and reaped when it goes out of scope.
struct Instance {
    child: Child,
    lines: Receiver<String>,
}

impl Instance {
    fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
        let (sender, lines) = mpsc::channel();
        // Only a channel can be waited for with a deadline, so a thread reads. It ends with the child, whose end closes
        // the pipe.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Starts an example on an address, waits until it listens, and returns the address.
    fn listening(name: &str, address: &str, flags: &[&str]) -> (Self, SocketAddr) {
        let instance = Self::spawn(Command::new(example(name)).arg(address).args(flags));
        let line = instance.line("listening on ");
        let address = line["listening on ".len()..].parse().expect("an address");
        (instance, address)
    }

    /// The next line that begins with this text. The lines before it are skipped.
    fn line(&self, beginning: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(_) => (),
                Err(error) => panic!("no line {beginning:?} from the example: {error}"),
            }
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

/// Tries again when interrupted. A receive with a timeout can be interrupted even without a signal handler.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

// ---- iterative_tcp ----

/// The process that greets on this connection, or `None` if none does within `timeout`.
fn greeted_by(stream: &TcpStream, timeout: Duration) -> Option<u32> {
    stream.set_read_timeout(Some(timeout)).expect("a timeout");
    let mut greeting = [0; 64];
    match uninterrupted(|| stream.peek(&mut greeting)) {
        Ok(len) if greeting[..len].ends_with(b"\n") => {
            (&mut &*stream)
                .read_exact(&mut greeting[..len])
                .expect("what was peeked at");
            let text = str::from_utf8(&greeting[..len]).expect("text");
            let pid = text
                .trim()
                .strip_prefix("served by PID ")
                .expect("a greeting");
            Some(pid.parse().expect("a process id"))
        }
        Ok(0) => panic!("the server closed a connection without a greeting"),
        Ok(_) => None,
        Err(error) if is_timeout(error.kind()) => None,
        Err(error) => panic!("no greeting: {error}"),
    }
}

fn assert_echoes(streams: &[&TcpStream], text: &str) {
    for &(mut stream) in streams {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
            .write_all(text.as_bytes())
            .expect("the request leaves");
    }
    for &(mut stream) in streams {
        let mut echo = vec![0; text.len()];
        stream.read_exact(&mut echo).expect("an echo");
        assert_eq!(echo, text.as_bytes());
    }
}

/// Proves that one process serves one connection at a time: the second client is not greeted before
/// the first one's connection has ended.
#[test]
fn one_iterative_server_serves_one_connection_at_a_time() {
    let (server, address) = Instance::listening("iterative_tcp", "127.0.0.1:0", &[]);
    let first = connect(address);
    assert_eq!(greeted_by(&first, DEADLINE), Some(server.pid()));

    let second = connect(address);
    assert_echoes(&[&first], "still served\n");

    let first_name = first.local_addr().unwrap();
    let second_name = second.local_addr().unwrap();
    drop(first);
    assert_eq!(greeted_by(&second, DEADLINE), Some(server.pid()));
    // The order is in the server's own log, whatever the timing.
    let log: Vec<String> = (0..3).map(|_| server.line("")).collect();
    let expected = [
        format!("serving {first_name}"),
        format!("finished {first_name}"),
        format!("serving {second_name}"),
    ];
    assert_eq!(log, expected);
}

/// Proves that three such processes on one port serve three connections at once. The kernel distributes by hash, so
/// some connections wait behind a busy process. More are opened until each process holds one. The probability that a
/// hundred connections miss one of three is 3 × (2/3)^100, or 10^-17.
#[test]
fn three_iterative_servers_serve_three_connections_at_once() {
    let (first, address) = Instance::listening("iterative_tcp", "127.0.0.1:0", &[]);
    let others =
        [(); 2].map(|()| Instance::listening("iterative_tcp", &address.to_string(), &[]).0);
    let mut pids = vec![first.pid(), others[0].pid(), others[1].pid()];
    pids.sort_unstable();

    let end = Instant::now() + DEADLINE;
    let mut waiting = Vec::new();
    let mut held = HashMap::new();
    while held.len() < pids.len() {
        assert!(
            Instant::now() < end,
            "of {pids:?} only {:?} serve",
            held.keys()
        );
        if waiting.len() < 100 {
            waiting.push(connect(address));
        }
        for stream in std::mem::take(&mut waiting) {
            match greeted_by(&stream, Duration::from_millis(1)) {
                Some(pid) => assert!(held.insert(pid, stream).is_none(), "{pid} serves two"),
                None => waiting.push(stream),
            }
        }
    }

    let mut holders: Vec<u32> = held.keys().copied().collect();
    holders.sort_unstable();
    assert_eq!(holders, pids);
    // All three requests are sent before the first response is read, and twice, so no connection had to end for another
    // to be served.
    let streams: Vec<&TcpStream> = held.values().collect();
    assert_echoes(&streams, "once\n");
    assert_echoes(&streams, "and again\n");
}

// ---- reuseport_http ----

/// Sends one request on a connection of its own and returns the process that responded.
fn http_get(address: SocketAddr) -> u32 {
    let mut stream = connect(address);
    let client = stream.local_addr().expect("the client's address");
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("the request leaves");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");

    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    let beginning = format!("Client [{client}] received msg from Server PID: [");
    let pid = body
        .strip_prefix(&beginning)
        .and_then(|rest| rest.strip_suffix("]\n"));
    pid.unwrap_or_else(|| panic!("not the promised body: {body:?}"))
        .parse()
        .expect("a process id")
}

/// Proves that the kernel distributes requests over three HTTP servers on one port. All of the first 20 must have
/// responses. One server gets none of 20 by chance once in 1,100 runs, so up to a hundred more requests may follow
/// until each server has responded.
#[test]
fn three_http_servers_share_a_port() {
    let (first, address) = Instance::listening("reuseport_http", "127.0.0.1:0", &[]);
    let others =
        [(); 2].map(|()| Instance::listening("reuseport_http", &address.to_string(), &[]).0);

    let mut answers: HashMap<u32, u32> = [&first, &others[0], &others[1]]
        .map(|server| (server.pid(), 0))
        .into();
    for request in 0..120 {
        if request >= 20 && answers.values().all(|&count| count > 0) {
            break;
        }
        *answers
            .get_mut(&http_get(address))
            .expect("an answer from one of the three") += 1;
    }
    println!("answers by process: {answers:?}");
    assert!(
        answers.values().all(|&count| count > 0),
        "one got nothing: {answers:?}"
    );
}

/// Proves that SO_REUSEPORT does not let the process of another user take a share of the port. Its bind fails with
/// EADDRINUSE and says why, while the owner's next process is let in.
#[test]
fn another_users_http_server_is_refused() {
    let (_owner, address) = Instance::listening("reuseport_http", "127.0.0.1:0", &[]);
    // A copy is used, because the other user may not be allowed to enter the build directory. Another process makes it:
    // a child that a concurrent test forks meanwhile would inherit the file while it is open for writing here, and a
    // file that is open for writing cannot be executed (ETXTBSY).
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("reuseport_http");
    let copied = Command::new("cp")
        .arg(example("reuseport_http"))
        .arg(&program)
        .status();
    assert!(
        copied.expect("cp runs").success(),
        "the example cannot be copied"
    );
    for path in [directory.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
    }

    let server = |program: &Path| {
        let mut command = Command::new(program);
        command.arg(address.to_string()).stderr(Stdio::piped());
        command
    };
    let _second = {
        let instance = Instance::spawn(&mut server(&program));
        instance.line("listening on ");
        instance
    };

    // Only root may start a process as another user. The owner of a process owns its entry in /proc.
    if fs::metadata("/proc/self")
        .expect("this process in /proc")
        .uid()
        != 0
    {
        return skip(this_test!(), "another user's server needs root");
    }
    let mut refused = Instance::spawn(server(&program).uid(OTHER_USER));
    match refused.lines.recv_timeout(DEADLINE) {
        Err(mpsc::RecvTimeoutError::Disconnected) => (),
        other => panic!("expected the server to end without a word on stdout: {other:?}"),
    }
    assert_eq!(refused.child.wait().expect("its end").code(), Some(1));
    let mut complaint = String::new();
    refused
        .child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaint)
        .expect("its stderr");
    assert!(
        complaint.contains(&format!("cannot serve {address}: EADDRINUSE")),
        "{complaint}"
    );
}

// ---- seamless_restart ----

/// Requests that never pause while the servers behind the port change.
struct Traffic {
    stop: AtomicBool,
    sent: AtomicU64,
}

const CLIENTS: usize = 4;
/// Number of requests that a client has outstanding at once. CLIENTS times as many fit into the smallest receive buffer
/// that Linux has by default, so none is lost for lack of space.
const BURST: usize = 8;

impl Traffic {
    /// Runs one client. Every request has a socket of its own, because the kernel would otherwise send all of them to
    /// the same instance. Reports the processes that replied.
    fn ask(&self, address: SocketAddr, timeout: Duration, answered_by: &Sender<u32>) {
        while !self.stop.load(Ordering::Relaxed) {
            let requests = [(); BURST].map(|()| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a client's socket");
                socket.connect(address).expect("the server's address");
                let text = format!("request {}", self.sent.fetch_add(1, Ordering::Relaxed));
                socket.send(text.as_bytes()).expect("the request leaves");
                (socket, text)
            });
            let end = Instant::now() + timeout;
            for (socket, text) in requests {
                let left = end.saturating_duration_since(Instant::now());
                let left = left.max(Duration::from_millis(1));
                socket.set_read_timeout(Some(left)).expect("a timeout");
                let mut answer = [0; 128];
                // A missing reply is missing from the sums.
                let Ok(len) = uninterrupted(|| socket.recv(&mut answer)) else {
                    continue;
                };
                let answer = str::from_utf8(&answer[..len]).expect("text").trim();
                let pid = answer.strip_prefix(&format!("{text} from PID "));
                let pid = pid.unwrap_or_else(|| panic!("{text:?} was answered by {answer:?}"));
                let _ = answered_by.send(pid.parse().expect("a process id"));
            }
        }
    }
}

/// Ends the clients also when the test fails, or their scope would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The counts of the clients and of the servers, each made independently.
#[derive(Debug)]
struct Totals {
    sent: u64,
    received_by_clients: u64,
    answered_by_servers: u64,
}

/// Makes an instance leave, and returns the number of requests that it reports.
fn leave(mut instance: Instance) -> u64 {
    drop(instance.child.stdin.take());
    let line = instance.line("left after ");
    assert!(instance.child.wait().expect("its end").success());
    line.split(' ')
        .nth(2)
        .expect("a number")
        .parse()
        .expect("a number")
}

/// Restarts under continuous requests. An instance leaves only when its successor has replied.
fn restart_under_traffic(restarts: usize, flags: &[&str], timeout: Duration) -> Totals {
    let (mut current, address) = Instance::listening("seamless_restart", "127.0.0.1:0", flags);
    let traffic = Traffic {
        stop: AtomicBool::new(false),
        sent: AtomicU64::new(0),
    };
    let (sender, answered_by) = mpsc::channel();
    let mut totals = Totals {
        sent: 0,
        received_by_clients: 0,
        answered_by_servers: 0,
    };

    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let traffic = &traffic;
            let sender = sender.clone();
            scope.spawn(move || traffic.ask(address, timeout, &sender));
        }
        let _stop = StopOnDrop(&traffic.stop);
        for _ in 0..restarts {
            let (next, _) = Instance::listening("seamless_restart", &address.to_string(), flags);
            while answered_by.recv_timeout(DEADLINE).expect("answers go on") != next.pid() {
                totals.received_by_clients += 1;
            }
            totals.received_by_clients += 1;
            totals.answered_by_servers += leave(std::mem::replace(&mut current, next));
        }
    });
    drop(sender);
    totals.received_by_clients += answered_by.iter().count() as u64;
    totals.answered_by_servers += leave(current);
    totals.sent = traffic.sent.load(Ordering::Relaxed);
    println!("{flags:?} {totals:?}");
    totals
}

/// Proves that a restart loses nothing. While instances join and leave, every request of four clients has a reply, by
/// the counts of the clients and of the instances.
#[test]
fn seamless_restarts_answer_every_request() {
    let totals = restart_under_traffic(8, &[], DEADLINE);
    assert!(totals.sent > 0);
    assert_eq!(totals.received_by_clients, totals.sent, "{totals:?}");
    assert_eq!(totals.answered_by_servers, totals.sent, "{totals:?}");
}

/// Proves that the proof above can fail: the same traffic through instances that simply close does lose requests. The
/// count of the instances shows it, so a slow machine cannot be mistaken for a loss.
#[test]
fn naive_restarts_lose_requests() {
    let totals = restart_under_traffic(4, &["--naive"], Duration::from_millis(500));
    assert!(
        totals.answered_by_servers < totals.sent,
        "nothing was lost: {totals:?}"
    );
}

// ---- reuse_rules ----

/// Compares the kernel's rules with the table in tests/it/examples/reuse_rules.txt. If this fails on another kernel,
/// that kernel has other rules, and the way in which udispatch binds must be checked again.
#[test]
fn reuse_rules_are_the_known_ones() {
    let output = Command::new(example("reuse_rules"))
        .output()
        .expect("the example runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let actual = String::from_utf8(output.stdout).expect("text");
    let expected = include_str!("examples/reuse_rules.txt");

    let actual = actual.split("\n\n");
    let expected = expected.split("\n\n");
    assert_eq!(
        actual.clone().count(),
        expected.clone().count(),
        "the number of tables"
    );
    for (actual, expected) in actual.zip(expected) {
        let title = expected.lines().next().unwrap_or_default();
        if actual.starts_with(title) && actual.contains("needs root") {
            skip(this_test!(), &format!("it needs root: {title}"));
            continue;
        }
        assert_eq!(
            actual.lines().count(),
            expected.lines().count(),
            "rows of {title:?}"
        );
        for (actual, expected) in actual.lines().zip(expected.lines()) {
            assert_eq!(actual, expected, "in the table {title:?}");
        }
    }
}

/// Proves that a misused example prints its usage and exits with 2, the code for usage errors.
#[test]
fn usage_errors_exit_with_2() {
    for (name, args) in [
        ("iterative_tcp", &[][..]),
        ("iterative_tcp", &["localhost"]),
        ("reuseport_http", &["127.0.0.1"]),
        ("seamless_restart", &["0.0.0.0:0"]),
        ("seamless_restart", &["127.0.0.1:0", "--fast"]),
        ("reuse_rules", &["127.0.0.1:0"]),
    ] {
        let output = Command::new(example(name))
            .args(args)
            .output()
            .expect("the example runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {stderr}");
        assert!(
            stderr.contains(&format!("usage: {name}")),
            "{name} {args:?}: {stderr}"
        );
    }
}
