//! Accepts visitors and keeps the limits: how many, how large a request, how long it may take. What a limit refuses is counted
//! (`control/visits.rs`), and shown with everything else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::guard::{self, Door};
use super::listeners::Listeners;
use super::patient::Patient;
use super::spare::Spare;
use super::{FINISH_MAX, desk};
use crate::number;
use crate::observe::admin_stats::Visits;
use crate::supervisor::requests::Requests;

/// Connections at a time, by each door: visitors over TCP do not keep anybody from the control socket.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head; the least that hyper can keep to.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest time until a request's head is there, from the connection or the answer before it on.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted: as a rule this process may have no more files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest visit in the place of the spare file, since others wait for it.
const BRIEF_MAX: Duration = Duration::from_secs(5);
/// Any other visit may last.
const LONG_MAX: Duration = Duration::MAX;

/// A door that is open.
pub(super) struct Open {
    listener: Listener,
    hosts: Arc<Vec<String>>,
    router: Router,
    visits: Arc<Visits>,
    places: Arc<Semaphore>,
    spare: Arc<Spare>,
}

enum Listener {
    Control(UnixListener),
    Http(TcpListener),
}

/// One connection, by either door.
enum Stream {
    Control(UnixStream),
    Http(TcpStream),
}

/// The doors of these sockets.
pub(super) fn doors(
    listeners: &Listeners,
    requests: &Requests,
    stopped: &watch::Receiver<bool>,
) -> io::Result<Vec<Open>> {
    let (hosts, visits) = (
        Arc::new(listeners.hosts.clone()),
        Arc::clone(&requests.visits),
    );
    let open = |listener, requests| Open {
        listener,
        hosts: Arc::clone(&hosts),
        router: desk::router(requests, stopped.clone()),
        visits: Arc::clone(&visits),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        spare: Arc::new(Spare::new()),
    };
    let mut doors = Vec::new();
    if let Some(control) = &listeners.control {
        let listener = control.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        doors.push(open(
            Listener::Control(UnixListener::from_std(listener)?),
            requests.clone(),
        ));
    }
    if let Some(http) = &listeners.http {
        let listener = http.try_clone()?;
        listener.set_nonblocking(true)?;
        doors.push(open(
            Listener::Http(TcpListener::from_std(listener)?),
            requests.of_guests(),
        ));
    }
    Ok(doors)
}

/// Serves until it is told to stop, and then finishes what is under way for a moment.
pub(super) async fn serve(doors: Vec<Open>, stopped: watch::Receiver<bool>) {
    let all: Vec<_> = doors.iter().map(|door| Arc::clone(&door.places)).collect();
    let tasks: Vec<_> = doors
        .into_iter()
        .map(|door| tokio::spawn(door.keep(stopped.clone())))
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
    // An error means that nobody can tell any more: the daemon is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

impl Open {
    async fn keep(self, stopped: watch::Receiver<bool>) {
        let end = wait(stopped.clone());
        tokio::pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut end => return,
            };
            match accepted {
                Ok(stream) => self.let_in(stream, LONG_MAX, &stopped),
                Err(_) => {
                    self.visits.failed_accepts.more();
                    match self.accept_by_spare().await {
                        Some(stream) => self.let_in(stream, BRIEF_MAX, &stopped),
                        None => sleep(ACCEPT_PAUSE).await,
                    }
                }
            }
            self.spare.keep();
        }
    }

    /// A visitor in the place of the spare file.
    async fn accept_by_spare(&self) -> Option<Stream> {
        if !self.spare.lend() {
            return None;
        }
        // Whoever waited may have gone: then nobody else is waited for.
        timeout(Duration::ZERO, self.listener.accept())
            .await
            .ok()?
            .ok()
    }

    fn let_in(&self, stream: Stream, visit_max: Duration, stopped: &watch::Receiver<bool>) {
        self.visits.accepted.more();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.visits.refused_connections.more();
            stream.turn_away();
            return;
        };
        let (router, visits, stopped) = (
            self.router.clone(),
            Arc::clone(&self.visits),
            stopped.clone(),
        );
        let (hosts, spare) = (Arc::clone(&self.hosts), Arc::clone(&self.spare));
        tokio::spawn(async move {
            let _place = place;
            let _visit = Visit::begin(&visits);
            let counts = Arc::clone(&visits);
            let conversation = async move {
                match stream {
                    Stream::Control(stream) => {
                        converse(stream, Door::Control, router, counts, stopped).await
                    }
                    Stream::Http(stream) => {
                        let Ok(local) = stream.local_addr() else {
                            return;
                        };
                        let door = Door::Http {
                            local: local.ip(),
                            hosts,
                        };
                        converse(stream, door, router, counts, stopped).await;
                    }
                }
            };
            // A visit that is cut short is seen by the visitor alone.
            let _ = timeout(visit_max, conversation).await;
            spare.keep();
        });
    }
}

/// A connection that is counted as long as it is there.
struct Visit(Arc<Visits>);

impl Visit {
    fn begin(visits: &Arc<Visits>) -> Visit {
        visits.connections.more();
        Visit(Arc::clone(visits))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.connections.less();
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Control(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Control(stream)),
            Listener::Http(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Http(stream)),
        }
    }
}

impl Stream {
    /// Says why, as far as that goes without waiting.
    fn turn_away(self) {
        let words =
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 53\r\n\r\n\
                      as many visitors as there may be; try again in a bit\n";
        // Whoever reads nothing is told nothing.
        let _ = match &self {
            Stream::Control(stream) => stream.try_write(words),
            Stream::Http(stream) => stream.try_write(words),
        };
    }
}

/// Serves one connection to its end.
async fn converse<S>(
    stream: S,
    door: Door,
    router: Router,
    visits: Arc<Visits>,
    stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let counts = Arc::clone(&visits);
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |request: Request<Incoming>| {
        let checked = guard::check(&door, &request, &counts);
        let router = router.clone();
        async move {
            let mut response: Response<Body> = match checked {
                Ok(()) => router.call(request).await?,
                Err(refused) => *refused,
            };
            guard::dress(&mut response);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = server.serve_connection(TokioIo::new(Patient::new(stream)), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = wait(stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if ended.is_err_and(|error| error.is_parse() || error.is_timeout()) {
        visits.refused_requests.more();
    }
}
