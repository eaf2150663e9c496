//! The side that comes and takes the sockets over.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::build::inherited_sockets::Held;
use crate::config::handlers::one;
use crate::config::{Kind as HandlerKind, NamedHandler};
use crate::dispatch::ledger::Ledger;
use crate::handover::history::{History, Rows};
use crate::handover::prepare::{Prepared, Present};
use crate::handover::running::{Running, named_states};
use crate::monitor::State;
use crate::net::{clock, process};
use crate::plan::diff::Successors;
use crate::plan::identity::{HandlerOutline, ListenerKey, Outline};
use crate::takeover::messages::{Door, Farewell, Hello, Manifest, Released, Started, VERSION};
use crate::takeover::wire::{Kind, Wire, WireError};
use crate::worker::estate::Estate;

/// How often we ask: who is being taken over at this moment may still accept us, and end.
const TRIES: u32 = 3;
/// Time between two tries; the one that ends has closed its ears by then.
const PAUSE: Duration = Duration::from_millis(200);

/// Another process that runs, and that we are talking to.
pub struct Taker {
    wire: Wire,
    manifest: Manifest,
    sockets: Vec<UdpSocket>,
    doors: Vec<(Door, OwnedFd)>,
}

/// What the other one has given, for a configuration that is ready.
pub struct Taken {
    /// What runs now.
    pub running: Running,
    /// What people have drained by hand.
    pub drained: Vec<(String, String)>,
    /// How many configurations there were.
    pub generation: u64,
}

impl Taker {
    /// Asks whoever listens at `path` for everything.
    pub fn ask(path: &Path) -> Result<Taker, WireError> {
        let mut asked = Taker::ask_once(path);
        for _ in 1..TRIES {
            if !matches!(asked, Err(WireError::Gone(_) | WireError::Left(_))) {
                break;
            }
            thread::sleep(PAUSE);
            asked = Taker::ask_once(path);
        }
        asked
    }

    fn ask_once(path: &Path) -> Result<Taker, WireError> {
        let stream = UnixStream::connect(path).map_err(|error| explain(path, &error))?;
        let mut wire = Wire::new(stream)?;
        let hello = Hello {
            version: VERSION,
            pid: std::process::id(),
        };
        let said = wire.send(Kind::Hello, &hello, &[], PATIENCE);
        let frame = match (said, wire.receive(Kind::Manifest, PATIENCE)) {
            // Who refuses does not wait for our name, but says why.
            (_, Err(WireError::Refused(why))) => return Err(WireError::Refused(why)),
            (said, heard) => {
                said?;
                heard?
            }
        };
        let manifest: Manifest = frame.read()?;
        let mut fds = frame.fds.into_iter();
        let sockets: Vec<UdpSocket> = fds
            .by_ref()
            .take(manifest.seats.len())
            .map(UdpSocket::from)
            .collect();
        let doors: Vec<(Door, OwnedFd)> = manifest.doors.iter().copied().zip(fds).collect();
        let is_sound = sockets.len() == manifest.seats.len()
            && doors.len() == manifest.doors.len()
            && manifest
                .seats
                .iter()
                .all(|seat| seat.listener < manifest.outline.listeners.len());
        match is_sound {
            true => Ok(Taker {
                wire,
                manifest,
                sockets,
                doors,
            }),
            false => Err(WireError::Nonsense(
                "its sockets do not fit its words".to_owned(),
            )),
        }
    }

    /// The listeners whose sockets it has, and how many of each.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerKey, usize)> + use<> {
        let seats = |listener| {
            self.manifest
                .seats
                .iter()
                .filter(|seat| seat.listener == listener)
                .count()
        };
        let keys = self.manifest.outline.listeners.iter().enumerate();
        let listeners: Vec<_> = keys
            .map(|(number, listener)| (listener.key.clone(), seats(number)))
            .collect();
        listeners.into_iter()
    }

    /// Who runs, in words.
    pub fn who(&self) -> String {
        format!(
            "process {} (file {})",
            self.manifest.pid, self.manifest.file
        )
    }

    /// What control connections come in by.
    pub fn doors(&mut self) -> Vec<(Door, OwnedFd)> {
        std::mem::take(&mut self.doors)
    }

    /// When the other one began to count time, as a moment of ours.
    pub fn epoch(&self) -> Instant {
        let ago = clock::monotonic_ns().saturating_sub(self.manifest.epoch_ns);
        let now = Instant::now();
        now.checked_sub(Duration::from_nanos(ago)).unwrap_or(now)
    }

    /// What our configuration may go on with, and the sockets for it.
    pub fn present(&mut self, kinds: &[HandlerKind]) -> (Present, Held) {
        let mut held = Held::default();
        for (seat, socket) in self.manifest.seats.iter().zip(self.sockets.drain(..)) {
            held.add(
                self.manifest.outline.listeners[seat.listener].key.clone(),
                socket,
            );
        }
        let handlers = self
            .manifest
            .outline
            .handlers
            .iter()
            .map(|handler| named(handler, kinds))
            .collect();
        let present = Present {
            outline: self.manifest.outline.clone(),
            handlers,
            sessions: self.manifest.sessions.clone(),
            addresses: self.manifest.addresses.clone(),
            workers: Vec::new(),
            generation: self.manifest.generation,
        };
        (present, held)
    }

    /// Nothing can fail any more: takes everything and starts. `late` gets what the other one still counts.
    pub fn take(
        mut self,
        prepared: Prepared,
        late: impl FnOnce(Vec<Ledger>) + Send + 'static,
    ) -> Result<Taken, WireError> {
        self.wire.say(Kind::Ready, PATIENCE)?;
        let frame = self.wire.receive(Kind::Released, PATIENCE)?;
        let mut released: Released = frame.read()?;
        give_sockets(&mut released.estates, frame.fds)?;
        let old = Rows::of(&self.manifest.outline);
        let mut history = History::of(released.history);
        for (number, estate) in released.estates.iter().enumerate() {
            history.add(number, old, &estate.ledger, Vec::new());
        }
        let states = released.upstreams.iter().map(State::from).collect();
        let states = named_states(&self.manifest.outline, states);
        let successors = prepared.successors.clone();
        let running = Running::go_on(prepared, released.estates, history, states);
        let removed = (0..successors.listeners.len())
            .filter(|old| successors.listeners[*old].is_none())
            .collect();
        if let Err(error) = self
            .wire
            .send(Kind::Started, &Started { removed }, &[], PATIENCE)
        {
            // One that gave us up serves again, and two must not; one that has ended leaves all to us.
            if self.wire.peer().is_ok_and(|(pid, _)| process::runs(pid)) {
                return Err(error);
            }
            log::warn!("the process that was taken over cannot be told: {error}");
        }
        let generation = self.manifest.generation;
        hear_farewell(self.wire, successors, running.rows(), late);
        Ok(Taken {
            running,
            drained: released.drained,
            generation,
        })
    }
}

/// A handler of the other one, as this program understands it. One that it does not understand leaves no sessions that it
/// could serve.
fn named(outline: &HandlerOutline, kinds: &[HandlerKind]) -> Option<NamedHandler> {
    // The name of one that is retired is none that a file could give.
    let handler = one("handed-over", &outline.text, kinds).ok()?;
    Some(NamedHandler {
        name: outline.name.clone(),
        is_retired: outline.is_retired,
        ..handler
    })
}

fn explain(path: &Path, error: &io::Error) -> WireError {
    let path = path.display();
    WireError::Refused(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "nobody runs who could be taken over at {path}: start without `--takeover`, or name the same `control`"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "{path} may not be used: take over as the user that the running one has, or as root"
            )
        }
        _ => format!("cannot connect to {path}: {error}"),
    })
}

/// The sockets of all lanes, in the order of the estates.
fn give_sockets(estates: &mut [Estate], fds: Vec<OwnedFd>) -> Result<(), WireError> {
    let wanted: usize = estates.iter().map(|estate| estate.lanes.len()).sum();
    if wanted != fds.len() {
        return Err(WireError::Nonsense(format!(
            "{} sockets came for {wanted} lanes",
            fds.len()
        )));
    }
    let mut fds = fds.into_iter();
    for estate in estates {
        estate.sockets = fds
            .by_ref()
            .take(estate.lanes.len())
            .map(UdpSocket::from)
            .collect();
    }
    Ok(())
}

fn hear_farewell(
    mut wire: Wire,
    successors: Successors,
    rows: Rows,
    late: impl FnOnce(Vec<Ledger>) + Send + 'static,
) {
    let work = move || match wire
        .receive(Kind::Farewell, PATIENCE)
        .and_then(|frame| frame.read::<Farewell>())
    {
        Ok(Farewell { ledgers }) => {
            late(History::of(ledgers).carry(&successors, rows).into_ledgers())
        }
        Err(error) => {
            log::warn!("the last counts of the process that was taken over are missing: {error}")
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("farewell".to_owned())
        .spawn(work)
    {
        log::warn!("the last counts of the process that was taken over are missing: {error}");
    }
}

impl Rows {
    /// Those of an outline.
    pub fn of(outline: &Outline) -> Rows {
        Rows::new(
            outline.listeners.len(),
            outline.routes.len(),
            outline.handlers.len(),
            outline.upstreams(),
        )
    }
}
