//! Takeovers that fail, each at another step. The process that serves must continue undisturbed.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use udispatch::takeover::error::TakeoverError;
use udispatch::takeover::messages::{Hello, MessageKind, VERSION};
use udispatch::takeover::path_beside;
use udispatch::takeover::wire::Wire;

use crate::daemon::{Daemon, kill_and_wait};

/// Longest wait for the next message of the other side.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The log line of the running process when it continues.
const NOT_TAKEN_OVER: &str = "has not taken over";

/// The faults of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The configuration of the new process is wrong.
    BadFile,
    /// The new process cannot bind a port of its configuration.
    PortTaken,
    /// A client sends bytes that are not a frame.
    Nonsense,
    /// The new process uses another version of the protocol.
    OtherVersion,
    /// The new process ends once it has the manifest.
    GoneAfterManifest,
    /// The new process ends once it has the sockets and the state.
    GoneAfterReleased,
    /// The new process is killed once it has the manifest.
    KilledAfterManifest,
    /// The new process is killed once it is ready.
    KilledAfterReady,
    /// Another takeover is in progress.
    Contested,
}

/// All faults, in the order in which they happen.
pub const FAULTS: [Fault; 9] = [
    Fault::BadFile,
    Fault::PortTaken,
    Fault::Nonsense,
    Fault::OtherVersion,
    Fault::GoneAfterManifest,
    Fault::GoneAfterReleased,
    Fault::KilledAfterManifest,
    Fault::KilledAfterReady,
    Fault::Contested,
];

impl Fault {
    /// Makes the fault happen, and asserts that the first process serves afterwards.
    pub fn happen(self, daemon: &mut Daemon) -> anyhow::Result<()> {
        let before = daemon.status().context("before")?;
        daemon.is_provoked = true;
        self.provoke(daemon).with_context(|| format!("{self:?}"))?;
        daemon.catch_up();
        daemon.is_provoked = false;
        let after = daemon.status().context("after")?;
        let same =
            |snapshot: &udispatch::observe::snapshot::Snapshot| (snapshot.pid, snapshot.generation);
        ensure!(
            same(&before) == same(&after),
            "{self:?}: {:?} became {:?}",
            same(&before),
            same(&after)
        );
        Ok(())
    }

    fn provoke(self, daemon: &mut Daemon) -> anyhow::Result<()> {
        match self {
            Fault::BadFile => {
                let status = start_with(daemon, "[daemon]\nworkers = \"many\"\n")?;
                ensure!(
                    status.code() == Some(78),
                    "a wrong file ended with {status}"
                );
                // The last line of its output.
                daemon.wait_for("bad.toml: 2 errors")?;
                return Ok(());
            }
            Fault::PortTaken => {
                let taken = UdpSocket::bind("127.0.0.1:0")?;
                let file = fs::read_to_string(daemon.file())?;
                let destination = taken.local_addr()?;
                let route = format!(
                    "\n[[route]]\ndestination = \"{destination}\"\nhandler = \"one_way\"\n"
                );
                let status = start_with(daemon, &(file + &route))?;
                ensure!(
                    status.code() == Some(1),
                    "a port that is taken ended with {status}"
                );
            }
            Fault::Nonsense => {
                let mut stream = UnixStream::connect(daemon.gate())?;
                stream.write_all(b"GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            }
            Fault::OtherVersion => {
                let mut wire = hello(daemon, VERSION + 1)?;
                match wire.expect(MessageKind::Manifest, TIMEOUT) {
                    Err(TakeoverError::Refused(_)) => {}
                    other => bail!("another version got {other:?}"),
                }
            }
            Fault::GoneAfterManifest => {
                drop(hello(daemon, VERSION)?.expect(MessageKind::Manifest, TIMEOUT)?);
            }
            Fault::GoneAfterReleased => {
                let mut wire = hello(daemon, VERSION)?;
                wire.expect(MessageKind::Manifest, TIMEOUT)?;
                wire.send(MessageKind::Ready, &(), &[], TIMEOUT)?;
                wire.expect(MessageKind::Released, TIMEOUT)?;
            }
            Fault::KilledAfterManifest | Fault::KilledAfterReady => self.kill_between(daemon)?,
            Fault::Contested => {
                let mut wire = hello(daemon, VERSION)?;
                wire.expect(MessageKind::Manifest, TIMEOUT)?;
                daemon.signal(Signal::USR2)?;
                daemon.wait_for("has ended without taking over")?;
            }
        }
        daemon.wait_for(NOT_TAKEN_OVER)?;
        Ok(())
    }

    /// Relays between the running process and a new one, which is killed between two messages.
    fn kill_between(self, daemon: &mut Daemon) -> anyhow::Result<()> {
        let directory = daemon.directory().join("between");
        fs::create_dir_all(&directory)?;
        let path = path_beside(&directory.join("control.sock"));
        // The socket was left by the fault before.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let next = daemon
            // It has more workers. The kernel must not deliver anything to their sockets while they do not serve.
            .command(&daemon.file(), &["--takeover", "--workers", "4"])?
            .env("RUNTIME_DIRECTORY", &directory)
            .spawn()
            .context("cannot start a new process")?;
        let relayed = self.relay(daemon, &listener, next);
        fs::remove_dir_all(&directory)?;
        relayed
    }

    fn relay(self, daemon: &Daemon, listener: &UnixListener, next: Child) -> anyhow::Result<()> {
        let accepted = accept(listener);
        let Ok(stream) = accepted else {
            kill_and_wait(next);
            bail!("the new process does not connect");
        };
        let mut there = Wire::new(stream)?;
        let mut here = Wire::new(UnixStream::connect(daemon.gate())?)?;
        let relayed = (|| {
            pass_on(&mut there, &mut here, MessageKind::Hello)?;
            pass_on(&mut here, &mut there, MessageKind::Manifest)?;
            if self == Fault::KilledAfterReady {
                pass_on(&mut there, &mut here, MessageKind::Ready)?;
                here.expect(MessageKind::Released, TIMEOUT)?;
            }
            anyhow::Ok(())
        })();
        kill_and_wait(next);
        relayed
    }
}

fn hello(daemon: &Daemon, version: u32) -> anyhow::Result<Wire> {
    let mut wire = Wire::new(UnixStream::connect(daemon.gate())?)?;
    wire.send(
        MessageKind::Hello,
        &Hello {
            version,
            pid: std::process::id(),
        },
        &[],
        TIMEOUT,
    )?;
    Ok(wire)
}

fn pass_on(from: &mut Wire, to: &mut Wire, kind: MessageKind) -> anyhow::Result<()> {
    let frame = from.expect(kind, TIMEOUT)?;
    let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).collect();
    to.send(kind, &frame.read::<Value>()?, &fds, TIMEOUT)?;
    Ok(())
}

/// Starts a new process with this configuration, and waits for its end.
fn start_with(daemon: &Daemon, text: &str) -> anyhow::Result<ExitStatus> {
    let file = daemon.directory().join("bad.toml");
    fs::write(&file, text)?;
    Ok(daemon.command(&file, &["--takeover"])?.status()?)
}

fn accept(listener: &UnixListener) -> anyhow::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no process connected within {TIMEOUT:?}")
}
