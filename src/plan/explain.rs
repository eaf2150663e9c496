//! What would become of a datagram: the same plan, table and handlers as in a worker, with an outbox that is printed
//! instead of sent.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::config::kind::{BuildError, Recipe, Site, Upstream, Way};
use crate::config::limits::PAYLOAD_BYTES_MAX;
use crate::config::test::SENDER_PORT;
use crate::config::words::{listed, quoted};
use crate::datagram::{Datagram, Envelope, Region, Span, Train};
use crate::dispatch::change::Change;
use crate::dispatch::dispatcher::{Dispatcher, Ear};
use crate::dispatch::handler::{Handler, HandlerId, Lanes, Scene};
use crate::dispatch::id::{EarId, UpstreamId};
use crate::dispatch::ledger::Tally;
use crate::dispatch::outbox::Lane;
use crate::dispatch::route_table::{Match, Mismatch, PortTable, RouteId};
use crate::dispatch::sink::{Job, LineSink};
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::net::fib::DestinationKind;
use crate::number;
use crate::plan::host::Host;
use crate::plan::upstreams::Upstreams;
use crate::plan::{ListenerPlan, Plan, Role};
use crate::supervisor::requests::Imagined;

/// Rows that are told about besides the one that takes the datagram.
const ROWS_MAX: usize = 10;
/// TTL of the imagined datagram: what most hosts begin with.
const TTL: u8 = 64;

/// The datagram to imagine.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its destination.
    pub to: SocketAddr,
    /// Its source.
    pub from: SocketAddr,
    /// The interface it arrives on, if that is not left to the host.
    pub interface: Option<u32>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Question {
    /// What is imagined, with what the host adds to it. The error is a sentence.
    pub fn new(imagined: Imagined, host: &Host) -> Result<Question, String> {
        let Imagined {
            to,
            from,
            interface,
            payload,
        } = imagined;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "--payload: a datagram holds at most {PAYLOAD_BYTES_MAX} bytes"
            ));
        }
        let from =
            from.unwrap_or_else(|| SocketAddr::new(likely_sender(to.ip(), host), SENDER_PORT));
        if from.is_ipv4() != to.is_ipv4() {
            return Err(format!(
                "--from {from} and --to {to} are of different families"
            ));
        }
        let find = |name: &String| {
            let none = || {
                format!(
                    "--interface: this host has no interface {}; it has: {}",
                    quoted(name),
                    host.list()
                )
            };
            host.interface(name).ok_or_else(none)
        };
        let interface = interface.as_ref().map(find).transpose()?;
        Ok(Question {
            to,
            from,
            interface,
            payload,
        })
    }
}

/// This host itself: as it would send there, and loopback where it cannot.
fn likely_sender(to: IpAddr, host: &Host) -> IpAddr {
    let loopback = if to.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let source = (host.look_up)(to).ok().and_then(|answer| answer.source);
    source
        .filter(|source| !to.is_loopback() && !source.is_unspecified())
        .unwrap_or(loopback)
}

/// What would become of the datagram.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// In lines for people.
    pub text: String,
    /// The route that takes it.
    pub route: Option<RouteId>,
}

/// Where a datagram would come to.
pub(crate) struct Course {
    /// The listeners that get it or a copy, the one that handles it first.
    pub(crate) heard: Vec<usize>,
    /// What the kernel would tell about it.
    pub(crate) envelope: Envelope,
    /// The route that takes it.
    pub(crate) route: Option<RouteId>,
}

/// Follows a datagram to its route. `table` is the plan's, for the port that it is sent to.
pub(crate) fn follow(plan: &Plan, host: &Host, question: &Question, table: &PortTable) -> Course {
    let heard = hearers(plan, question);
    let envelope = imagine(
        host,
        question,
        heard.first().map(|index| &plan.listeners[*index]),
    );
    let route = (!heard.is_empty()).then(|| table.find(&envelope)).flatten();
    Course {
        heard,
        envelope,
        route,
    }
}

/// What would become of the datagram, when this has been heard of the upstreams.
pub fn explain(
    config: &Config,
    plan: &Plan,
    host: &Host,
    question: &Question,
    changes: &[(UpstreamId, Change)],
) -> Result<Explanation, BuildError> {
    let mut text = String::new();
    let Course {
        heard,
        envelope,
        route: chosen,
    } = follow(
        plan,
        host,
        question,
        &plan.table.for_port(question.to.port()),
    );
    line(&mut text, "datagram", &datagram(host, question, &envelope));
    if !is_here(host, question.to.ip()) {
        let ip = question.to.ip();
        line(
            &mut text,
            "note",
            &format!(
                "{ip} is no address of this host now: until it is one, nothing sent there comes here"
            ),
        );
    }
    let Some(&first) = heard.first() else {
        line(
            &mut text,
            "socket",
            "none: the kernel drops it, and to a unicast address answers that the port is closed",
        );
        let at_port = plan
            .listeners
            .iter()
            .filter(|listener| listener.address.port() == question.to.port());
        let labels: Vec<_> = at_port
            .take(ROWS_MAX)
            .map(|listener| listener.label.as_str())
            .collect();
        if !labels.is_empty() {
            line(
                &mut text,
                "",
                &format!("on this port there is: {}", labels.join(", ")),
            );
        }
        return Ok(Explanation { text, route: None });
    };
    sockets(&mut text, plan, &heard, envelope.is_to_many());
    routes(&mut text, config, plan, &envelope, chosen);
    if let Some(route) = chosen {
        let scene = (
            &plan.listeners[first],
            &envelope,
            question.payload.as_slice(),
        );
        act(&mut text, config, plan, scene, route, changes)?;
        line(
            &mut text,
            "answers",
            &format!("would leave from {}", envelope.local),
        );
    }
    Ok(Explanation {
        text,
        route: chosen,
    })
}

/// A line of an explanation: what it is about, and what there is to say.
pub(crate) fn line(text: &mut String, head: &str, rest: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{head:9} {rest}");
}

fn datagram(host: &Host, question: &Question, envelope: &Envelope) -> String {
    let (src, dst, bytes) = (envelope.src, envelope.dst, question.payload.len());
    format!(
        "{src} > {dst}, {bytes} bytes, TTL {TTL}, on {}",
        host.interface_name(envelope.interface)
    )
}

/// The listeners that get the datagram or a copy, the one that handles it first.
fn hearers(plan: &Plan, question: &Question) -> Vec<usize> {
    let (ip, port) = (question.to.ip(), question.to.port());
    let at = |wanted: &dyn Fn(&ListenerPlan) -> bool| -> Vec<usize> {
        let listeners = plan.listeners.iter().enumerate();
        let found =
            listeners.filter(|(_, listener)| listener.address.port() == port && wanted(listener));
        found.map(|(index, _)| index).collect()
    };
    let wildcard = |listener: &ListenerPlan| {
        matches!(listener.role, Role::Wildcard { .. }) && listener.address.is_ipv4() == ip.is_ipv4()
    };
    let exact = at(&|listener| {
        let heard = match &listener.role {
            Role::Group {
                interface, sources, ..
            } => {
                question.interface.is_none_or(|asked| asked == *interface)
                    && (sources.is_empty() || sources.contains(&question.from.ip()))
            }
            _ => true,
        };
        listener.address.ip() == ip && !ip.is_unspecified() && heard
    });
    let is_broadcast = exact
        .iter()
        .any(|index| plan.listeners[*index].role == Role::Broadcast);
    match exact.is_empty() || is_broadcast {
        true if ip.is_multicast() => exact,
        true => exact.into_iter().chain(at(&wildcard)).collect(),
        false => exact,
    }
}

/// What the kernel would tell about it.
fn imagine(host: &Host, question: &Question, listener: Option<&ListenerPlan>) -> Envelope {
    let way_back = (host.look_up)(question.from.ip()).ok();
    let interface = question
        .interface
        .unwrap_or(match listener.map(|listener| &listener.role) {
            Some(Role::Group { interface, .. }) => *interface,
            _ => way_back.map_or(0, |answer| answer.interface),
        });
    let to_many = question.to.ip().is_multicast() || is_broadcast(host, question.to.ip());
    let local = match question.to.ip() {
        ip if !to_many => ip,
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        IpAddr::V4(_) => {
            let on = host
                .interfaces
                .iter()
                .find(|candidate| candidate.index == interface);
            let first = on.and_then(|on| on.addresses.iter().copied().find(IpAddr::is_ipv4));
            way_back
                .and_then(|answer| answer.source)
                .or(first)
                .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
        }
    };
    let local = SocketAddr::new(local, question.to.port());
    Envelope {
        src: question.from,
        dst: question.to,
        local,
        interface,
        ttl: Some(TTL),
        time_ns: None,
    }
}

/// Whether this host takes an address for a broadcast address.
fn is_broadcast(host: &Host, ip: IpAddr) -> bool {
    let known = (host.look_up)(ip).is_ok_and(|answer| answer.kind == DestinationKind::Broadcast);
    known || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether a datagram to the address comes to this host at all.
fn is_here(host: &Host, ip: IpAddr) -> bool {
    ip.is_multicast()
        || is_broadcast(host, ip)
        || (host.look_up)(ip).is_ok_and(|a| a.kind == DestinationKind::Local)
}

fn sockets(text: &mut String, plan: &Plan, heard: &[usize], to_many: bool) {
    for (place, index) in heard.iter().enumerate() {
        let listener = &plan.listeners[*index];
        let why = match (&listener.role, place) {
            (_, 1..) => "gets a copy, which is dropped as duplicate_copy",
            (Role::Unicast | Role::Absent, _) => {
                "bound to exactly this address, which the kernel prefers to a wildcard"
            }
            (Role::Wildcard { .. }, _) => "a wildcard: no listener has exactly this address",
            (Role::Broadcast, _) => "bound to this broadcast address",
            (Role::Group { .. }, _) => "bound to this group and joined",
        };
        let spread = match (listener.role.is_spread(), plan.workers) {
            (true, 2..) if to_many => format!(
                "; each of {} workers gets a copy, and one handles it",
                plan.workers
            ),
            (true, 2..) => format!(
                "; one of {} workers, by the kernel's hash of both addresses",
                plan.workers
            ),
            _ => String::new(),
        };
        line(
            text,
            if place == 0 { "socket" } else { "" },
            &format!("{}: {why}{spread}", listener.label),
        );
    }
}

/// The route that takes it, and why the ones near it do not.
fn routes(
    text: &mut String,
    config: &Config,
    plan: &Plan,
    envelope: &Envelope,
    chosen: Option<RouteId>,
) {
    let name = |row: &Match| {
        let route = &config.routes[row.route.0 as usize];
        let position = config.source.position(route.at.start);
        format!(
            "{} ({}:{})",
            route.label,
            config.source.name(),
            position.line
        )
    };
    let winner = plan
        .table
        .matches()
        .iter()
        .find(|row| row.mismatch(envelope).is_none());
    match winner.filter(|row| Some(row.route) == chosen) {
        Some(row) => line(text, "route", &name(row)),
        None => line(text, "route", "none: it is dropped as no_route"),
    }
    let port = envelope.dst.port();
    let near = plan.table.matches().iter().filter(|row| {
        let same = row.ports.0 <= port && port <= row.ports.1;
        same && row.net.contains(&envelope.dst.ip())
            && winner.is_none_or(|winner| !std::ptr::eq(*row, winner))
    });
    let mut others: Vec<String> = near
        .map(|row| format!("{}: {}", name(row), why_not(row, envelope, winner)))
        .collect();
    let more = others.len().saturating_sub(ROWS_MAX);
    others.truncate(ROWS_MAX);
    if more > 0 {
        others.push(format!("and {more} more"));
    }
    for (place, other) in others.iter().enumerate() {
        line(text, if place == 0 { "not" } else { "" }, other);
    }
}

fn why_not(row: &Match, envelope: &Envelope, winner: Option<&Match>) -> &'static str {
    match row.mismatch(envelope) {
        Some(Mismatch::Destination) => "another destination address",
        Some(Mismatch::Port) => "another port",
        Some(Mismatch::Interface) => "only from another interface",
        Some(Mismatch::Source) => "only from other sources",
        None => match winner {
            Some(winner) if winner.net.prefix_len() != row.net.prefix_len() => {
                "matches too, with a less specific address"
            }
            Some(winner) if winner.ports.1 - winner.ports.0 != row.ports.1 - row.ports.0 => {
                "matches too, with a wider range of ports"
            }
            Some(winner) if winner.interface.is_some() != row.interface.is_some() => {
                "matches too, on any interface"
            }
            _ => "matches too, with a less specific source",
        },
    }
}

/// Lets the route's handlers handle it, and tells their verdicts and what they would send.
fn act(
    text: &mut String,
    config: &Config,
    plan: &Plan,
    (listener, envelope, payload): (&ListenerPlan, &Envelope, &[u8]),
    route: RouteId,
    changes: &[(UpstreamId, Change)],
) -> Result<(), BuildError> {
    let mut site = Stage {
        upstreams: &plan.upstreams,
        handler: HandlerId(0),
        lanes: Vec::new(),
        kept: Vec::new(),
    };
    let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
    for (index, handler) in config.handlers.iter().enumerate() {
        site.handler = HandlerId::new(index);
        handlers.push(handler.recipe.build(&mut site)?);
    }
    let ear = Ear {
        id: 0,
        lookup: listener.lookup.clone(),
        claim: listener.claim(0),
    };
    let routes = config
        .routes
        .iter()
        .map(|route| route.handlers.clone())
        .collect();
    let (guard, names) = (Arc::clone(&plan.guard), Arc::clone(&plan.names));
    let mut dispatcher = Dispatcher::new(
        vec![ear],
        routes,
        handlers,
        guard,
        names,
        1,
        plan.upstreams.iter().len(),
    );
    let span = Span {
        region: Region::Arena,
        offset: 0,
        len: number::to_u32(payload.len()),
    };
    let scene = &mut Scene {
        now: Time::default(),
        lanes: &mut site,
    };
    for (upstream, change) in changes {
        dispatcher.change(
            plan.upstreams.get(*upstream).handler,
            *upstream,
            *change,
            scene,
        );
    }
    dispatcher.dispatch(
        0,
        &[Train {
            envelope: *envelope,
            span,
            segment: 0,
        }],
        payload,
        scene,
    );
    let ledger = dispatcher.snapshot();
    let (outbox, _) = dispatcher.sending();
    for &handler in &config.routes[route.0 as usize].handlers {
        let named = &config.handlers[handler.index()];
        line(
            text,
            "handler",
            &format!("{}: {}", named.name, named.recipe.describe()),
        );
        if let Some(reason) = dropped(&ledger.handlers[handler.index()].tally) {
            line(
                text,
                "",
                &format!("drops it as {}: {}", reason.label(), reason.meaning()),
            );
        }
        for reply in outbox
            .replies(EarId(0))
            .iter()
            .filter(|reply| reply.handler == handler)
        {
            let ttl = reply
                .parcel
                .ttl
                .map_or(String::new(), |ttl| format!(", TTL {ttl}"));
            let (len, from, to) = (reply.parcel.span.len, reply.from, reply.to);
            line(
                text,
                "",
                &format!("sends {len} bytes from {from} to {to}{ttl}"),
            );
        }
        let mut sent_to = Vec::new();
        let leads_to = |lane: &Lane| plan.upstreams.get(site.lanes[lane.0 as usize]);
        for &lane in outbox
            .touched()
            .iter()
            .filter(|lane| leads_to(lane).handler == handler)
        {
            for parcel in outbox.lane(lane) {
                let ttl = parcel
                    .ttl
                    .map_or(String::new(), |ttl| format!(", TTL {ttl}"));
                let (len, upstream) = (parcel.span.len, &leads_to(&lane).upstream);
                line(text, "", &format!("sends {len} bytes to {upstream}{ttl}"));
                sent_to.push(upstream);
            }
        }
        if !sent_to.is_empty() {
            let datagram = Datagram {
                payload,
                envelope: *envelope,
                span,
            };
            others(text, &*named.recipe, &datagram, &sent_to);
        }
    }
    Ok(())
}

/// The upstreams that might as well get it, where the choice is not always the same.
fn others(text: &mut String, recipe: &dyn Recipe, datagram: &Datagram<'_>, sent_to: &[&Upstream]) {
    let upstreams = recipe.upstreams();
    let places = recipe.would_reach(datagram).into_iter();
    let others: Vec<String> = places
        .map(|place| &upstreams[place])
        .filter(|upstream| !sent_to.iter().any(|sent| sent.is_same_place(upstream)))
        .map(ToString::to_string)
        .collect();
    if !others.is_empty() {
        line(
            text,
            "",
            &format!("another time to {}", shortened(others, "or")),
        );
    }
}

/// Names in a sentence, the first of many.
pub(crate) fn shortened(mut names: Vec<String>, and: &str) -> String {
    let more = names.len().saturating_sub(ROWS_MAX);
    names.truncate(ROWS_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    listed(names.iter().map(String::as_str), and)
}

fn dropped(tally: &Tally) -> Option<DropReason> {
    DropReason::ALL
        .iter()
        .copied()
        .find(|reason| tally.dropped_for(*reason) > 0)
}

impl Lanes for Stage<'_> {
    fn open(&mut self, upstream: UpstreamId) -> Result<Lane, DropReason> {
        self.lanes.push(upstream);
        Ok(Lane::new(self.lanes.len() - 1))
    }

    fn close(&mut self, _: Lane) {}
}

/// A site on which nothing is opened.
struct Stage<'a> {
    upstreams: &'a Upstreams,
    handler: HandlerId,
    /// Where each lane leads.
    lanes: Vec<UpstreamId>,
    kept: Vec<Receiver<Job>>,
}

impl Site for Stage<'_> {
    fn upstream(&mut self, place: usize) -> Result<Way, BuildError> {
        let upstream = self.upstreams.id(self.handler, place);
        self.lanes.push(upstream);
        let address = self.upstreams.get(upstream).address.as_ref().ok().copied();
        Ok(Way {
            upstream,
            lane: Lane::new(self.lanes.len() - 1),
            address,
        })
    }

    fn standard_output(&mut self) -> Result<LineSink, BuildError> {
        // Nobody writes the lines: what `print` does is told in words.
        let (jobs, kept) = crossbeam_channel::unbounded();
        self.kept.push(kept);
        Ok(LineSink::new(jobs))
    }

    fn seed(&mut self) -> u64 {
        0
    }
}
