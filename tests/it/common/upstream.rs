//! Upstreams that reply, and the configuration of a forwarder to them.

use std::fmt::Display;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::Client;
use super::eventually;

/// A server on a thread of its own. When it is dropped, its port is closed, and the kernel refuses what comes to it.
pub struct Server {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that calls a function for each datagram, with its socket, the payload and the sender.
    pub fn with(
        client: Client,
        mut act: impl FnMut(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> Server {
        let address = client.address();
        let received = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let count = Arc::clone(&received);
        let end = Arc::clone(&is_over);
        let socket = client.0;
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !end.load(Ordering::Relaxed) {
                match socket.recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        act(&socket, &buffer[..len], from);
                    }
                    Err(error) => assert!(matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::Interrupted
                    )),
                }
            }
        });
        Server {
            address,
            received,
            is_over,
            thread: Some(thread),
        }
    }

    /// A server that replies with what the function makes of each datagram.
    pub fn answering(
        client: Client,
        mut answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Server {
        Server::with(client, move |socket, bytes, from| {
            // The client may be gone.
            let _ = socket.send_to(&answer(bytes), from);
        })
    }

    /// A server that replies `NAME:` and the payload. Port 0 lets the kernel choose.
    pub fn named(name: &str, address: &str) -> Server {
        let name = format!("{name}:").into_bytes();
        Server::answering(Client::bind(address), move |bytes| [&name, bytes].concat())
    }

    /// A server that replies with the source address of the request, and the payload: `ADDRESS:PORT PAYLOAD`.
    pub fn reporting(client: Client) -> Server {
        Server::with(client, |socket, bytes, from| {
            let _ = socket.send_to(&[format!("{from} ").as_bytes(), bytes].concat(), from);
        })
    }

    /// The address that the server is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of datagrams that the server received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(ended.is_none_or(|ended| ended.is_ok()));
        }
    }
}

/// Several servers on loopback, called `0`, `1` and so on.
pub fn servers(count: usize) -> Vec<Server> {
    (0..count)
        .map(|number| Server::named(&number.to_string(), "127.0.0.1:0"))
        .collect()
}

/// The addresses as a TOML array.
pub fn list(addresses: impl IntoIterator<Item = SocketAddr>) -> String {
    let quoted: Vec<String> = addresses
        .into_iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    format!("[{}]", quoted.join(", "))
}

/// A route and a forwarder of its own. `upstreams` is TOML, and `more` are further keys.
pub fn forwarder(name: &str, destination: &str, upstreams: &str, more: &str) -> String {
    format!(
        "[[route]]\ndestination = \"{destination}\"\nhandler = \"{name}\"\n\
         [handler.{name}]\nkind = \"forward\"\nupstreams = {upstreams}\n{more}\n"
    )
}

/// The destination of the route that [`on`] makes.
pub const HERE: &str = "127.0.0.1:1234";

/// A forwarder called `on`, from [`HERE`] to one server. `more` are further keys.
pub fn on(upstream: &Server, more: &str) -> String {
    forwarder("on", HERE, &list([upstream.address()]), more)
}

/// The reply to a request, as text.
pub fn answer(client: &Client, to: impl Display) -> String {
    String::from_utf8(client.ask(b"?", &to.to_string()).0).expect("text")
}

/// Time for which an upstream that passive health has found dead gets nothing, before a client's datagram tries it
/// again.
pub const PAUSE: Duration = udispatch::dispatch::passive_health::PAUSE;

/// Largest number of trials of an upstream that has been dead since then.
pub fn trials_max(since: Instant) -> u64 {
    1 + since.elapsed().as_secs() / PAUSE.as_secs()
}

/// The name of the server that replies to a new request. A dead upstream may be on trial, which costs a request, so the
/// client sends again until it gets a reply. Replies to earlier requests are skipped.
pub fn answer_despite_trials(client: &Client, to: &str) -> String {
    static QUESTIONS: AtomicU64 = AtomicU64::new(0);
    // The limit is shorter than the pause, so that the client does not send again exactly at the next trial.
    let limit = PAUSE / 4;
    eventually(format!("an answer of {to}"), || {
        let end = format!(":{}", QUESTIONS.fetch_add(1, Ordering::Relaxed));
        let mut told = client.try_ask(&end.as_bytes()[1..], to, limit);
        loop {
            let text = String::from_utf8(told?).expect("text");
            if let Some(name) = text.strip_suffix(&end) {
                return Some(name.to_owned());
            }
            told = client.receive_within(limit);
        }
    })
}

/// The reply to a request, as text. The first requests may be lost: it sends again until a reply comes.
pub fn answer_at_last(client: &Client, to: &str) -> String {
    let told = eventually(format!("an answer of {to}"), || {
        client.try_ask(b"?", to, Duration::from_millis(100))
    });
    String::from_utf8(told).expect("text")
}
