//! One `[[test]]` table: a datagram, and what must become of it. The names in a test are looked up here. Whether a
//! test passes depends on the host, so `plan/file_tests.rs` runs the tests, for `check` and before every reload.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::definition::{Form, SettingTable};
use super::diagnostics::{Mistake, did_you_mean, listed, quoted};
use super::handlers::Registry;
use super::interface::InterfaceRef;
use super::limits::PAYLOAD_BYTES_MAX;
use super::problem::{Problem, Problems};
use super::section::Section;
use super::setting::{ListSetting, Optional, Required, Setting};
use super::source::Placed;
use super::upstream::Upstream;
use super::value::{Value, interface, placed, socket_address, string, upstream};
use crate::dispatch::handler::HandlerId;

/// The definition of each key of a `[[test]]` table.
pub(super) const SETTINGS: SettingTable = &[&SOURCE, &DESTINATION, &INTERFACE, &PAYLOAD, &EXPECT];

const SOURCE: Setting<Placed<SocketAddr>, Required> = Setting::custom(
    "source",
    Form::Text(r#""ADDRESS:PORT" or "ADDRESS""#),
    |value| placed(sender)(value),
)
.required()
.meaning("sender of the datagram; without a port, port 40000");

const DESTINATION: Setting<SocketAddr, Required> =
    Setting::custom("destination", Form::Text(r#""ADDRESS:PORT""#), destination)
        .required()
        .meaning("address that the datagram is sent to");

const INTERFACE: Setting<Placed<InterfaceRef>, Optional> = Setting::custom(
    "interface",
    Form::Text("name or address of an interface"),
    |value| placed(interface)(value),
)
.optional("where a reply would leave")
.meaning("interface that the datagram arrives on");

const PAYLOAD: Setting<Vec<u8>, Optional> = Setting::custom("payload", Form::Text("text"), payload)
    .optional_as("\"\"")
    .meaning("payload of the datagram");

const EXPECT: Setting<(), Required> = Setting::custom(
    "expect",
    Form::OneOf(&[Form::Choice(&[NO_ROUTE]), Form::Table(EXPECT_SETTINGS)]),
    no_route,
)
.required()
.meaning("what must become of the datagram; \"no_route\" if no route may take it");

/// The definition of each key of the `expect` table.
const EXPECT_SETTINGS: SettingTable = &[&EXPECT_ROUTE, &EXPECT_HANDLER, &EXPECT_UPSTREAM];

const EXPECT_ROUTE: Setting<Placed<String>, Optional> =
    Setting::custom("route", Form::Text("name of a route"), |value| {
        placed(string)(value)
    })
    .optional("any")
    .meaning("route that must take the datagram");

const EXPECT_HANDLER: ListSetting<Placed<String>, Optional> =
    Setting::custom("handler", Form::Text("name of a handler"), |value| {
        placed(string)(value)
    })
    .optional("any")
    .meaning("handler that must get the datagram; of a list, each of them")
    .list();

const EXPECT_UPSTREAM: Setting<Placed<Upstream>, Optional> = Setting::custom(
    "upstream",
    Form::Text(r#""ADDRESS:PORT" or "NAME:PORT""#),
    |value| placed(upstream)(value),
)
.optional("any")
.meaning("upstream that may get the datagram when the daemon has just started and all upstreams are alive");

const NO_ROUTE: &str = "no_route";

/// The source port if a test gives only an address. Any port above the system ports (RFC 6335) would do.
pub const SENDER_PORT: u16 = 40_000;

/// A datagram, and what must become of it.
#[derive(Debug, Clone)]
pub struct Test {
    /// The source address of the datagram.
    pub source: SocketAddr,
    /// The destination address of the datagram.
    pub destination: SocketAddr,
    /// The interface that the datagram arrives on; `None` leaves the choice to the host.
    pub interface: Option<Placed<InterfaceRef>>,
    /// The payload of the datagram.
    pub payload: Vec<u8>,
    /// What must become of the datagram.
    pub expected: TestExpectation,
    /// The byte range of the file where the test begins.
    pub at: Range<usize>,
}

/// What must become of the datagram of a [`Test`].
#[derive(Debug, Clone)]
pub enum TestExpectation {
    /// No route matches the datagram. The byte range is that of the expectation in the file.
    NoRoute(Range<usize>),
    /// A route matches the datagram.
    Taken {
        /// The expected route, as an index into the routes of the file; `None` for any route.
        route: Option<Placed<usize>>,
        /// The handlers that must all receive the datagram.
        handlers: Vec<Placed<HandlerId>>,
        /// An upstream that must be among those that may receive the datagram. Only its host and port are compared.
        upstream: Option<Placed<Upstream>>,
    },
}

/// A test whose names have not been looked up yet.
pub(super) struct TestDraft {
    test: Test,
    names: ExpectedNames,
}

/// The names that a test expects.
#[derive(Default)]
struct ExpectedNames {
    route: Option<Placed<String>>,
    handlers: Vec<Placed<String>>,
    upstream: Option<Placed<Upstream>>,
}

/// Reads one test. If it is wrong, reports that and returns `None`.
pub(super) fn read(section: &mut Section<'_>) -> Option<TestDraft> {
    let source = section.require(&SOURCE);
    let destination = section.require(&DESTINATION);
    let interface = section.find(&INTERFACE);
    let payload = section.find(&PAYLOAD);
    let names = read_expect(section);
    let source = source?;
    let destination = destination?;
    if source.value.is_ipv4() != destination.is_ipv4() {
        let family = if source.value.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        section.problem(
            SOURCE.key,
            format!("is {family}, but the destination is not"),
            "write two addresses of one family",
        );
        return None;
    }
    let expected = match names.as_ref()? {
        Some(_) => TestExpectation::Taken {
            route: None,
            handlers: Vec::new(),
            upstream: None,
        },
        None => TestExpectation::NoRoute(section.span(EXPECT.key).unwrap_or(section.at())),
    };
    let payload = payload.unwrap_or_default();
    let at = section.at();
    let test = Test {
        source: source.value,
        destination,
        interface,
        payload,
        expected,
        at,
    };
    Some(TestDraft {
        test,
        names: names.flatten().unwrap_or_default(),
    })
}

/// Reads the names in `expect`. The outer `None` means that the key is wrong, the inner one that no route is
/// expected.
fn read_expect(section: &mut Section<'_>) -> Option<Option<ExpectedNames>> {
    let value = section.require_raw(&EXPECT)?;
    if !value.is_table() {
        return section.parse(&EXPECT, value).map(|()| None);
    }
    let names =
        section.table(&EXPECT, value, |section| {
            let route = section.find(&EXPECT_ROUTE);
            let handlers = section.find_list(&EXPECT_HANDLER);
            let upstream = section.find(&EXPECT_UPSTREAM);
            if !EXPECT_SETTINGS.iter().any(|one| section.has(one.key())) {
                let problem = Problem::error(section.at(), "`expect`: nothing is expected");
                section.report(problem.hint(
                    "name at least one of route, handler and upstream, or write \"no_route\"",
                ));
            }
            Some(ExpectedNames {
                route,
                handlers: handlers.unwrap_or_default(),
                upstream,
            })
        });
    names.map(Some)
}

/// The names that the tests may use.
pub(super) struct Known<'a> {
    /// The names of all routes; `None` if some routes are wrong, because a test may name one of those.
    pub(super) routes: Option<Vec<&'a str>>,
    /// All handlers of the file.
    pub(super) handlers: &'a Registry<'a>,
}

/// Looks up the names that the tests use, and reports unknown ones.
pub(super) fn finish(
    drafts: Vec<TestDraft>,
    known: &Known<'_>,
    problems: &mut Problems,
) -> Vec<Test> {
    let mut tests = Vec::with_capacity(drafts.len());
    for TestDraft { mut test, names } in drafts {
        let found_route = names.route.and_then(|name| route(&name, known, problems));
        let ids = names
            .handlers
            .iter()
            .filter_map(|name| handler(name, known, problems));
        let ids: Vec<Placed<HandlerId>> = ids.collect();
        let found_upstream = names
            .upstream
            .inspect(|name| check_upstream(name, known, problems));
        if let TestExpectation::Taken {
            route,
            handlers,
            upstream,
        } = &mut test.expected
        {
            *route = found_route;
            *handlers = ids;
            *upstream = found_upstream;
        }
        tests.push(test);
    }
    tests
}

fn route(
    name: &Placed<String>,
    known: &Known<'_>,
    problems: &mut Problems,
) -> Option<Placed<usize>> {
    let routes = known.routes.as_ref()?;
    if let Some(index) = routes.iter().position(|label| *label == name.value) {
        Some(Placed {
            value: index,
            at: name.at.clone(),
        })
    } else {
        let candidates = Candidates {
            key: "route",
            names: routes,
            hint: "write the route's `name`, or its label in the output of `check`",
        };
        candidates.report_unknown(name, problems);
        None
    }
}

fn handler(
    name: &Placed<String>,
    known: &Known<'_>,
    problems: &mut Problems,
) -> Option<Placed<HandlerId>> {
    let found = known.handlers.find(&name.value);
    if found.is_none() {
        let names: Vec<&str> = known.handlers.names().collect();
        let hint = format!(
            "the handlers are {}",
            listed(names.iter().copied().take(20), "and")
        );
        let candidates = Candidates {
            key: "handler",
            names: &names,
            hint: &hint,
        };
        candidates.report_unknown(name, problems);
    }
    found.map(|id| Placed {
        value: id,
        at: name.at.clone(),
    })
}

fn check_upstream(name: &Placed<Upstream>, known: &Known<'_>, problems: &mut Problems) {
    // The upstream may belong to a handler that has errors and was not read.
    let Some(upstreams) = known.handlers.upstreams() else {
        return;
    };
    if upstreams
        .iter()
        .any(|upstream| upstream.is_same_place(&name.value))
    {
        return;
    }
    let all: Vec<String> = upstreams.iter().map(ToString::to_string).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let candidates = Candidates {
        key: "upstream",
        names: &all,
        hint: "write it as in the handler that sends to it",
    };
    candidates.report_unknown(name, problems);
}

/// The names that a test may write under one key.
struct Candidates<'a> {
    key: &'static str,
    names: &'a [&'a str],
    /// The hint for a name that is not close to any candidate.
    hint: &'a str,
}

impl Candidates<'_> {
    /// Reports that a name is none of the candidates.
    fn report_unknown(&self, name: &Placed<impl ToString>, problems: &mut Problems) {
        let key = self.key;
        let written = name.value.to_string();
        let meant = problems
            .has_room()
            .then(|| did_you_mean(&written, self.names.iter().copied()))
            .flatten();
        let message = format!("`{key}`: there is no {key} {}", quoted(&written));
        let problem = Problem::error(name.at.clone(), message);
        problems.push(problem.hint(meant.unwrap_or(self.hint.to_owned())));
    }
}

/// Reads the source of a datagram: an address with or without a port.
fn sender(value: Value<'_>) -> Result<SocketAddr, Mistake> {
    const ACCEPTED: &str = "an address such as \"192.0.2.1\" or \"192.0.2.1:5000\"";
    let text = value.text(ACCEPTED)?;
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, SENDER_PORT),
        Err(_) => text.parse().map_err(|_| {
            let hint = if text.contains('/') {
                "write one address: a test is one datagram"
            } else {
                "write \"192.0.2.1\", \"192.0.2.1:5000\", \"2001:db8::1\" or \"[2001:db8::1]:5000\""
            };
            Mistake::new(format!("{} is not an address", quoted(text))).hint(hint)
        })?,
    };
    if address.ip().is_multicast() || address.ip().is_unspecified() {
        let message = format!("{} cannot be the source of a datagram", address.ip());
        return Err(Mistake::new(message).hint("write the address of a sender"));
    }
    not_mapped(address)
}

fn destination(value: Value<'_>) -> Result<SocketAddr, Mistake> {
    let address = socket_address(value)?;
    if address.ip().is_unspecified() {
        let message = format!(
            "no datagram is sent to {}: it stands for every address",
            address.ip()
        );
        return Err(Mistake::new(message).hint("write one address of this host"));
    }
    not_mapped(address)
}

fn no_route(value: Value<'_>) -> Result<(), Mistake> {
    const ACCEPTED: &str = "a table such as { handler = \"echo\" }, or \"no_route\"";
    match value.text(ACCEPTED)? {
        NO_ROUTE => Ok(()),
        other => Err(value
            .expected(ACCEPTED)
            .maybe_hint(did_you_mean(other, [NO_ROUTE]))),
    }
}

fn not_mapped(address: SocketAddr) -> Result<SocketAddr, Mistake> {
    let mapped = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    match mapped {
        Some(v4) => {
            let message = format!("{} is an IPv4-mapped IPv6 address", address.ip());
            Err(Mistake::new(message).hint(format!("write \"{v4}:{}\"", address.port())))
        }
        None => Ok(address),
    }
}

fn payload(value: Value<'_>) -> Result<Vec<u8>, Mistake> {
    let bytes = string(value)?.into_bytes();
    match bytes.len() {
        len if len > PAYLOAD_BYTES_MAX => Err(Mistake::new(format!(
            "{len} bytes do not fit a datagram, which holds {PAYLOAD_BYTES_MAX}"
        ))),
        _ => Ok(bytes),
    }
}
