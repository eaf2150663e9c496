//! Runs the `[[test]]` tables of a file against its plan for this host. Nothing is bound or sent: each datagram is
//! simulated as in `explain`. A reload does not load a file whose tests fail.

use std::net::SocketAddr;
use std::ops::Range;

use crate::config::diagnostics::quoted;
use crate::config::kind::Upstream;
use crate::config::test::{Test, TestExpectation};
use crate::config::{Config, Placed, Problem, Problems, Route};
use crate::datagram::{Datagram, Region, Span};
use crate::dispatch::handler::HandlerId;
use crate::dispatch::route_table::PortTable;
use crate::number;
use crate::plan::Plan;
use crate::plan::explain::{Course, Question, TTL, follow, shortened};
use crate::plan::host::Host;

/// Runs the tests of a file. Returns a problem for each failed expectation; the result is empty if all tests pass.
pub fn run(config: &Config, plan: &Plan, host: &Host) -> Problems {
    let mut problems = Problems::new(config.source.clone());
    // The table of a port may be large. Sorted tests need only one table at a time, and each table is made once.
    let mut tests: Vec<&Test> = config.tests.iter().collect();
    tests.sort_by_key(|test| test.destination.port());
    let mut compiled: Option<(u16, PortTable)> = None;
    for test in tests {
        let port = test.destination.port();
        if compiled.as_ref().is_none_or(|(other, _)| *other != port) {
            compiled = Some((port, plan.table.for_port(port)));
        }
        let Some((_, table)) = &compiled else {
            continue;
        };
        let Some(question) = question(test, host, &mut problems) else {
            continue;
        };
        let course = follow(plan, host, &question, table);
        Trial {
            config,
            test,
            course,
        }
        .check(&mut problems);
    }
    problems
}

/// Returns the datagram of a test on this host. If the host lacks an interface that the test names, reports that and
/// returns `None`.
fn question(test: &Test, host: &Host, problems: &mut Problems) -> Option<Question> {
    let interface = match &test.interface {
        None => None,
        Some(Placed { value, at }) => {
            let name = value.to_string();
            let index = host.interface(&name);
            if index.is_none() {
                let message = format!("`interface`: this host has no interface {}", quoted(&name));
                problems.push(
                    Problem::error(at.clone(), message).hint(format!("it has: {}", host.list())),
                );
            }
            Some(index?)
        }
    };
    Some(Question {
        to: test.destination,
        from: test.source,
        interface,
        ttl: TTL,
        payload: test.payload.clone(),
    })
}

/// A test, and what would happen to its datagram.
struct Trial<'a> {
    config: &'a Config,
    test: &'a Test,
    course: Course,
}

impl Trial<'_> {
    /// Reports the expectations that are not met. If the route is wrong, its consequences are not reported.
    fn check(&self, problems: &mut Problems) {
        let taker = self
            .course
            .route
            .map(|id| &self.config.routes[id.0 as usize]);
        match (&self.test.expected, taker) {
            (TestExpectation::NoRoute(_), None) => {}
            (TestExpectation::NoRoute(at), Some(taker)) => {
                let message = format!("`expect`: route {} takes {self}", quoted(&taker.label));
                let problem = Problem::error(at.clone(), message).label("expected no route");
                problems.push(
                    self.with_explain_hint(problem.and_at(taker.at.clone(), "this one takes it")),
                );
            }
            (TestExpectation::Taken { .. }, None) => problems.push(self.not_routed()),
            (
                TestExpectation::Taken {
                    route,
                    handlers,
                    upstream,
                },
                Some(taker),
            ) => {
                if let Some(route) = route
                    && !std::ptr::eq(&raw const self.config.routes[route.value], taker)
                {
                    let message =
                        format!("`route`: {self} is taken by route {}", quoted(&taker.label));
                    let problem =
                        Problem::error(route.at.clone(), message).label("expected this route");
                    problems.push(
                        self.with_explain_hint(
                            problem.and_at(taker.at.clone(), "this one takes it"),
                        ),
                    );
                    return;
                }
                for handler in handlers
                    .iter()
                    .filter(|handler| !taker.handlers.contains(&handler.value))
                {
                    problems.push(self.wrong_handler(taker, handler));
                }
                if let Some(upstream) = upstream {
                    let reached = self.reached(taker);
                    if !reached
                        .iter()
                        .any(|(_, one)| one.is_same_place(&upstream.value))
                    {
                        let reached = reached
                            .iter()
                            .map(|(handler, one)| format!("{one} (`{handler}`)"));
                        let expected = upstream.value.to_string();
                        problems.push(self.wrong_upstream(
                            taker,
                            &upstream.at,
                            &expected,
                            reached.collect(),
                        ));
                    }
                }
            }
        }
    }

    /// Returns the upstreams that the route's handlers may send the datagram to, each with the name of its handler.
    fn reached<'a>(&'a self, taker: &Route) -> Vec<(&'a str, &'a Upstream)> {
        let payload = self.test.payload.as_slice();
        let span = Span {
            region: Region::Arena,
            offset: 0,
            len: number::to_u32(payload.len()),
        };
        let datagram = Datagram {
            payload,
            envelope: self.course.envelope,
            span,
        };
        let mut reached = Vec::new();
        for &handler in &taker.handlers {
            let named = self.config.handler(handler);
            let upstreams = named.spec.upstreams();
            let places = named.spec.would_reach(&datagram).into_iter();
            reached.extend(places.map(|place| (named.name.as_str(), &upstreams[place])));
        }
        reached
    }

    fn not_routed(&self) -> Problem {
        let (at, label) = match &self.test.expected {
            TestExpectation::Taken {
                route: Some(route), ..
            } => (route.at.clone(), "expected this route"),
            TestExpectation::Taken { handlers, .. } if !handlers.is_empty() => {
                (handlers[0].at.clone(), "expected this handler")
            }
            TestExpectation::Taken {
                upstream: Some(upstream),
                ..
            } => (upstream.at.clone(), "expected this upstream"),
            _ => (self.test.at.clone(), "expected a route"),
        };
        let why = if self.course.receiving.is_empty() {
            "no socket would receive it"
        } else {
            "it is dropped as no_route"
        };
        self.with_explain_hint(
            Problem::error(at, format!("`expect`: no route takes {self}: {why}")).label(label),
        )
    }

    fn wrong_handler(&self, taker: &Route, expected: &Placed<HandlerId>) -> Problem {
        let names = taker
            .handlers
            .iter()
            .map(|handler| format!("`{}`", self.config.handler(*handler).name));
        let message = format!(
            "`handler`: {self} goes to {}",
            shortened(names.collect(), "and")
        );
        let problem = Problem::error(expected.at.clone(), message).label("expected this handler");
        self.with_explain_hint(problem.and_at(taker.at.clone(), "this route takes it"))
    }

    fn wrong_upstream(
        &self,
        taker: &Route,
        at: &Range<usize>,
        expected: &str,
        reached: Vec<String>,
    ) -> Problem {
        let message = if reached.is_empty() {
            format!("`upstream`: {self} goes to no upstream")
        } else {
            format!("`upstream`: {self} goes to {}", shortened(reached, "or"))
        };
        let problem = Problem::error(at.clone(), message).label(format!("expected {expected}"));
        self.with_explain_hint(problem.and_at(taker.at.clone(), "this route takes it"))
    }

    /// Adds a hint with the `explain` command that shows the details.
    fn with_explain_hint(&self, problem: Problem) -> Problem {
        let Test {
            source,
            destination,
            interface,
            ..
        } = self.test;
        let interface = interface
            .as_ref()
            .map_or(String::new(), |name| format!(" --interface {}", name.value));
        let file = self.config.source.name();
        problem.hint(format!("for details, run: udispatch explain {file} --to {destination} --from {source}{interface}"))
    }
}

impl std::fmt::Display for Trial<'_> {
    /// Writes the addresses of the datagram: `10.0.0.1:40000 > 127.0.0.1:1234`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (source, destination): (SocketAddr, SocketAddr) =
            (self.test.source, self.test.destination);
        write!(f, "{source} > {destination}")
    }
}
