//! One `[[route]]` table: the destinations, the sources and the handlers of datagrams.
//!
//! Mistakes within one route are found here. Mistakes that need several routes (equal routes, too many sockets) are
//! found in `route_checks.rs`. The plan checks whether an interface exists.

use std::collections::HashMap;
use std::ops::Range;

use ipnet::IpNet;

use super::definition::{Form, SettingTable};
use super::destination::Destination;
use super::diagnostics::Mistake;
pub use super::expectation::Expectation;
use super::expectation::{self, EXPECT_EVERY};
use super::handlers::{Registry, check_name};
use super::interface::InterfaceRef;
use super::problem::Problem;
use super::section::Section;
use super::setting::{ListSetting, Optional, Required, Setting};
use super::source::Placed;
use super::value::{Value, interface, is_v4, parsed, placed, source_of, string};
use crate::dispatch::handler::HandlerId;

/// The definition of each key of a `[[route]]` table.
pub(super) const SETTINGS: SettingTable = &[
    &NAME,
    &DESTINATION,
    &INTERFACE,
    &SOURCE,
    &SHARE,
    &HANDLER,
    &EXPECT_EVERY,
];

const NAME: Setting<Placed<String>, Optional> = Setting::custom(
    "name",
    Form::Text("letters, digits, hyphens and underscores"),
    |value| placed(name)(value),
)
.optional("made from the destination")
.meaning("name of the route in the ledger and in messages");

const DESTINATION: ListSetting<Placed<Destination>, Required> = Setting::custom(
    "destination",
    Form::Text(r#""ADDRESS:PORT", "PREFIX:PORT" or "ADDRESS:PORT-PORT""#),
    |value| placed(parsed("a destination such as \"127.0.0.1:1234\""))(value),
)
.required()
.meaning(
    "addresses and ports that datagrams are sent to, such as 127.0.0.1:1234, 192.0.2.0/24:5000-5010, [2001:db8::/32]:53, \
     0.0.0.0:53 or 239.1.2.3:5000; the most specific route takes a datagram",
)
.list();

const INTERFACE: Setting<Placed<InterfaceRef>, Optional> = Setting::custom(
    "interface",
    Form::Text("name or address of an interface"),
    |value| placed(interface)(value),
)
.optional("any")
.meaning("the only interface on which datagrams are accepted; a group is joined there");

const SOURCE: ListSetting<Placed<IpNet>, Optional> = Setting::custom(
    "source",
    Form::Text("address or prefix"),
    |value| placed(source)(value),
)
.optional("any")
.meaning(
    "the only sources that are accepted; for a group, host addresses alone make the join source-specific",
)
.list();

const SHARE: Setting<bool> = Setting::boolean("share")
    .default(false)
    .meaning("whether other programs may bind this port too");

const HANDLER: ListSetting<Placed<String>, Required> = Setting::custom(
    "handler",
    Form::Text("name of a handler, or of a kind that needs no settings"),
    |value| placed(string)(value),
)
.required()
.meaning("handlers of each datagram; of a list, each handler gets it, in this order")
.list();

/// Destinations whose datagrams go to the same handlers.
#[derive(Debug, Clone)]
pub struct Route {
    /// The name of the route in messages and metrics: from the file, or made from the destination. It is unique.
    pub label: String,
    /// The destinations; at least one.
    pub destinations: Vec<Placed<Destination>>,
    /// The only interface on which datagrams of the route may arrive; `None` for any.
    pub interface: Option<Placed<InterfaceRef>>,
    /// The only prefixes of sources that the route accepts; empty for any source. Every destination has a source of
    /// its own family.
    pub sources: Vec<Placed<IpNet>>,
    /// Whether other programs may bind the same addresses and ports.
    pub share: bool,
    /// The handlers of each datagram, in this order; at least one, and none twice.
    pub handlers: Vec<HandlerId>,
    /// The traffic whose absence raises an alarm. Either each expectation has a source, or there is a single one
    /// without.
    pub expectations: Vec<Expectation>,
    /// The canonical text of the route's table (see [`canonical`](super::canonical)). A route of another file with
    /// the same text is the same route.
    pub text: String,
    /// The byte range of the file where the route begins.
    pub at: Range<usize>,
}

/// A route, and the name that the file gives it.
pub(super) struct RouteDraft {
    pub(super) name: Option<Placed<String>>,
    pub(super) route: Route,
}

/// Reads one route. Every key is read before the route is rejected, so that all problems are reported.
pub(super) fn read(section: &mut Section<'_>, handlers: &mut Registry<'_>) -> Option<RouteDraft> {
    let name = section.find(&NAME);
    let destinations = section.require_list(&DESTINATION);
    let interface = section.find(&INTERFACE);
    let sources = section.find_list(&SOURCE);
    let share = section.get(&SHARE);
    let handlers = read_handlers(section, handlers);

    let destinations = destinations?;
    for destination in &destinations {
        check_link_local(section, destination);
    }
    // Without its wrong source or interface, the route could seem to be equal to another one.
    let is_source_wrong = section.has(SOURCE.key) && sources.is_none();
    let is_interface_wrong = section.has(INTERFACE.key) && interface.is_none();
    if is_source_wrong || is_interface_wrong {
        return None;
    }
    let sources = sources.unwrap_or_default();
    check_families(section, &destinations, &sources);
    check_repeated(section, &sources);
    let expectations = expectation::read(section, &destinations, &sources);
    let route = Route {
        label: String::new(),
        destinations,
        interface,
        sources,
        share,
        // A wrong handler name has been reported. The rest of the route is compared with other routes all the same.
        handlers: handlers.unwrap_or_default(),
        expectations,
        text: section.text(),
        at: section.at(),
    };
    Some(RouteDraft { name, route })
}

fn read_handlers(section: &mut Section<'_>, registry: &mut Registry<'_>) -> Option<Vec<HandlerId>> {
    let names = section.require_list(&HANDLER)?;
    let mut ids: Vec<(HandlerId, Range<usize>)> = Vec::with_capacity(names.len());
    for name in &names {
        let Some(id) = section.with_problems(|problems| registry.resolve(name, problems)) else {
            continue;
        };
        if let Some((_, first)) = ids.iter().find(|(other, _)| *other == id) {
            let problem = Problem::error(name.at.clone(), "`handler`: the same handler twice")
                .and_at(first.clone(), "first here")
                .hint("a handler gets each datagram only once; leave one out");
            section.report(problem);
            continue;
        }
        ids.push((id, name.at.clone()));
    }
    (ids.len() == names.len()).then(|| ids.into_iter().map(|(id, _)| id).collect())
}

fn check_link_local(section: &mut Section<'_>, destination: &Placed<Destination>) {
    if destination.value.is_link_local_v6() && !section.has(INTERFACE.key) {
        let message = format!(
            "`destination`: {} is link-local, so it needs an interface",
            destination.value.net.addr()
        );
        let problem = Problem::error(destination.at.clone(), message);
        section.report(problem.hint("add interface = \"eth0\", with the name of the interface"));
    }
}

/// Reports a source of a family that no destination has, and a destination of a family that no source has. Where both
/// exist, they have the same cause, and only the source is reported.
fn check_families(
    section: &mut Section<'_>,
    destinations: &[Placed<Destination>],
    sources: &[Placed<IpNet>],
) {
    let destination = |v4| destinations.iter().find(|one| is_v4(&one.value.net) == v4);
    let source = |v4| sources.iter().find(|one| is_v4(&one.value) == v4);
    let family = |v4| if v4 { "IPv4" } else { "IPv6" };
    for v4 in [true, false] {
        if let (Some(source), None, Some(other)) = (source(v4), destination(v4), destination(!v4)) {
            let message = format!("`source`: no `destination` is {}", family(v4));
            let problem = Problem::error(source.at.clone(), message)
                .and_at(other.at.clone(), format!("{} only", family(!v4)));
            section.report(problem.hint("sources must be of a destination's family"));
            return;
        }
    }
    for v4 in [true, false] {
        if let (Some(destination), None, Some(other)) = (destination(v4), source(v4), source(!v4)) {
            let message = format!(
                "`destination`: no `source` is {}, so no datagram can match it",
                family(v4)
            );
            let problem = Problem::error(destination.at.clone(), message)
                .and_at(other.at.clone(), format!("{} only", family(!v4)));
            section.report(problem.hint("move it to a route of its own"));
        }
    }
}

fn check_repeated(section: &mut Section<'_>, sources: &[Placed<IpNet>]) {
    let mut seen = HashMap::new();
    for source in sources {
        if let Some(first) = seen.insert(source.value, &source.at) {
            let problem = Problem::error(source.at.clone(), "`source`: the same source twice");
            section.report(problem.and_at(first.clone(), "first here"));
        }
    }
}

fn name(value: Value<'_>) -> Result<String, Mistake> {
    let name = string(value)?;
    check_name(&name)?;
    Ok(name)
}

fn source(value: Value<'_>) -> Result<IpNet, Mistake> {
    source_of(value.text("an address or prefix such as \"10.0.0.0/8\"")?)
}
