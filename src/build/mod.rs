//! From a plan to workers that are ready to run: sockets bound, groups joined, upstreams connected, handlers built.

pub mod inherited_sockets;
pub mod line_writer;
pub mod log_writer;
pub mod port_owners;
pub mod service_manager;
pub mod socket_activation;
pub mod worker_threads;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use ipnet::IpNet;

use crate::build::inherited_sockets::Held;
use crate::config::kind::{BuildError, Site, Way};
use crate::config::upstream::{SendFrom, Upstream};
use crate::config::{Config, Daemon, Route};
use crate::dispatch::dispatcher::{Dispatcher, Ear};
use crate::dispatch::handler::{Handler, HandlerId};
use crate::dispatch::route_table::RouteId;
use crate::dispatch::sink::{Job, LineSink};
use crate::net::errno;
use crate::net::kept_source;
use crate::net::multicast;
use crate::net::socket::{self, ListenerOptions};
use crate::plan::targets;
use crate::plan::upstreams::{Located, Upstreams};
use crate::plan::{ListenerPlan, Plan, Role};
use crate::worker::command::Handle;
use crate::worker::estate::Seat;
use crate::worker::event_loop::Worker;
use crate::worker::lanes::{Lanes, Target};
use crate::worker::listener::Listener;

/// Builds all workers around the sockets that are there already. Nothing further is bound when this fails. Time is counted
/// from `epoch`.
pub fn build(
    config: &Config,
    plan: &Plan,
    output: &Sender<Job>,
    held: Held,
    epoch: Instant,
) -> Result<Vec<(Worker, Handle)>, BuildError> {
    probe(plan, &held)?;
    let targets = targets::of(config, plan);
    let hands = || -> Result<Vec<Hands>, BuildError> {
        (0..plan.workers)
            .map(|number| hands(config, plan, output, &targets, number))
            .collect()
    };
    // A new socket beside those that serve may get datagrams at once, which are lost if anything fails after it: so it is the
    // last. At the start nobody serves yet, and sockets to upstreams may happen to get the very ports that are to be bound.
    let (listeners, hands) = match held.is_empty() {
        true => (bind_all(&config.daemon, plan, held)?, hands()?),
        false => {
            let hands = hands()?;
            (bind_all(&config.daemon, plan, held)?, hands)
        }
    };
    let numbered = listeners.into_iter().zip(hands).enumerate();
    numbered
        .map(|(number, (listeners, hands))| {
            build_worker(config, plan, listeners, hands, epoch, number)
        })
        .collect()
}

/// Refuses to start beside a socket of somebody else. On a port that is ours already nobody else can be (`socket::lock`).
fn probe(plan: &Plan, held: &Held) -> Result<(), BuildError> {
    let is_new =
        |listener: &&ListenerPlan| !listener.share && !held.has_port(listener.address.port());
    for listener in plan.listeners.iter().filter(is_new) {
        if let Err(error) = socket::probe(listener.address) {
            return Err(explain_bind(listener, &error));
        }
    }
    Ok(())
}

/// The listeners of each worker.
type Bound = Vec<Vec<Listener>>;

/// Binds exact addresses before wildcards, so that no datagram to an exact address ever reaches a wildcard. What others hold
/// of a listener stays as it is, in its order; where several workers share it, each has at least one. Sockets beside those that
/// are held are bound later (`Listener::bind_late`): the kernel would spread flows over them although nobody reads them yet.
fn bind_all(daemon: &Daemon, plan: &Plan, mut held: Held) -> Result<Bound, BuildError> {
    let mut bound: Bound = (0..plan.workers).map(|_| Vec::new()).collect();
    let mut order: Vec<usize> = (0..plan.listeners.len()).collect();
    order.sort_by_key(|&index| plan.listeners[index].address.ip().is_unspecified());
    let mut owners = (0..plan.workers).cycle();
    // Of those that are new: what others had was told when they were.
    let (mut granted, mut fresh) = (usize::MAX, Vec::new());
    let unlocked = held
        .unlock(plan)
        .map_err(|error| explain("cannot bind beside our own sockets".to_owned(), &error))?;
    for index in order {
        let planned = &plan.listeners[index];
        let options = options(daemon, planned);
        let given = held.take(&planned.key());
        let has_some = !given.is_empty();
        let sockets = if planned.role.is_spread() {
            plan.workers.max(given.len())
        } else {
            1
        };
        let mut given = given.into_iter();
        for place in 0..sockets {
            let worker = if planned.role.is_spread() {
                place % plan.workers
            } else {
                owners.next().unwrap_or(0)
            };
            let given = given.next();
            let (is_given, is_late) = (given.is_some(), given.is_none() && has_some);
            let socket = match given {
                Some(socket) => go_on_with(socket, planned.address.is_ipv6(), &options),
                None if is_late => socket::unbound_listener(planned.address, &options),
                None => bind(&options, planned),
            };
            let socket = socket.map_err(|error| explain_bind(planned, &error))?;
            if !is_given {
                granted =
                    granted.min(socket::granted_receive_buffer(&socket).unwrap_or(usize::MAX));
            }
            let seat = Seat {
                listener: index,
                index: place,
            };
            let listener = Listener::new(
                seat,
                socket,
                planned.address,
                options,
                planned.needs.source,
                is_late,
            );
            if !is_given {
                fresh.push((worker, bound[worker].len()));
            }
            bound[worker].push(listener);
        }
    }
    drop(unlocked);
    // What others hold is theirs until they have given it.
    for listener in fresh.into_iter().map(|(worker, ear)| &bound[worker][ear]) {
        let label = &plan.listeners[listener.seat.listener].label;
        listener
            .settle()
            .map_err(|error| BuildError(format!("cannot lock {label}: {error}")))?;
    }
    warn_of_small_buffers(daemon, granted);
    Ok(bound)
}

fn options(daemon: &Daemon, listener: &ListenerPlan) -> ListenerOptions {
    ListenerOptions {
        reuse_port: listener.role.is_spread(),
        receive_buffer: daemon.receive_buffer,
        send_buffer: daemon.send_buffer,
        destination: listener.tells_destination(),
        ttl: listener.needs.ttl,
        time: listener.needs.time || daemon.latency,
        share: listener.share,
    }
}

/// A socket that somebody else still reads may tell more from now on, and must not tell less yet.
fn go_on_with(socket: UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<UdpSocket> {
    socket::request_more_control_data(&socket, v6, options)?;
    Ok(socket)
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

/// What to do when a process may have no more files open.
const TOO_MANY_FILES: &str = "this process may have no more files open. Raise the limit (`ulimit -n`, or LimitNOFILE= in \
     a unit), or name fewer ports, upstreams or workers";

/// What failed and why, in words.
pub(crate) fn explain(what: String, error: &io::Error) -> BuildError {
    match error.raw_os_error() {
        Some(libc::EMFILE) => BuildError(format!("{what}: {TOO_MANY_FILES}")),
        _ => BuildError(format!("{what}: {error}")),
    }
}

/// A failed bind or join in words: what, why, and what to do.
fn explain_bind(listener: &ListenerPlan, error: &io::Error) -> BuildError {
    let label = &listener.label;
    let port = listener.address.port();
    let text = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let who: Vec<_> = port_owners::find(listener.address)
                .iter()
                .map(ToString::to_string)
                .collect();
            let who = if who.is_empty() {
                "a program that /proc does not show".to_owned()
            } else {
                who.join("; ")
            };
            format!(
                "cannot bind {label}: already taken by {who}. Stop it, choose another port, or set `share = true` on \
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

/// What a worker acts with.
struct Hands {
    handlers: Vec<Box<dyn Handler>>,
    lanes: Lanes,
}

fn hands(
    config: &Config,
    plan: &Plan,
    output: &Sender<Job>,
    targets: &[Target],
    number: usize,
) -> Result<Hands, BuildError> {
    let lanes = Lanes::new(targets.to_vec());
    let mut site = WorkerSite {
        upstreams: &plan.upstreams,
        output,
        number,
        handler: HandlerId(0),
        lanes,
    };
    let handlers = build_handlers(config, &mut site)?;
    Ok(Hands {
        handlers,
        lanes: site.lanes,
    })
}

fn build_worker(
    config: &Config,
    plan: &Plan,
    listeners: Vec<Listener>,
    hands: Hands,
    epoch: Instant,
    number: usize,
) -> Result<(Worker, Handle), BuildError> {
    let ear = |listener: &Listener| {
        let planned = &plan.listeners[listener.seat.listener];
        let claim = planned.claim(listener.seat.index);
        Ear {
            id: listener.seat.listener,
            lookup: planned.lookup.clone(),
            claim,
        }
    };
    let ears = listeners.iter().map(ear).collect();
    let Hands { handlers, lanes } = hands;
    let routes = config
        .routes
        .iter()
        .map(|route| route.handlers.clone())
        .collect();
    let (guard, names) = (Arc::clone(&plan.guard), Arc::clone(&plan.names));
    let upstreams = plan.upstreams.iter().len();
    let mut dispatcher = Dispatcher::new(
        ears,
        routes,
        handlers,
        guard,
        names,
        plan.listeners.len(),
        upstreams,
    );
    if config.daemon.latency {
        dispatcher.measure_stay();
    }
    for (route, prefixes) in expecting(config) {
        dispatcher.expect(route, &prefixes);
    }
    Worker::new(listeners, lanes, dispatcher, epoch).map_err(|error| {
        explain(
            format!("cannot set up the event loop of worker {number}"),
            &error,
        )
    })
}

/// The routes that expect prefixes, with those, in their order.
fn expecting(config: &Config) -> impl Iterator<Item = (RouteId, Vec<IpNet>)> {
    let prefixes = |route: &Route| {
        route
            .expectations
            .iter()
            .filter_map(|expectation| expectation.source)
            .collect()
    };
    let routes = config
        .routes
        .iter()
        .enumerate()
        .map(move |(number, route)| (RouteId::new(number), prefixes(route)));
    routes.filter(|(_, prefixes): &(_, Vec<IpNet>)| !prefixes.is_empty())
}

/// Builds every handler on a site that is told whose turn it is.
fn build_handlers(
    config: &Config,
    site: &mut WorkerSite<'_>,
) -> Result<Vec<Box<dyn Handler>>, BuildError> {
    let mut handlers = Vec::new();
    for (index, handler) in config.handlers.iter().enumerate() {
        site.handler = HandlerId::new(index);
        let built = handler.recipe.build(site);
        handlers.push(
            built.map_err(|error| BuildError(format!("handler `{}`: {error}", handler.name)))?,
        );
    }
    Ok(handlers)
}

fn cannot_reach(upstream: &Upstream, error: &io::Error) -> BuildError {
    let what = format!("cannot reach upstream {upstream}");
    match kept_source::hint(error).filter(|_| upstream.leave.from == SendFrom::Keep) {
        Some(hint) => BuildError(format!("{what}: {hint}")),
        None => explain(what, error),
    }
}

/// What the handlers of one worker are built from.
struct WorkerSite<'a> {
    upstreams: &'a Upstreams,
    output: &'a Sender<Job>,
    number: usize,
    handler: HandlerId,
    lanes: Lanes,
}

impl Site for WorkerSite<'_> {
    fn upstream(&mut self, place: usize) -> Result<Way, BuildError> {
        let id = self.upstreams.id(self.handler, place);
        let Located {
            upstream,
            address,
            is_optional,
            ..
        } = self.upstreams.get(id);
        if let Err(why) = address
            && !is_optional
        {
            return Err(BuildError(why.clone()));
        }
        let lane = self
            .lanes
            .open_one_way(id)
            .map_err(|error| cannot_reach(upstream, &error))?;
        let unreachable = self
            .lanes
            .exit(lane)
            .is_some_and(|(exit, _, _)| exit.unreachable().is_some());
        if unreachable && address.is_ok() && self.number == 0 {
            log::warn!(
                "upstream {upstream}: this host has no route to it yet; what is sent there is lost until it has"
            );
        }
        Ok(Way {
            upstream: id,
            lane,
            address: address.as_ref().ok().copied(),
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        Ok(LineSink::new(self.output.clone()))
    }

    fn seed(&mut self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        // RandomState is seeded by the system once a process.
        RandomState::new().hash_one((self.number, self.handler))
    }
}
