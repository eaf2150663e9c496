//! Explains what would happen to a datagram. It uses the same plan, table and handlers as a worker, with an outbox
//! that is printed instead of sent.

mod course;
mod dry_run;
mod lines;
mod question;

use crate::config::Config;
use crate::config::kind::BuildError;
use crate::datagram::Envelope;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::route_table::{Match, Mismatch, RouteId};
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::plan::host::Host;
use crate::plan::{Plan, Role};

use self::course::is_here;
pub(crate) use self::course::{Course, follow};
use self::dry_run::DryRun;
use self::lines::ROWS_MAX;
pub(crate) use self::lines::{line, shortened};
pub use self::question::{Imagined, Question, TTL};

/// The explanation of what would happen to a datagram.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The explanation for people, in lines.
    pub text: String,
    /// The route that matches the datagram; `None` if it is dropped.
    pub route: Option<RouteId>,
}

/// Explains what would happen to a datagram. `events` are the events about upstreams that the handlers have
/// received.
///
/// # Errors
///
/// Returns the error of the first handler that cannot be built.
pub fn explain(
    config: &Config,
    plan: &Plan,
    host: &Host,
    question: &Question,
    events: &[(UpstreamId, UpstreamEvent)],
) -> Result<Explanation, BuildError> {
    let mut text = String::new();
    let Course {
        receiving,
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
                "{ip} is not an address of this host; nothing sent to it arrives here until it is"
            ),
        );
    }
    let Some(&first) = receiving.first() else {
        no_socket(&mut text, plan, question.to.port());
        return Ok(Explanation { text, route: None });
    };
    sockets(&mut text, plan, &receiving, envelope.is_to_many());
    let choice = RouteChoice {
        config,
        plan,
        envelope: &envelope,
        chosen,
    };
    choice.describe(&mut text);
    if let Some(route) = chosen {
        let datagram = dry_run::datagram(&question.payload, &envelope);
        let mut dry = DryRun::new(config, plan, &plan.listeners[first])?;
        dry.apply_events(events);
        dry.run(&datagram);
        dry.describe(&mut text, &config.routes[route.index()].handlers, &datagram);
        line(
            &mut text,
            "replies",
            &format!("would leave from {}", envelope.local),
        );
    }
    Ok(Explanation {
        text,
        route: chosen,
    })
}

fn datagram(host: &Host, question: &Question, envelope: &Envelope) -> String {
    let (src, dst, bytes) = (envelope.src, envelope.dst, question.payload.len());
    format!(
        "{src} > {dst}, {bytes} bytes, TTL {}, on {}",
        question.ttl,
        host.interface_name(envelope.interface)
    )
}

/// Appends that no socket receives the datagram, and the listeners on the same port.
fn no_socket(text: &mut String, plan: &Plan, port: u16) {
    line(
        text,
        "socket",
        "none: the kernel drops the datagram, and reports a closed port if the address is unicast",
    );
    let at_port = plan
        .listeners
        .iter()
        .filter(|listener| listener.address.port() == port);
    let labels: Vec<_> = at_port
        .take(ROWS_MAX)
        .map(|listener| listener.label.as_str())
        .collect();
    if !labels.is_empty() {
        line(
            text,
            "",
            &format!("other listeners on this port: {}", labels.join(", ")),
        );
    }
}

/// Appends the sockets that receive the datagram, and why each does.
fn sockets(text: &mut String, plan: &Plan, receiving: &[usize], to_many: bool) {
    for (place, index) in receiving.iter().enumerate() {
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

/// The route of a datagram among those of a plan.
struct RouteChoice<'a> {
    config: &'a Config,
    plan: &'a Plan,
    envelope: &'a Envelope,
    /// The route that matches the datagram; `None` if it is dropped.
    chosen: Option<RouteId>,
}

impl RouteChoice<'_> {
    /// Appends the route that matches, and why similar routes do not match.
    fn describe(&self, text: &mut String) {
        let RouteChoice {
            config,
            plan,
            envelope,
            chosen,
        } = *self;
        let name = |row: &Match| {
            let route = &config.routes[row.route.index()];
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
