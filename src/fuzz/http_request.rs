//! HTTP requests, over real sockets to a real admin server. A thread in place of the supervisor responds at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use mio::{Events, Poll, Token, Waker};

use crate::admin::{Admin, AdminListeners};
use crate::build::error::Refusal;
use crate::config::{ControlSocket, Daemon};
use crate::supervisor::reload_report::ReloadReport;
use crate::supervisor::requests::{Request, RequestQueue, Requests};

/// A complete request, so that the server closes the connection after the requests that were complete before it.
const LAST: &[u8] = b"GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// A response takes microseconds. After this time without one, the request counts as incomplete.
const IDLE: Duration = Duration::from_millis(5);
/// The deadline of a response that must come, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The longest input: several heads of the largest size (8 KiB) and a body.
const BYTES_MAX: usize = 128 << 10;

/// Whether a request over TCP, which is read-only, has changed something.
static CHANGED_OVER_TCP: AtomicBool = AtomicBool::new(false);
static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// Checks the admin server. The bytes go to the control socket, or over TCP if the first one is odd. The server sends
/// HTTP responses, none of them 500. Nothing is changed over TCP. Afterwards the server still responds to other
/// clients.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let (first, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let server = server.get_or_insert_with(|| Server::start().expect("an admin server"));
    let responses = server.exchange(first & 1 == 1, &[bytes, LAST].concat());
    check(&responses);
    server.check_that_it_responds();
    assert!(
        !CHANGED_OVER_TCP.load(Ordering::Relaxed),
        "something was changed over TCP"
    );
}

/// Removes the control socket, if there is one.
#[cfg(test)]
pub(super) fn stop() {
    *SERVER.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

struct Server {
    folder: PathBuf,
    http: SocketAddr,
    /// The servers stop when these are dropped.
    _admins: [Admin; 2],
}

impl Server {
    fn start() -> io::Result<Server> {
        let folder = std::env::temp_dir().join(format!("udispatch-fuzz-{}", process::id()));
        fs::create_dir_all(&folder)?;
        let control = Daemon {
            control: ControlSocket::Path(folder.join("control.sock")),
            ..Daemon::default()
        };
        let http = Daemon {
            control: ControlSocket::Off,
            http: Some(([127, 0, 0, 1], 0).into()),
            http_hosts: vec!["name.example".to_owned()],
            ..Daemon::default()
        };
        let bind = |daemon| {
            AdminListeners::bind(daemon)
                .map(|bound| bound.listeners)
                .map_err(io::Error::other)
        };
        let (control, http) = (bind(&control)?, bind(&http)?);
        let address = http.http_address().expect("a TCP listener");
        let admins = [
            Admin::start(control, supervise(false)?)?,
            Admin::start(http, supervise(true)?)?,
        ];
        Ok(Server {
            folder,
            http: address,
            _admins: admins,
        })
    }

    /// Sends the bytes on a connection of their own and returns the received bytes.
    fn exchange(&self, is_tcp: bool, bytes: &[u8]) -> Vec<u8> {
        if is_tcp {
            let stream = TcpStream::connect(self.http).expect("the server accepts");
            stream.set_read_timeout(Some(IDLE)).expect("a timeout");
            let stop = |stream: &TcpStream| stream.shutdown(Shutdown::Write);
            exchange_bytes(stream, bytes, stop)
        } else {
            let stream = UnixStream::connect(self.path()).expect("the server accepts");
            stream.set_read_timeout(Some(IDLE)).expect("a timeout");
            let stop = |stream: &UnixStream| stream.shutdown(Shutdown::Write);
            exchange_bytes(stream, bytes, stop)
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Checks that the server responds to a new client. A connection without a client may keep its place until the
    /// server writes to it, once a second. Until then the server may respond that it has no place.
    fn check_that_it_responds(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut stream = UnixStream::connect(self.path()).expect("the server accepts");
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            let _ = stream.write_all(LAST);
            let mut response = Vec::new();
            let read = stream.read_to_end(&mut response);
            let response = String::from_utf8_lossy(&response);
            if read.is_ok() && response.starts_with("HTTP/1.1 404 ") {
                return;
            }
            let is_full = response.starts_with("HTTP/1.1 503 ");
            assert!(is_full && Instant::now() < deadline, "{read:?}: {response}");
            thread::sleep(IDLE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sends the bytes, reads until nothing arrives, closes the sending side, and reads to the end. Returns the bytes read.
fn exchange_bytes<S: Read + Write>(
    mut stream: S,
    bytes: &[u8],
    stop: impl Fn(&S) -> io::Result<()>,
) -> Vec<u8> {
    // A server that has rejected the head need not read the rest.
    let _ = stream.write_all(bytes);
    let (mut responses, mut buffer) = (Vec::new(), [0; 16 << 10]);
    let mut is_stopped = false;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return responses,
            Ok(len) => responses.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_stopped => {
                is_stopped = true;
                let _ = stop(&stream);
            }
            Err(_) => return responses,
        }
    }
}

/// Checks the first response, and the following ones as long as each has a length.
fn check(mut responses: &[u8]) {
    while !responses.is_empty() {
        let head = responses.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(head) = head else { return };
        let text = std::str::from_utf8(&responses[..head]).expect("heads are ASCII");
        let status = text
            .strip_prefix("HTTP/1.1 ")
            .or(text.strip_prefix("HTTP/1.0 "));
        let status = status.unwrap_or_else(|| panic!("not a response: {text:?}"));
        let status: u16 = status[..3].parse().expect("a status");
        assert_ne!(status, 500, "{text}");
        let length = |line: &str| {
            line.strip_prefix("content-length: ")
                .and_then(|len| len.parse().ok())
        };
        let Some(length) = text.split("\r\n").find_map(length) else {
            return;
        };
        // A response to HEAD has the length of a body that does not follow.
        let body = &responses[head + 4..];
        let skipped: usize = if body.starts_with(b"HTTP/1.") {
            0
        } else {
            length
        };
        responses = body.get(skipped..).unwrap_or_default();
    }
}

/// Starts a thread in the supervisor's place.
fn supervise(is_tcp: bool) -> io::Result<Requests> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
    let (requests, queue) = Requests::new(waker);
    let work = move || {
        let mut events = Events::with_capacity(1);
        loop {
            match poll.poll(&mut events, None) {
                Ok(()) => respond_to_all(&queue, is_tcp),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    thread::Builder::new()
        .name("fuzz-supervisor".to_owned())
        .spawn(work)?;
    Ok(requests)
}

fn respond_to_all(queue: &RequestQueue, is_tcp: bool) {
    while let Some(request) = queue.next() {
        let is_change = !matches!(
            request,
            Request::Snapshot(_) | Request::Sessions(..) | Request::Explain(..)
        );
        if is_tcp && is_change {
            CHANGED_OVER_TCP.store(true, Ordering::Relaxed);
        }
        respond(request);
    }
}

/// Responds to a request. A snapshot gets no response, so that the client reads that the daemon is stopping.
fn respond(request: Request) {
    match request {
        Request::Snapshot(_) => {}
        Request::Sessions(query, responder) => {
            responder.send(Err(Refusal::Unknown(format!("{query:?}"))));
        }
        Request::Explain(imagined, responder) => responder.send(Ok(format!("{imagined:?}"))),
        Request::Reload { responder, .. } => responder.send(ReloadReport::default()),
        Request::Drain {
            upstream,
            responder,
            ..
        } => responder.send(Ok(format!("{upstream:?}"))),
        Request::Tap(query, responder) => {
            responder.send(Err(Refusal::Unable(format!("{query:?}"))));
        }
        Request::Log(level, responder) => responder.send(level.to_string()),
        Request::Stop(responder) => responder.send("stopping".to_owned()),
    }
}
