//! The forwarders that are compared. Each is a process of its own, pinned to one processor, which ends with the value
//! that holds it.

use crate::cell::{Cell, Talk, Way};
use crate::commands;
use crate::place::Place;
use crate::setup::Setup;
use crate::sys::{self, CpuClock};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Every subject, the yardstick first, and the others as fast as they can be. nginx appears twice: `proxy_responses 0`
/// says that no replies come, and makes a session of every datagram. udispatch appears twice: with `ttl = 64` it need
/// not ask for the TTL of each datagram, and loops are not damped. So does the forwarder with sessions by hand, to show
/// that the yardstick is the faster one.
pub(crate) const SUBJECTS: [Subject; 9] = [
    Subject {
        name: "by hand",
        side: Side::Yardstick,
        suits: |_| true,
        lingers: false,
        command: commands::by_hand,
    },
    Subject {
        name: "by hand, other",
        side: Side::Variant,
        suits: is_talk,
        lingers: false,
        command: commands::by_hand_other,
    },
    Subject {
        name: "udispatch",
        side: Side::Ours,
        suits: |_| true,
        lingers: false,
        command: |setup| commands::udispatch(setup, ""),
    },
    Subject {
        name: "udispatch, ttl = 64",
        side: Side::Variant,
        suits: is_way,
        lingers: false,
        command: |setup| commands::udispatch(setup, "ttl = 64\n"),
    },
    Subject {
        name: "socat",
        side: Side::Peer,
        suits: suits_socat,
        lingers: false,
        command: commands::socat,
    },
    Subject {
        name: "nginx",
        side: Side::Peer,
        suits: suits_proxy,
        lingers: false,
        command: |setup| commands::nginx(setup, ""),
    },
    Subject {
        name: "nginx, responses 0",
        side: Side::Peer,
        suits: |cell| is_way(cell) && suits_proxy(cell),
        lingers: false,
        command: |setup| commands::nginx(setup, "proxy_responses 0;"),
    },
    Subject {
        name: "envoy",
        side: Side::Peer,
        suits: suits_proxy,
        lingers: true,
        command: commands::envoy,
    },
    Subject {
        name: "sozu",
        side: Side::Peer,
        suits: suits_proxy,
        lingers: false,
        command: commands::sozu,
    },
];

/// Longest time that a subject may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The role of a subject in the comparison.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Yardstick,
    Ours,
    Peer,
    /// Another way to run one of the subjects above, which is left out of the summary.
    Variant,
}

/// One forwarder: its name in the report, the cells that it can do, and the command that starts it.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    pub(crate) suits: fn(&Cell) -> bool,
    /// Whether it lacks a setting that ends a session after one reply, so that a session holds a port until a timeout.
    pub(crate) lingers: bool,
    command: fn(&Setup) -> io::Result<Command>,
}

fn is_way(cell: &Cell) -> bool {
    matches!(cell, Cell::Forward(_))
}

fn is_talk(cell: &Cell) -> bool {
    !is_way(cell)
}

/// Proxies pick one upstream, and need a port for each session.
fn suits_proxy(cell: &Cell) -> bool {
    match cell {
        Cell::Forward(Way {
            fanout,
            destinations,
            ..
        }) => *fanout == 1 && *destinations == 1,
        Cell::Exchange(talk) => talk.clients <= 10_000,
    }
}

/// socat makes a process for every client.
fn suits_socat(cell: &Cell) -> bool {
    match cell {
        Cell::Exchange(Talk {
            clients,
            is_one_shot,
            ..
        }) => *clients <= 50 && !is_one_shot,
        Cell::Forward(_) => suits_proxy(cell),
    }
}

impl Subject {
    /// Starts the forwarder on `cpu`. The error is the reason why it is absent.
    pub(crate) fn start(
        &self,
        cell: &Cell,
        upstreams: &[SocketAddr],
        place: &Place,
    ) -> io::Result<Running> {
        let folder = tempfile::tempdir()?;
        let address = match cell {
            Cell::Forward(way) if way.destinations > 1 => Ipv4Addr::UNSPECIFIED,
            _ => Ipv4Addr::LOCALHOST,
        };
        let listen = UdpSocket::bind((address, 0))?.local_addr()?;
        // Namespaces of older kernels have no such file; this is the kernel's own default.
        let rmem_max =
            fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_else(|_| "212992".into());
        let receive_buffer = rmem_max.trim().parse().map_err(io::Error::other)?;
        let mut command = (self.command)(&Setup {
            listen,
            upstreams,
            cell,
            folder: folder.path(),
            receive_buffer,
            files_max: place.files_max,
        })?;
        let log = File::create(folder.path().join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        sys::pinned_child(&mut command, place.forwarder_cpu);
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other("not installed"),
            _ => error,
        })?;
        Ok(Running {
            child,
            listen,
            folder,
        })
    }
}

/// The process of a forwarder.
pub(crate) struct Running {
    child: Child,
    pub(crate) listen: SocketAddr,
    folder: tempfile::TempDir,
}

impl Running {
    /// The process and all processes that it has started.
    pub(crate) fn family(&self) -> Vec<u32> {
        sys::family(self.child.id())
    }

    /// Returns an error, with the last output of the forwarder, if it has ended by itself.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let last = log
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("it said nothing");
        Err(io::Error::other(format!("ended with {status}: {last}")))
    }

    /// Stops the forwarder by SIGSTOP.
    pub(crate) fn stop(&self) -> io::Result<()> {
        sys::stop(&self.family())
    }

    pub(crate) fn go_on(&self) -> io::Result<()> {
        sys::signal_group(self.child.id(), libc::SIGCONT)
    }

    /// The processor time that the forwarder takes during the action, in nanoseconds. It is stopped before and runs
    /// afterwards.
    pub(crate) fn cost<T>(
        &mut self,
        act: impl FnOnce(&Self) -> io::Result<T>,
    ) -> io::Result<(T, f64)> {
        let clock = CpuClock::of(&self.family())?;
        self.stop()?;
        let before = clock.now_ns()?;
        let result = act(self)?;
        self.check_alive()?;
        self.stop()?;
        let after = clock.now_ns()?;
        self.go_on()?;
        Ok((result, (after - before) as f64))
    }

    /// A number of /proc/PID/status, in KiB, summed over the process and all that it has started.
    pub(crate) fn status_kib(&self, field: &str) -> u64 {
        self.family()
            .iter()
            .filter_map(|&pid| sys::status_kib(pid, field))
            .sum()
    }
}

impl Drop for Running {
    /// Sends SIGTERM, so that the forwarder ends as it does in service, and SIGKILL if it does not.
    fn drop(&mut self) {
        let pid = self.child.id();
        // It gets SIGCONT, too, because an error may have left it stopped.
        let _ = sys::signal(pid, libc::SIGTERM);
        let _ = sys::signal_group(pid, libc::SIGCONT);
        let limit = Instant::now() + END_LIMIT;
        while Instant::now() < limit && matches!(sys::ended(pid), Ok(false)) {
            thread::sleep(Duration::from_millis(2));
        }
        // This kills what is left of it, and what it started and did not end.
        let _ = sys::signal_group(pid, libc::SIGKILL);
        let _ = self.child.wait();
    }
}
