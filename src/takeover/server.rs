//! The side that runs and gives its sockets away.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use mio::Waker;

use super::{PATIENCE, patience_of};
use crate::build::inherited_sockets::{Unlent, lend};
use crate::build::worker_threads::Crew;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::legacy::Legacy;
use crate::handover::history::{as_written, difference};
use crate::handover::running::Parked;
use crate::net::{clock, process, wait};
use crate::supervisor::{Failure, Supervisor};
use crate::takeover::messages::{
    Door, Farewell, Hello, Manifest, Refused, Released, Started, VERSION,
};
use crate::takeover::wire::{Kind, Wire, WireError};
use crate::worker::command::Handle;
use crate::worker::estate::Seat;
use crate::worker::event_loop::Worker;

/// Conversations at a time; all but one are refused at once.
const CONVERSATIONS_MAX: u32 = 8;
/// Time between two looks whether there is still something to give.
const STEP: Duration = Duration::from_millis(100);
/// Longest wait for the supervisor to say what runs; a reload may be under way.
const MANIFEST_MAX: Duration = Duration::from_secs(5);

/// What the thread that talks asks of the supervisor.
enum Letter {
    /// What runs, with its sockets.
    Describe(Sender<Result<(Manifest, Vec<OwnedFd>), Unlent>>),
    /// Somebody got that and came to nothing.
    Failed,
    /// Everything goes, if this is still what runs.
    Release {
        wire: Wire,
        generation: u64,
        over: Sender<()>,
    },
    /// What another process has counted after it gave us everything, by worker.
    Late(Vec<Ledger>),
    /// It has told all that it will ever tell.
    FarewellOver,
}

/// The supervisor's end.
pub struct Gate {
    sender: Sender<Letter>,
    letters: Receiver<Letter>,
    waker: Arc<Waker>,
    /// What control connections come in by, for the next process.
    doors: Vec<(Door, OwnedFd)>,
    path: Option<PathBuf>,
    is_closed: Arc<AtomicBool>,
    /// Whether the process that we have taken over still has to tell its last counts, by numbers that mean what they mean
    /// now: until then nothing is reloaded or given away.
    pub(crate) is_farewell_due: bool,
}

/// Says, however it ends, that no more counts will come.
struct Farewelling {
    sender: Sender<Letter>,
    waker: Arc<Waker>,
}

impl Drop for Farewelling {
    fn drop(&mut self) {
        let _ = self.sender.send(Letter::FarewellOver);
        let _ = self.waker.wake();
    }
}

impl Gate {
    /// Nobody can ask yet.
    pub fn new(waker: Arc<Waker>) -> Gate {
        let (sender, letters) = unbounded();
        Gate {
            sender,
            letters,
            waker,
            doors: Vec::new(),
            path: None,
            is_closed: Arc::default(),
            is_farewell_due: false,
        }
    }

    /// Hands on what another process has still counted.
    pub fn add_late(&mut self) -> impl FnOnce(Vec<Ledger>) + Send + use<> {
        self.is_farewell_due = true;
        let farewelling = Farewelling {
            sender: self.sender.clone(),
            waker: Arc::clone(&self.waker),
        };
        move |ledgers| {
            let _ = farewelling.sender.send(Letter::Late(ledgers));
        }
    }

    /// The socket is the next process's now; or the end has come, and its file goes.
    pub fn close(&mut self, is_given: bool) {
        self.is_closed.store(true, Ordering::Relaxed);
        if let Some(path) = self.path.take().filter(|_| !is_given) {
            // Left over, it would say that nobody answers.
            let _ = fs::remove_file(path);
        }
    }
}

/// Binds the socket where the next process asks. Whoever may connect may take everything, so it is its owner's alone.
fn bind(path: &PathBuf) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    File::from(socket.as_fd().try_clone_to_owned()?)
        .set_permissions(Permissions::from_mode(0o600))?;
    // Who serves the control socket beside it is alone here: what is left is of one that has ended.
    let _ = fs::remove_file(path);
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(CONVERSATIONS_MAX.cast_signed())?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

impl Supervisor {
    /// Lets another process take over from now on, by a socket at `path`, which is `given` where a takeover has brought it.
    /// It gets `doors` too.
    pub fn offer_takeover(
        &mut self,
        path: PathBuf,
        given: Option<OwnedFd>,
        mut doors: Vec<(Door, OwnedFd)>,
    ) -> io::Result<()> {
        let listener = given.map_or_else(|| bind(&path), |fd| Ok(UnixListener::from(fd)))?;
        doors.push((Door::Takeover, listener.as_fd().try_clone_to_owned()?));
        listener.set_nonblocking(true)?;
        let (sender, waker) = (self.gate.sender.clone(), Arc::clone(&self.gate.waker));
        let is_closed = Arc::clone(&self.gate.is_closed);
        thread::Builder::new()
            .name("takeover".to_owned())
            .spawn(move || {
                let under_way = Arc::new(AtomicU32::new(0));
                while !is_closed.load(Ordering::Relaxed) {
                    if !wait::is_readable(&listener, STEP) || is_closed.load(Ordering::Relaxed) {
                        continue;
                    }
                    let Ok((stream, _)) = listener.accept() else {
                        // As a rule no more files may be open; who waits would be told of without end.
                        thread::sleep(STEP);
                        continue;
                    };
                    let talk = Talk {
                        sender: sender.clone(),
                        waker: Arc::clone(&waker),
                        under_way: Arc::clone(&under_way),
                    };
                    // Where no thread can be had, the other side finds the connection closed.
                    let _ = thread::Builder::new()
                        .name("takeover".to_owned())
                        .spawn(move || talk.hold(stream));
                }
            })?;
        self.gate.doors = doors;
        self.gate.path = Some(path);
        Ok(())
    }

    /// Answers those who want to take over. Whether another process serves everything now.
    pub(crate) fn heed_gate(&mut self) -> Result<bool, Failure> {
        while let Ok(letter) = self.gate.letters.try_recv() {
            match letter {
                Letter::Describe(reply) => {
                    let _ = reply.send(self.describe());
                }
                Letter::Failed => self.running.settle(),
                Letter::Late(ledgers) => self.running.add_late(&ledgers),
                Letter::FarewellOver => {
                    self.gate.is_farewell_due = false;
                    self.begin_reload();
                }
                Letter::Release {
                    wire,
                    generation,
                    over,
                } => {
                    let is_given = self.release(wire, generation)?;
                    let _ = over.send(());
                    if is_given {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn describe(&self) -> Result<(Manifest, Vec<OwnedFd>), Unlent> {
        let present = self.running.present(self.office.life.generation);
        let lent = lend(&present.workers)?;
        let (seats, sockets): (Vec<Seat>, Vec<_>) = lent.into_iter().unzip();
        let mut fds: Vec<OwnedFd> = sockets.into_iter().map(OwnedFd::from).collect();
        let mut doors = Vec::new();
        for (door, fd) in &self.gate.doors {
            fds.push(fd.try_clone().map_err(|_| Unlent::NoFiles)?);
            doors.push(*door);
        }
        let manifest = Manifest {
            pid: std::process::id(),
            file: self
                .running
                .config
                .source
                .path()
                .to_string_lossy()
                .into_owned(),
            generation: present.generation,
            outline: present.outline,
            sessions: present.sessions,
            addresses: present.addresses,
            seats,
            doors,
            epoch_ns: clock::monotonic_ns()
                .saturating_sub(crate::dispatch::time::nanoseconds(self.epoch.elapsed())),
        };
        Ok((manifest, fds))
    }

    /// Why nothing can be given away now.
    fn is_busy(&self, generation: u64) -> Option<&'static str> {
        match () {
            () if generation != self.office.life.generation => {
                Some("the configuration has changed meanwhile; try again")
            }
            // Whoever wished for it has been told that it is under way.
            () if self.reloader.is_at_work() => Some("a reload is under way; try again"),
            () if self.gate.is_farewell_due => Some(
                "the process that was taken over before has not told its last counts yet; try again",
            ),
            () => None,
        }
    }

    /// Gives everything away. `false` if it has come to nothing, and everything goes on as before.
    fn release(&mut self, mut wire: Wire, generation: u64) -> Result<bool, Failure> {
        let handles: Vec<Handle> = self.running.handles().cloned().collect();
        let crew = match self.is_busy(generation) {
            None => Crew::new(handles.len(), &self.ended)
                .map_err(|error| format!("no thread can be had: {error}")),
            Some(why) => Err(why.to_owned()),
        };
        let crew = match crew {
            Ok(crew) => crew,
            Err(why) => {
                refuse(&mut wire, &why);
                self.running.settle();
                return Ok(false);
            }
        };
        let peer = wire.peer().map_or(0, |(pid, _)| pid);
        let begun = Instant::now();
        let mut parked = self.running.park()?;
        match self.give(&mut wire, &mut parked) {
            Ok((released, removed)) => {
                log::info!(
                    "process {peer} has taken over; {:.1} ms between two turns",
                    begun.elapsed().as_secs_f64() * 1e3
                );
                self.tell_main_process(peer);
                self.farewell(&mut wire, parked, &released, &removed);
                Ok(true)
            }
            Err(error) => {
                // A silent one holds the sockets and may come back to life: two must not serve.
                if matches!(error, WireError::Silent(..))
                    && let Err(error) = process::kill(peer)
                {
                    log::error!(
                        "process {peer} is silent and cannot be ended: {error}. End it before it serves, too"
                    );
                }
                self.running.resume(parked, handles, crew);
                self.running.settle();
                log::error!(
                    "process {peer} has not taken over: {error}. Everything goes on as before, after {:.1} ms",
                    begun.elapsed().as_secs_f64() * 1e3
                );
                Ok(false)
            }
        }
    }

    /// Sends what the workers leave, and waits until the other one runs. Its word on what it does not go on with.
    fn give(
        &self,
        wire: &mut Wire,
        parked: &mut Parked,
    ) -> Result<(Released, Vec<usize>), WireError> {
        let released = Released {
            estates: parked.workers.iter().map(Worker::leave).collect(),
            history: parked.history.ledgers().iter().map(as_written).collect(),
            upstreams: parked.states.iter().map(Into::into).collect(),
            drained: self.office.drained().collect(),
        };
        let fds: Vec<BorrowedFd<'_>> = parked
            .workers
            .iter()
            .flat_map(Worker::lane_sockets)
            .map(AsFd::as_fd)
            .collect();
        let patience = patience_of(
            released
                .estates
                .iter()
                .flat_map(|estate| &estate.legacies)
                .map(count)
                .sum(),
        );
        wire.send(Kind::Released, &released, &fds, patience)?;
        let started: Started = wire.receive(Kind::Started, patience)?.read()?;
        Ok((released, started.removed))
    }

    /// The other one runs. What it has no use for is read out, and what that adds to the accounts is told.
    fn farewell(&self, wire: &mut Wire, parked: Parked, released: &Released, removed: &[usize]) {
        let mut ledgers = Vec::new();
        for (mut worker, estate) in parked.workers.into_iter().zip(&released.estates) {
            worker.read_out(removed);
            ledgers.push(difference(&worker.leave().ledger, &estate.ledger));
        }
        if let Err(error) = wire.send(Kind::Farewell, &Farewell { ledgers }, &[], PATIENCE) {
            log::warn!("the last counts did not reach the process that took over: {error}");
        }
    }
}

fn count(legacy: &Legacy) -> u64 {
    (legacy.sessions.len() + legacy.ports.len()) as u64
}

fn refuse(wire: &mut Wire, why: &str) {
    log::warn!("a takeover is refused: {why}");
    // The other side finds out by itself if it cannot be told.
    let _ = wire.send(
        Kind::Refused,
        &Refused {
            why: why.to_owned(),
        },
        &[],
        PATIENCE,
    );
}

/// One conversation, on a thread of its own, up to the moment when workers have to stop.
struct Talk {
    sender: Sender<Letter>,
    waker: Arc<Waker>,
    under_way: Arc<AtomicU32>,
}

impl Talk {
    fn hold(self, stream: UnixStream) {
        let is_alone = self.under_way.fetch_add(1, Ordering::Relaxed) == 0;
        if let Ok(mut wire) = Wire::new(stream) {
            match is_alone {
                true => self.hold_alone(wire),
                false => refuse(
                    &mut wire,
                    "another process is taking over at this moment; one wins",
                ),
            }
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    fn hold_alone(&self, mut wire: Wire) {
        let peer = wire.peer().map_or(0, |(pid, _)| pid);
        match self.up_to_ready(&mut wire) {
            Ok(generation) => {
                let (over, is_over) = bounded(1);
                if self.ask(Letter::Release {
                    wire,
                    generation,
                    over,
                }) {
                    // Longer than all that may happen there.
                    let _ = is_over.recv_timeout(4 * PATIENCE);
                }
            }
            Err(error) => {
                self.ask(Letter::Failed);
                log::error!(
                    "process {peer} has not taken over: {error}. Everything goes on as before"
                );
            }
        }
    }

    /// What runs now is the configuration of this number, and the other side could begin.
    fn up_to_ready(&self, wire: &mut Wire) -> Result<u64, WireError> {
        let (pid, user) = wire.peer()?;
        let hello: Hello = wire.receive(Kind::Hello, PATIENCE)?.read()?;
        let why = match () {
            () if pid == 0 => {
                Some("it runs in another PID namespace, such as another container's".to_owned())
            }
            () if user != 0 && user != process::user() => {
                Some("it runs as another user".to_owned())
            }
            () if hello.version != VERSION => Some(format!(
                "it speaks version {} of this conversation, this one version {VERSION}; stop this one and start that",
                hello.version
            )),
            () => None,
        };
        if let Some(why) = why {
            refuse(wire, &why);
            return Err(WireError::Refused(why));
        }
        log::info!("process {pid} wants to take over");
        let (reply, described) = bounded(1);
        self.ask(Letter::Describe(reply));
        let described = match described.recv_timeout(MANIFEST_MAX) {
            Ok(described) => described,
            Err(RecvTimeoutError::Timeout) => Err(Unlent::Silent),
            // We end. The other side asks again, and finds somebody else.
            Err(RecvTimeoutError::Disconnected) => return Err(WireError::Left(Kind::Manifest)),
        };
        let (manifest, fds) = match described {
            Ok(described) => described,
            Err(unlent) => {
                refuse(wire, &unlent.to_string());
                return Err(WireError::Refused(unlent.to_string()));
            }
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        wire.send(Kind::Manifest, &manifest, &fds, PATIENCE)?;
        wire.receive(Kind::Ready, PATIENCE)?;
        Ok(manifest.generation)
    }

    fn ask(&self, letter: Letter) -> bool {
        self.sender.send(letter).is_ok() && self.waker.wake().is_ok()
    }
}
