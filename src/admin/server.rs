//! Accepts clients and enforces the limits on connections, on the size of requests, and on their duration. What a limit
//! refuses is counted (`observe/admin_stats.rs`) and shown in the snapshot.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::access::{self, ListenerKind};
use super::listeners::AdminListeners;
use super::reserve_fd::ReserveFd;
use super::routes::EndpointContext;
use super::write_timeout::WriteTimeout;
use crate::number;
use crate::observe::admin_stats::AdminStats;
use crate::supervisor::requests::Requests;

/// Longest wait at the end for requests in progress.
const FINISH_MAX: Duration = Duration::from_millis(300);
/// Largest number of connections at each listener. Clients over TCP do not take places from those at the control
/// socket.
pub const CONNECTIONS_MAX: usize = 64;
/// Largest head of a request in bytes: the smallest limit that hyper enforces.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest wait for the head of a request, from the connection or from the previous response.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted, usually because the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time for a connection that uses the reserve descriptor, since other clients wait for it.
const BRIEF_MAX: Duration = Duration::from_secs(5);
/// The time for any other connection, which is not limited.
const LONG_MAX: Duration = Duration::MAX;

/// A listener that accepts clients.
pub(super) struct OpenListener {
    listener: AdminListener,
    hosts: Arc<Vec<String>>,
    context: EndpointContext,
    admin_stats: Arc<AdminStats>,
    places: Arc<Semaphore>,
    reserve_fd: Arc<ReserveFd>,
}

enum AdminListener {
    Control(UnixListener),
    Http(TcpListener),
}

/// A connection at either listener. Both kinds are one type, so that hyper's state machine is compiled only once.
enum AdminStream {
    Control(UnixStream),
    Http(TcpStream),
}

/// Registers the sockets with the runtime, and returns their listeners.
///
/// # Errors
///
/// Returns the error of the kernel if a socket cannot be duplicated or registered.
pub(super) fn open(
    listeners: &AdminListeners,
    requests: &Requests,
    stopped: &watch::Receiver<bool>,
) -> io::Result<Vec<OpenListener>> {
    let hosts = Arc::new(listeners.hosts.clone());
    let admin_stats = Arc::clone(&requests.admin_stats);
    let open = |listener, requests| OpenListener {
        listener,
        hosts: Arc::clone(&hosts),
        context: EndpointContext::new(requests, stopped.clone()),
        admin_stats: Arc::clone(&admin_stats),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        reserve_fd: Arc::new(ReserveFd::new()),
    };
    let mut open_listeners = Vec::new();
    if let Some(control) = &listeners.control {
        let listener = control.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        open_listeners.push(open(
            AdminListener::Control(UnixListener::from_std(listener)?),
            requests.clone(),
        ));
    }
    if let Some(http) = &listeners.http {
        let listener = http.try_clone()?;
        listener.set_nonblocking(true)?;
        open_listeners.push(open(
            AdminListener::Http(TcpListener::from_std(listener)?),
            requests.of_tcp_clients(),
        ));
    }
    Ok(open_listeners)
}

/// Serves until it is stopped, and then briefly waits for requests in progress.
pub(super) async fn serve(open_listeners: Vec<OpenListener>, stopped: watch::Receiver<bool>) {
    let all: Vec<_> = open_listeners
        .iter()
        .map(|open| Arc::clone(&open.places))
        .collect();
    let tasks: Vec<_> = open_listeners
        .into_iter()
        .map(|open| tokio::spawn(open.accept_clients(stopped.clone())))
        .collect();
    for task in tasks {
        // A task that panicked has ended, too.
        let _ = task.await;
    }
    wait(stopped).await;
    let finished = async {
        for places in all {
            let _ = places.acquire_many(number::to_u32(CONNECTIONS_MAX)).await;
        }
    };
    let _ = timeout(FINISH_MAX, finished).await;
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, so the daemon has ended.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

impl OpenListener {
    async fn accept_clients(self, stopped: watch::Receiver<bool>) {
        let end = wait(stopped.clone());
        tokio::pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut end => return,
            };
            if let Ok(stream) = accepted {
                self.serve_client(stream, LONG_MAX, &stopped);
            } else {
                self.admin_stats.failed_accepts.more();
                match self.accept_with_reserve_fd().await {
                    Some(stream) => self.serve_client(stream, BRIEF_MAX, &stopped),
                    None => sleep(ACCEPT_PAUSE).await,
                }
            }
            self.reserve_fd.keep();
        }
    }

    /// Accepts a client with the reserve descriptor, if that is available.
    async fn accept_with_reserve_fd(&self) -> Option<AdminStream> {
        if !self.reserve_fd.lend() {
            return None;
        }
        // The waiting client may have disconnected. Do not wait for another one.
        timeout(Duration::ZERO, self.listener.accept())
            .await
            .ok()?
            .ok()
    }

    fn serve_client(
        &self,
        stream: AdminStream,
        connection_max: Duration,
        stopped: &watch::Receiver<bool>,
    ) {
        self.admin_stats.accepted.more();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.admin_stats.refused_connections.more();
            stream.refuse();
            return;
        };
        let context = self.context.clone();
        let admin_stats = Arc::clone(&self.admin_stats);
        let stopped = stopped.clone();
        let hosts = Arc::clone(&self.hosts);
        let reserve_fd = Arc::clone(&self.reserve_fd);
        tokio::spawn(async move {
            let _place = place;
            let _connection = CountedConnection::begin(&admin_stats);
            let connection = async move {
                let listener_kind = match &stream {
                    AdminStream::Control(_) => ListenerKind::Control,
                    AdminStream::Http(stream) => {
                        let Ok(local) = stream.local_addr() else {
                            return;
                        };
                        ListenerKind::Http {
                            local: local.ip(),
                            hosts,
                        }
                    }
                };
                serve_connection(stream, listener_kind, context, stopped).await;
            };
            // If the time has passed, the connection is closed. This is not an error of the daemon.
            let _ = timeout(connection_max, connection).await;
            reserve_fd.keep();
        });
    }
}

/// An open connection. It is counted until this value is dropped.
struct CountedConnection(Arc<AdminStats>);

impl CountedConnection {
    fn begin(admin_stats: &Arc<AdminStats>) -> CountedConnection {
        admin_stats.connections.more();
        CountedConnection(Arc::clone(admin_stats))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.less();
    }
}

impl AdminListener {
    async fn accept(&self) -> io::Result<AdminStream> {
        match self {
            AdminListener::Control(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| AdminStream::Control(stream)),
            AdminListener::Http(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| AdminStream::Http(stream)),
        }
    }
}

impl AdminStream {
    /// Sends the reason of the refusal, as far as that is possible without waiting.
    fn refuse(self) {
        let response =
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 60\r\n\r\n\
                      the maximum number of clients is connected; try again later\n";
        // A client that does not read gets no response.
        let _ = match &self {
            AdminStream::Control(stream) => stream.try_write(response),
            AdminStream::Http(stream) => stream.try_write(response),
        };
    }
}

impl AsyncRead for AdminStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            AdminStream::Control(stream) => Pin::new(stream).poll_read(cx, buffer),
            AdminStream::Http(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            AdminStream::Control(stream) => Pin::new(stream).poll_write(cx, bytes),
            AdminStream::Http(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            AdminStream::Control(stream) => Pin::new(stream).poll_flush(cx),
            AdminStream::Http(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            AdminStream::Control(stream) => Pin::new(stream).poll_shutdown(cx),
            AdminStream::Http(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Serves one connection until it ends.
async fn serve_connection(
    stream: AdminStream,
    listener_kind: ListenerKind,
    context: EndpointContext,
    stopped: watch::Receiver<bool>,
) {
    let admin_stats = Arc::clone(&context.requests.admin_stats);
    let counts = Arc::clone(&admin_stats);
    let service = service_fn(move |request: Request<Incoming>| {
        let checked = access::check(&listener_kind, &request, &counts);
        let context = context.clone();
        async move {
            let mut response = match checked {
                Ok(()) => context.respond(&request).await,
                Err(refused) => *refused,
            };
            access::add_headers(&mut response);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = server.serve_connection(TokioIo::new(WriteTimeout::new(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = wait(stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if ended.is_err_and(|error| error.is_parse() || error.is_timeout()) {
        admin_stats.refused_requests.more();
    }
}
