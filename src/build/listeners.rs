//! Binds the sockets of the listeners and assigns them to workers.

use std::io;
use std::iter::Cycle;
use std::net::UdpSocket;
use std::ops::Range;

use crate::build::error::{TOO_MANY_FILES, explain};
use crate::build::inherited_sockets::LentSockets;
use crate::build::port_owners;
use crate::config::Daemon;
use crate::config::kind::BuildError;
use crate::dispatch::id::ListenerId;
use crate::net::errno;
use crate::net::multicast;
use crate::net::socket::{self, ListenerOptions};
use crate::plan::{ListenerPlan, Plan, Role};
use crate::worker::listener::{Listener, ListenerParts};
use crate::worker::worker_state::SocketSlot;

/// Checks that no socket of another program is bound to an address of the plan. On a port that this daemon already
/// holds, there can be none (`socket::lock`).
pub(super) fn probe(plan: &Plan, lent_sockets: &LentSockets) -> Result<(), BuildError> {
    let is_new = |listener: &&ListenerPlan| {
        !listener.share && !lent_sockets.has_port(listener.address.port())
    };
    for listener in plan.listeners.iter().filter(is_new) {
        if let Err(error) = socket::probe(listener.address) {
            return Err(explain_bind(listener, &error));
        }
    }
    Ok(())
}

/// The listeners of each worker.
pub(super) type Bound = Vec<Vec<Listener>>;

/// Binds exact addresses before wildcards, so that a wildcard never receives a datagram for an exact address. Existing
/// sockets of a listener keep their order. If several workers share a listener, each gets at least one of its sockets.
/// Sockets beside existing ones are bound later (`Listener::bind_late`), because the kernel would spread flows over
/// them before a worker reads them.
pub(super) fn bind_all(
    daemon: &Daemon,
    plan: &Plan,
    mut lent_sockets: LentSockets,
) -> Result<Bound, BuildError> {
    let mut order: Vec<usize> = (0..plan.listeners.len()).collect();
    order.sort_by_key(|&index| plan.listeners[index].address.ip().is_unspecified());
    let unlocked = lent_sockets
        .unlock(plan)
        .map_err(|error| explain("cannot bind beside our own sockets".to_owned(), &error))?;
    let mut assigner = SocketAssigner::new(daemon, plan);
    for index in order {
        assigner.assign(
            ListenerId::new(index),
            lent_sockets.take(&plan.listeners[index].key()),
        )?;
    }
    drop(unlocked);
    assigner.finish()
}

/// Assigns sockets to workers.
struct SocketAssigner<'a> {
    daemon: &'a Daemon,
    plan: &'a Plan,
    bound: Bound,
    /// The workers for listeners with one socket, in turn.
    owners: Cycle<Range<usize>>,
    /// The smallest receive buffer of the new sockets, in bytes. The buffer of an existing socket was checked when the
    /// socket was new.
    granted: usize,
    /// The new sockets, as worker and position in its list.
    new_sockets: Vec<(usize, usize)>,
}

impl<'a> SocketAssigner<'a> {
    fn new(daemon: &'a Daemon, plan: &'a Plan) -> SocketAssigner<'a> {
        SocketAssigner {
            daemon,
            plan,
            bound: (0..plan.workers).map(|_| Vec::new()).collect(),
            owners: (0..plan.workers).cycle(),
            granted: usize::MAX,
            new_sockets: Vec::new(),
        }
    }

    /// Assigns all sockets of a listener: the existing ones, and as many new ones as it needs.
    fn assign(
        &mut self,
        listener: ListenerId,
        lent_sockets: Vec<UdpSocket>,
    ) -> Result<(), BuildError> {
        let planned = &self.plan.listeners[listener.index()];
        let is_spread = planned.role.is_spread();
        let count = if is_spread {
            self.plan.workers.max(lent_sockets.len())
        } else {
            1
        };
        let has_some = !lent_sockets.is_empty();
        let mut lent_sockets = lent_sockets.into_iter();
        for index in 0..count {
            let worker = if is_spread {
                index % self.plan.workers
            } else {
                self.owners.next().unwrap_or(0)
            };
            let slot = SocketSlot { listener, index };
            let assigned = match lent_sockets.next() {
                Some(socket) => self.reuse(worker, slot, socket),
                None if has_some => self.bind_late(worker, slot),
                None => self.bind_new(worker, slot),
            };
            assigned.map_err(|error| explain_bind(planned, &error))?;
        }
        Ok(())
    }

    /// Assigns an existing socket. Another process may still read it. The socket may therefore gain options that report
    /// more, but must not lose any yet.
    fn reuse(&mut self, worker: usize, slot: SocketSlot, socket: UdpSocket) -> io::Result<()> {
        let planned = &self.plan.listeners[slot.listener.index()];
        let options = options(self.daemon, planned);
        socket::request_more_control_data(&socket, planned.address.is_ipv6(), &options)?;
        self.push(worker, slot, socket, false);
        Ok(())
    }

    /// Binds a new socket.
    fn bind_new(&mut self, worker: usize, slot: SocketSlot) -> io::Result<()> {
        let planned = &self.plan.listeners[slot.listener.index()];
        let socket = bind(&options(self.daemon, planned), planned)?;
        self.push_new(worker, slot, socket, false);
        Ok(())
    }

    /// Opens a socket that is bound later.
    fn bind_late(&mut self, worker: usize, slot: SocketSlot) -> io::Result<()> {
        let planned = &self.plan.listeners[slot.listener.index()];
        let options = options(self.daemon, planned);
        let socket = socket::unbound_listener(planned.address, &options)?;
        self.push_new(worker, slot, socket, true);
        Ok(())
    }

    fn push_new(&mut self, worker: usize, slot: SocketSlot, socket: UdpSocket, is_late: bool) {
        let granted = socket::granted_receive_buffer(&socket).unwrap_or(usize::MAX);
        self.granted = self.granted.min(granted);
        self.new_sockets.push((worker, self.bound[worker].len()));
        self.push(worker, slot, socket, is_late);
    }

    fn push(&mut self, worker: usize, slot: SocketSlot, socket: UdpSocket, is_late: bool) {
        let planned = &self.plan.listeners[slot.listener.index()];
        let parts = ListenerParts {
            slot,
            address: planned.address,
            options: options(self.daemon, planned),
            receives_source: planned.needs.source,
            is_late,
        };
        self.bound[worker].push(Listener::new(socket, parts));
    }

    /// Locks the new sockets. Existing sockets belong to the other process until it has handed them over.
    fn finish(self) -> Result<Bound, BuildError> {
        for (worker, place) in self.new_sockets {
            let listener = &self.bound[worker][place];
            let label = &self.plan.listeners[listener.slot.listener.index()].label;
            listener
                .settle()
                .map_err(|error| BuildError(format!("cannot lock {label}: {error}")))?;
        }
        warn_of_small_buffers(self.daemon, self.granted);
        Ok(self.bound)
    }
}

fn options(daemon: &Daemon, listener: &ListenerPlan) -> ListenerOptions {
    ListenerOptions {
        reuse_port: listener.role.is_spread(),
        receive_buffer: daemon.receive_buffer,
        send_buffer: daemon.send_buffer,
        destination: listener.receives_destination(),
        ttl: listener.needs.ttl,
        time: listener.needs.time || daemon.latency,
        share: listener.share,
    }
}

fn bind(options: &ListenerOptions, listener: &ListenerPlan) -> io::Result<UdpSocket> {
    let socket = socket::bind_listener(listener.address, options)?;
    if let Role::Group {
        interface, sources, ..
    } = &listener.role
    {
        let group = listener.address.ip();
        if sources.is_empty() {
            multicast::join(&socket, group, *interface)?;
        }
        for source in sources {
            multicast::join_source(&socket, group, *source, *interface)?;
        }
    }
    Ok(socket)
}

fn warn_of_small_buffers(daemon: &Daemon, granted: usize) {
    if granted < daemon.receive_buffer {
        log::warn!(
            "the kernel granted receive buffers of {granted} bytes instead of {}: short bursts may be lost; \
             `sysctl -w net.core.rmem_max={}` allows them (or CAP_NET_ADMIN)",
            daemon.receive_buffer,
            daemon.receive_buffer
        );
    }
}

/// Returns an error for a failed bind or join, with the cause and the cure.
fn explain_bind(listener: &ListenerPlan, error: &io::Error) -> BuildError {
    let label = &listener.label;
    let port = listener.address.port();
    let text = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let owners: Vec<_> = port_owners::find(listener.address)
                .iter()
                .map(ToString::to_string)
                .collect();
            let owners = if owners.is_empty() {
                "a program that /proc does not show".to_owned()
            } else {
                owners.join("; ")
            };
            format!(
                "cannot bind {label}: already taken by {owners}. Stop it, choose another port, or set `share = true` on \
                 the route if both should have the port (every program on it needs SO_REUSEADDR then)"
            )
        }
        Some(libc::EACCES) if port < 1024 => format!(
            "cannot bind {label}: ports below 1024 need the capability CAP_NET_BIND_SERVICE. Grant it with \
             `sudo setcap cap_net_bind_service=+ep {}`, or run as root",
            std::env::current_exe().map_or("/path/to/udispatch".to_owned(), |path| path
                .display()
                .to_string())
        ),
        Some(libc::EMFILE) => format!("cannot open a socket for {label}: {TOO_MANY_FILES}"),
        Some(libc::EAFNOSUPPORT) => format!("cannot bind {label}: this kernel has IPv6 disabled"),
        Some(libc::ENODEV) if matches!(listener.role, Role::Group { .. }) => {
            format!("cannot join {label}: the interface is gone or cannot do multicast")
        }
        Some(errno) => format!("cannot bind {label}: {error} ({})", errno::name(errno)),
        None => format!("cannot bind {label}: {error}"),
    };
    BuildError(text)
}
