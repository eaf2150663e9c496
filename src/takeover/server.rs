//! The server: listens on the takeover socket, and performs what the protocol decides during the handshake. The supervisor's
//! thread handles its requests. `switchover.rs` has the rest.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use mio::Waker;

use crate::build::error::DaemonError;
use crate::build::inherited_sockets::{Unlent, lend};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::time::nanoseconds;
use crate::net::{clock, process, wait};
use crate::takeover::conversation::ServerConversation;
use crate::takeover::error::WireError;
use crate::takeover::messages::{Manifest, MessageKind, PassedListener};
use crate::takeover::protocol::Message;
use crate::takeover::protocol::server::{
    ServerHandshake, ServerHandshakeAction, ServerHandshakeEvent, SwitchoverConditions,
};
use crate::takeover::switchover::{Serving, Switchover};
use crate::takeover::time_until;
use crate::worker::worker_state::SocketSlot;

/// Number of connections that may wait to be accepted (listen(2)). All but one are refused at once.
const BACKLOG: i32 = 8;
/// Time between two checks whether the takeover socket has been closed.
const STEP: Duration = Duration::from_millis(100);

/// A description of what is served: the manifest and its descriptors.
type Description = (Manifest, Vec<OwnedFd>);

/// A request to the supervisor.
enum ServerRequest {
    /// Describe what is served.
    Describe(Sender<Result<Description, Unlent>>),
    /// Set all options of the listeners' sockets again.
    RestoreListeners,
    /// Hand over to this client, which has prepared for this generation.
    Switchover(ServerConversation, u64),
    /// Add what the process that was taken over counted after it exported its state, by worker.
    AddFinalCounts(Vec<Ledger>),
    /// No more counts will come from that process.
    FinalCountsOver,
}

/// A handle through which any thread sends requests to the supervisor.
#[derive(Clone)]
struct ServerRequests {
    sender: Sender<ServerRequest>,
    waker: Arc<Waker>,
}

impl ServerRequests {
    /// Queues a request. The request is dropped if the supervisor has ended.
    fn send(&self, request: ServerRequest) {
        let _ = self.sender.send(request);
        let _ = self.waker.wake();
    }
}

/// The supervisor's end of all takeovers of this process.
pub struct TakeoverServer {
    requests: ServerRequests,
    waiting: Receiver<ServerRequest>,
    /// The moment from which the daemon counts time.
    epoch: Instant,
    /// The listening sockets for administration, which are passed to the client.
    admin_listeners: Vec<(PassedListener, OwnedFd)>,
    path: Option<PathBuf>,
    is_closed: Arc<AtomicBool>,
    /// Whether the final counts of the process that this one has taken over are still missing. They use the row numbers of the
    /// present configuration, so until then nothing is reloaded or handed over.
    pub(crate) awaits_final_counts: bool,
}

/// Reports that no more counts will come when it is dropped.
struct FinalCountsGuard(ServerRequests);

impl Drop for FinalCountsGuard {
    fn drop(&mut self) {
        self.0.send(ServerRequest::FinalCountsOver);
    }
}

impl TakeoverServer {
    /// Returns a server that does not listen yet. `waker` wakes the supervisor when a request waits. The daemon counts time from
    /// `epoch`.
    pub fn new(waker: Arc<Waker>, epoch: Instant) -> TakeoverServer {
        let (sender, waiting) = unbounded();
        TakeoverServer {
            requests: ServerRequests { sender, waker },
            waiting,
            epoch,
            admin_listeners: Vec::new(),
            path: None,
            is_closed: Arc::default(),
            awaits_final_counts: false,
        }
    }

    /// Returns a function that adds the final counts of the process that was taken over. The counts are awaited until the
    /// function is dropped.
    pub fn expect_final_counts(&mut self) -> impl FnOnce(Vec<Ledger>) + Send + use<> {
        self.awaits_final_counts = true;
        let guard = FinalCountsGuard(self.requests.clone());
        move |ledgers| guard.0.send(ServerRequest::AddFinalCounts(ledgers))
    }

    /// Lets another process take over from now on, through a socket at `path`. `inherited` is that socket if this process has
    /// received it by a takeover. The client receives `admin_listeners`, too.
    ///
    /// # Errors
    ///
    /// The system's, if the socket cannot be bound or the thread cannot be started.
    pub fn offer(
        &mut self,
        path: PathBuf,
        inherited: Option<OwnedFd>,
        mut admin_listeners: Vec<(PassedListener, OwnedFd)>,
    ) -> io::Result<()> {
        let listener = inherited.map_or_else(|| bind(&path), |fd| Ok(UnixListener::from(fd)))?;
        let duplicate = listener.as_fd().try_clone_to_owned()?;
        admin_listeners.push((PassedListener::Takeover, duplicate));
        listener.set_nonblocking(true)?;
        let requests = self.requests.clone();
        let is_closed = Arc::clone(&self.is_closed);
        thread::Builder::new()
            .name("takeover".to_owned())
            .spawn(move || accept(&listener, &requests, &is_closed))?;
        self.admin_listeners = admin_listeners;
        self.path = Some(path);
        Ok(())
    }

    /// Handles all requests that wait. Returns whether another process serves everything now.
    ///
    /// # Errors
    ///
    /// `DaemonError::Worker`, if a worker has panicked.
    pub fn step(&mut self, serving: &mut Serving<'_>) -> Result<bool, DaemonError> {
        while let Ok(request) = self.waiting.try_recv() {
            if self.handle(request, serving)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn handle(
        &mut self,
        request: ServerRequest,
        serving: &mut Serving<'_>,
    ) -> Result<bool, DaemonError> {
        match request {
            // The handshake's thread may have stopped waiting.
            ServerRequest::Describe(responder) => {
                let _ = responder.send(self.describe(serving));
            }
            ServerRequest::RestoreListeners => serving.running.settle(),
            ServerRequest::AddFinalCounts(ledgers) => serving.running.add_late(&ledgers),
            ServerRequest::FinalCountsOver => self.awaits_final_counts = false,
            ServerRequest::Switchover(conversation, prepared_for) => {
                let conditions = SwitchoverConditions {
                    prepared_for,
                    generation: serving.generation,
                    is_reloading: serving.is_reloading,
                    awaits_final_counts: self.awaits_final_counts,
                };
                let worker_ended = Arc::clone(&self.requests.waker);
                return Switchover::new(conversation, serving, worker_ended).run(conditions);
            }
        }
        Ok(false)
    }

    /// Stops listening. The socket's file is removed, unless another process has taken over and owns it.
    pub fn close(&mut self, is_taken_over: bool) {
        self.is_closed.store(true, Ordering::Relaxed);
        if let Some(path) = self.path.take().filter(|_| !is_taken_over) {
            // If the file stayed, clients would find that no process accepts connections on it.
            let _ = fs::remove_file(path);
        }
    }

    fn describe(&self, serving: &Serving<'_>) -> Result<Description, Unlent> {
        let present = serving.running.present(serving.generation);
        let lent = lend(&present.workers)?;
        let (slots, sockets): (Vec<SocketSlot>, Vec<_>) = lent.into_iter().unzip();
        let mut fds: Vec<OwnedFd> = sockets.into_iter().map(OwnedFd::from).collect();
        let mut admin_listeners = Vec::new();
        for (listener, fd) in &self.admin_listeners {
            fds.push(fd.try_clone().map_err(|_| Unlent::NoFiles)?);
            admin_listeners.push(*listener);
        }
        let file = serving.running.config.source.path();
        let age_ns = nanoseconds(self.epoch.elapsed());
        let manifest = Manifest {
            pid: std::process::id(),
            file: file.to_string_lossy().into_owned(),
            generation: present.generation,
            identity: present.identity,
            sessions: present.sessions,
            addresses: present.addresses,
            slots,
            admin_listeners,
            epoch_ns: clock::monotonic_ns().saturating_sub(age_ns),
        };
        Ok((manifest, fds))
    }
}

/// Binds the takeover socket. Only its owner may connect, because a process that connects can take over everything.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    File::from(socket.as_fd().try_clone_to_owned()?)
        .set_permissions(Permissions::from_mode(0o600))?;
    // This process owns the control socket at the same place, so the process that left this file has ended.
    let _ = fs::remove_file(path);
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Accepts clients, each on a thread of its own, until the socket is closed.
fn accept(listener: &UnixListener, requests: &ServerRequests, is_closed: &AtomicBool) {
    let under_way = Arc::new(AtomicU32::new(0));
    while !is_closed.load(Ordering::Relaxed) {
        if !wait::is_readable(listener, STEP) || is_closed.load(Ordering::Relaxed) {
            continue;
        }
        let Ok((stream, _)) = listener.accept() else {
            // Usually the process has no descriptor left. The client still waits, so the next check would find it at once.
            thread::sleep(STEP);
            continue;
        };
        let requests = requests.clone();
        let under_way = Arc::clone(&under_way);
        // If no thread can be started, the client finds the connection closed.
        let _ = thread::Builder::new()
            .name("takeover".to_owned())
            .spawn(move || shake_hands(stream, under_way, requests));
    }
}

fn shake_hands(stream: UnixStream, under_way: Arc<AtomicU32>, requests: ServerRequests) {
    let (conversation, is_alone) = match ServerConversation::new(stream, under_way) {
        Ok(conversation) => conversation,
        Err(error) => {
            return log::error!(
                "cannot use the connection of a process that requests a takeover: {error}"
            );
        }
    };
    let driver = ServerHandshakeDriver {
        conversation,
        requests,
        description: None,
    };
    driver.run(is_alone);
}

/// Performs the handshake with one client.
struct ServerHandshakeDriver {
    conversation: ServerConversation,
    requests: ServerRequests,
    description: Option<Description>,
}

impl ServerHandshakeDriver {
    fn run(mut self, is_alone: bool) {
        let mut handshake = ServerHandshake::new(self.conversation.peer, process::user());
        let accepted = ServerHandshakeEvent::Accepted { is_alone };
        let mut actions = VecDeque::from(handshake.step(accepted, Instant::now()));
        while let Some(action) = actions.pop_front() {
            if let ServerHandshakeAction::BeginSwitchover { generation } = action {
                let request = ServerRequest::Switchover(self.conversation, generation);
                return self.requests.send(request);
            }
            if let Some(event) = self.perform(action) {
                actions.extend(handshake.step(event, Instant::now()));
            }
        }
    }

    fn perform(&mut self, action: ServerHandshakeAction) -> Option<ServerHandshakeEvent> {
        use ServerHandshakeAction as Action;
        use ServerHandshakeEvent as Event;
        let pid = self.conversation.peer.pid;
        match action {
            Action::Receive { deadline } => {
                return Some(Event::Received(self.receive(deadline)));
            }
            Action::Describe { deadline } => return Some(self.describe(deadline)),
            Action::SendManifest { deadline } => {
                return Some(Event::Sent(self.send_manifest(deadline)));
            }
            Action::ReportRequest => log::info!("process {pid} requests a takeover"),
            Action::Refuse(reason) => self.conversation.refuse(reason),
            Action::RestoreListeners => self.requests.send(ServerRequest::RestoreListeners),
            Action::ReportFailure(error) => {
                self.conversation.allow_other_clients();
                log::error!(
                    "process {pid} has not taken over: {error}. This process continues to serve"
                );
            }
            // `run` performs this action, and returns.
            Action::BeginSwitchover { .. } => {}
        }
        None
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, WireError> {
        let wire = &mut self.conversation.wire;
        wire.receive(time_until(deadline))?.message()
    }

    fn describe(&mut self, deadline: Instant) -> ServerHandshakeEvent {
        let (responder, described) = bounded(1);
        self.requests.send(ServerRequest::Describe(responder));
        let unlent = match described.recv_deadline(deadline) {
            Ok(Ok(description)) => {
                let generation = description.0.generation;
                self.description = Some(description);
                return ServerHandshakeEvent::Described(generation);
            }
            Ok(Err(unlent)) => unlent,
            Err(RecvTimeoutError::Timeout) => Unlent::Silent,
            Err(RecvTimeoutError::Disconnected) => return ServerHandshakeEvent::Stopping,
        };
        ServerHandshakeEvent::NotDescribed(unlent.to_string())
    }

    fn send_manifest(&mut self, deadline: Instant) -> Result<(), WireError> {
        let Some((manifest, fds)) = self.description.take() else {
            return Err(WireError::Malformed("there is no description".to_owned()));
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let timeout = time_until(deadline);
        self.conversation
            .wire
            .send(MessageKind::Manifest, &manifest, &fds, timeout)
    }
}
