//! The client: takes over what another process serves, and performs what the protocol decides.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::time_until;
use crate::build::inherited_sockets::LentSockets;
use crate::config::handlers::one;
use crate::config::{Kind as HandlerKind, NamedHandler};
use crate::dispatch::id::ListenerId;
use crate::dispatch::ledger::Ledger;
use crate::handover::history::{History, Rows};
use crate::handover::prepare::{Prepared, Present};
use crate::handover::running::Running;
use crate::net::{clock, process};
use crate::plan::identity::{HandlerIdentity, Identity, ListenerKey};
use crate::plan::row_map::RowMaps;
use crate::takeover::error::{TakeoverError, WireError};
use crate::takeover::messages::{
    FinalCounts, Hello, Manifest, MessageKind, PassedListener, Released, Started, VERSION,
};
use crate::takeover::protocol::client::{
    ClientHandshake, ClientHandshakeAction, ClientHandshakeEvent, ClientSwitchover,
    ClientSwitchoverAction, ClientSwitchoverEvent,
};
use crate::takeover::protocol::{MESSAGE_TIMEOUT, Message, expect};
use crate::takeover::wire::Wire;
use crate::worker::worker_state::WorkerState;

/// A connection to a server, which still serves.
pub struct TakeoverClient {
    wire: Wire,
    manifest: Manifest,
    sockets: Vec<UdpSocket>,
    admin_listeners: Vec<(PassedListener, OwnedFd)>,
}

/// What this process has taken over and serves now.
pub struct TakenOver {
    /// The workers.
    pub running: Running,
    /// Upstreams that an operator has drained: handler and upstream.
    pub drained: Vec<(String, String)>,
    /// Number of configurations that were served before.
    pub generation: u64,
}

impl TakeoverClient {
    /// Connects to the server whose takeover socket is at `path`, and receives the description of what it serves.
    ///
    /// # Errors
    ///
    /// `Refused`, if there is no server or it does not hand over; the others, if the handshake fails. The server continues to
    /// serve.
    pub fn connect(path: &Path) -> Result<TakeoverClient, TakeoverError> {
        let mut handshake = ClientHandshake::default();
        let mut driver = ClientHandshakeDriver {
            path,
            wire: None,
            manifest: None,
        };
        let mut event = ClientHandshakeEvent::Begun;
        loop {
            let action = handshake.step(event, Instant::now());
            event = match action {
                ClientHandshakeAction::Prepare => return driver.into_client(),
                ClientHandshakeAction::Fail(error) => return Err(error),
                action => driver.perform(action),
            }
        }
    }

    /// Returns the listeners of the server, with the number of sockets of each.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerKey, usize)> + use<> {
        let slots = |listener: ListenerId| {
            self.manifest
                .slots
                .iter()
                .filter(|slot| slot.listener == listener)
                .count()
        };
        let keys = self.manifest.identity.listeners.iter().enumerate();
        let listeners: Vec<_> = keys
            .map(|(number, listener)| (listener.key.clone(), slots(ListenerId::new(number))))
            .collect();
        listeners.into_iter()
    }

    /// Returns the server's process id and configuration file, for the log.
    pub fn server(&self) -> String {
        format!(
            "process {} (file {})",
            self.manifest.pid, self.manifest.file
        )
    }

    /// Takes the listening sockets for administration. A second call returns none.
    pub fn admin_listeners(&mut self) -> Vec<(PassedListener, OwnedFd)> {
        std::mem::take(&mut self.admin_listeners)
    }

    /// Returns the moment from which the daemon counts time. A takeover does not change it.
    pub fn epoch(&self) -> Instant {
        let age_ns = clock::monotonic_ns().saturating_sub(self.manifest.epoch_ns);
        let now = Instant::now();
        now.checked_sub(Duration::from_nanos(age_ns)).unwrap_or(now)
    }

    /// Returns the state that the new configuration may continue, and the listeners' sockets. `kinds` are the kinds of handler
    /// of this program.
    pub fn present(&mut self, kinds: &[HandlerKind]) -> (Present, LentSockets) {
        let mut lent_sockets = LentSockets::default();
        for (slot, socket) in self.manifest.slots.iter().zip(self.sockets.drain(..)) {
            lent_sockets.add(
                self.manifest.identity.listeners[slot.listener.index()]
                    .key
                    .clone(),
                socket,
            );
        }
        let handlers = self
            .manifest
            .identity
            .handlers
            .iter()
            .map(|handler| parse_handler(handler, kinds))
            .collect();
        let present = Present {
            identity: self.manifest.identity.clone(),
            handlers,
            sessions: self.manifest.sessions.clone(),
            addresses: self.manifest.addresses.clone(),
            workers: Vec::new(),
            generation: self.manifest.generation,
        };
        (present, lent_sockets)
    }

    /// Makes the server stop, imports its state and starts the workers. `final_counts` is called with what the server counted
    /// after it exported its state, by worker. It is dropped when no more counts will come.
    ///
    /// # Errors
    ///
    /// The server refuses, fails or serves again. This process must end then, because its workers may run.
    pub fn take_over(
        self,
        prepared: Prepared,
        final_counts: impl FnOnce(Vec<Ledger>) + Send + 'static,
    ) -> Result<TakenOver, TakeoverError> {
        use ClientSwitchoverAction as Action;
        use ClientSwitchoverEvent as Event;
        let mut switchover = ClientSwitchover::default();
        let mut driver = ClientSwitchoverDriver::new(self, prepared);
        let mut event = Event::Prepared;
        loop {
            event = match switchover.step(event, Instant::now()) {
                Action::SendReady { deadline } => {
                    Event::Sent(driver.send(MessageKind::Ready, &(), deadline))
                }
                Action::Receive { deadline } => Event::Received(driver.receive(deadline)),
                Action::StartWorkers => {
                    driver.start_workers();
                    Event::WorkersStarted
                }
                Action::SendStarted { deadline } => {
                    let removed = driver.removed();
                    Event::Sent(driver.send(MessageKind::Started, &Started { removed }, deadline))
                }
                Action::CheckServer => Event::ServerChecked {
                    is_running: process::runs(driver.manifest.pid),
                },
                Action::ReceiveFinalCounts { deadline } => {
                    return driver.finish(deadline, final_counts);
                }
                Action::ServeAlone(error) => {
                    log::warn!(
                        "the process that was taken over has ended before it sent its final counts: {error}"
                    );
                    return driver.taken.ok_or_else(unprepared);
                }
                Action::Fail(error) => return Err(error),
                Action::Exit(error) => {
                    // Leave the connection open. The kernel closes it when no thread of this process runs any more.
                    std::mem::forget(driver.wire);
                    return Err(error);
                }
            }
        }
    }
}

/// Performs the handshake with a server.
struct ClientHandshakeDriver<'a> {
    path: &'a Path,
    wire: Option<Wire>,
    manifest: Option<(Manifest, Vec<OwnedFd>)>,
}

impl ClientHandshakeDriver<'_> {
    fn perform(&mut self, action: ClientHandshakeAction) -> ClientHandshakeEvent {
        use ClientHandshakeAction as Action;
        use ClientHandshakeEvent as Event;
        match action {
            Action::Connect => Event::Connected(self.connect()),
            Action::SendHello { deadline } => Event::Sent(self.send_hello(deadline)),
            Action::Receive { deadline } => Event::Received(self.receive(deadline)),
            Action::Pause { until } => {
                thread::sleep(time_until(until));
                Event::Paused
            }
            // `connect` returns at these actions, so they never get here.
            Action::Prepare | Action::Fail(_) => Event::Begun,
        }
    }

    fn connect(&mut self) -> Result<(), TakeoverError> {
        self.wire = None;
        let stream = UnixStream::connect(self.path).map_err(|error| explain(self.path, &error))?;
        self.wire = Some(Wire::new(stream)?);
        Ok(())
    }

    fn send_hello(&mut self, deadline: Instant) -> Result<(), WireError> {
        let wire = self.wire.as_mut().ok_or(WireError::Closed)?;
        let hello = Hello {
            version: VERSION,
            pid: std::process::id(),
        };
        wire.send(MessageKind::Hello, &hello, &[], time_until(deadline))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, WireError> {
        let wire = self.wire.as_mut().ok_or(WireError::Closed)?;
        let frame = wire.receive(time_until(deadline))?;
        let message = frame.message()?;
        if message == Message::Manifest {
            let manifest: Manifest = frame.read()?;
            if !manifest.is_sound(frame.fds.len()) {
                let what = "its sockets do not match its manifest";
                return Err(WireError::Malformed(what.to_owned()));
            }
            self.manifest = Some((manifest, frame.fds));
        }
        Ok(message)
    }

    fn into_client(self) -> Result<TakeoverClient, TakeoverError> {
        let (Some(wire), Some((manifest, fds))) = (self.wire, self.manifest) else {
            return Err(unprepared());
        };
        let mut fds = fds.into_iter();
        let sockets = fds
            .by_ref()
            .take(manifest.slots.len())
            .map(UdpSocket::from)
            .collect();
        let admin_listeners = manifest.admin_listeners.iter().copied().zip(fds).collect();
        Ok(TakeoverClient {
            wire,
            manifest,
            sockets,
            admin_listeners,
        })
    }
}

/// Performs the switchover.
struct ClientSwitchoverDriver {
    wire: Wire,
    manifest: Manifest,
    row_maps: Arc<RowMaps>,
    prepared: Option<Prepared>,
    released: Option<Released>,
    taken: Option<TakenOver>,
}

impl ClientSwitchoverDriver {
    fn new(client: TakeoverClient, prepared: Prepared) -> ClientSwitchoverDriver {
        ClientSwitchoverDriver {
            wire: client.wire,
            manifest: client.manifest,
            row_maps: Arc::clone(&prepared.row_maps),
            prepared: Some(prepared),
            released: None,
            taken: None,
        }
    }

    fn send(
        &mut self,
        kind: MessageKind,
        body: &impl serde::Serialize,
        deadline: Instant,
    ) -> Result<(), WireError> {
        self.wire.send(kind, body, &[], time_until(deadline))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, WireError> {
        let frame = self.wire.receive(time_until(deadline))?;
        let message = frame.message()?;
        if message == Message::Released {
            let mut released: Released = frame.read()?;
            distribute(&mut released.workers, frame.fds)?;
            self.released = Some(released);
        }
        Ok(message)
    }

    fn start_workers(&mut self) {
        let (Some(prepared), Some(released)) = (self.prepared.take(), self.released.take()) else {
            return;
        };
        let old = rows(&self.manifest.identity);
        let mut history = History::of(released.history);
        for (number, worker_state) in released.workers.iter().enumerate() {
            history.add(number, old, &worker_state.ledger, Vec::new());
        }
        self.taken = Some(TakenOver {
            running: Running::go_on(prepared, released.workers, history, released.upstreams),
            drained: released.drained,
            generation: self.manifest.generation,
        });
    }

    /// Returns the server's numbers of the listeners that the new configuration does not have.
    fn removed(&self) -> Vec<ListenerId> {
        self.row_maps.listeners.gone().collect()
    }

    /// Serves, and receives the final counts on a thread of its own.
    fn finish(
        self,
        deadline: Instant,
        final_counts: impl FnOnce(Vec<Ledger>) + Send + 'static,
    ) -> Result<TakenOver, TakeoverError> {
        let ClientSwitchoverDriver {
            mut wire,
            row_maps,
            taken,
            ..
        } = self;
        let taken = taken.ok_or_else(unprepared)?;
        let rows = taken.running.rows();
        let receive = move || match receive_final_counts(&mut wire, deadline) {
            Ok(ledgers) => {
                final_counts(History::of(ledgers).carry(&row_maps, rows).into_ledgers());
            }
            Err(error) => report_lost_counts(&error),
        };
        let thread = thread::Builder::new().name("final-counts".to_owned());
        if let Err(error) = thread.spawn(receive) {
            report_lost_counts(&error.into());
        }
        Ok(taken)
    }
}

fn receive_final_counts(wire: &mut Wire, deadline: Instant) -> Result<Vec<Ledger>, TakeoverError> {
    let kind = MessageKind::FinalCounts;
    let failed = |error| TakeoverError::receiving(kind, MESSAGE_TIMEOUT, error);
    let frame = wire.receive(time_until(deadline)).map_err(failed)?;
    expect(kind, MESSAGE_TIMEOUT, frame.message())?;
    Ok(frame.read::<FinalCounts>().map_err(failed)?.ledgers)
}

fn report_lost_counts(error: &TakeoverError) {
    log::warn!("the final counts of the process that was taken over are missing: {error}");
}

/// Returns the error for an action that the protocol decides too early, which is a defect.
fn unprepared() -> TakeoverError {
    TakeoverError::Malformed("nothing was received yet".to_owned())
}

/// Parses a handler of the server. Returns `None` if this program does not know its kind or its settings; its sessions then
/// end.
fn parse_handler(identity: &HandlerIdentity, kinds: &[HandlerKind]) -> Option<NamedHandler> {
    // No file could contain the name of a retired handler, so it is parsed under another name.
    let handler = one("handed-over", &identity.text, kinds).ok()?;
    Some(NamedHandler {
        name: identity.name.clone(),
        is_retired: identity.is_retired,
        ..handler
    })
}

fn explain(path: &Path, error: &io::Error) -> TakeoverError {
    let path = path.display();
    TakeoverError::Refused(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "no process offers a takeover at {path}: start without `--takeover`, or set the same `control`"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "no permission to use {path}: take over as the user of the running process, or as root"
            )
        }
        _ => format!("cannot connect to {path}: {error}"),
    })
}

/// Gives each worker state the sockets to its upstreams. `fds` has them in the order of the worker states.
fn distribute(worker_states: &mut [WorkerState], fds: Vec<OwnedFd>) -> Result<(), WireError> {
    let sockets: usize = worker_states
        .iter()
        .map(|worker_state| worker_state.upstream_sockets.len())
        .sum();
    if sockets != fds.len() {
        return Err(WireError::Malformed(format!(
            "received {} descriptors for {sockets} upstream sockets",
            fds.len()
        )));
    }
    let mut fds = fds.into_iter();
    for worker_state in worker_states {
        worker_state.sockets = fds
            .by_ref()
            .take(worker_state.upstream_sockets.len())
            .map(UdpSocket::from)
            .collect();
    }
    Ok(())
}

/// Returns the numbers of rows that the counts of an identity have.
pub(crate) fn rows(identity: &Identity) -> Rows {
    Rows::new(
        identity.listeners.len(),
        identity.routes.len(),
        identity.handlers.len(),
        identity.upstreams(),
    )
}
