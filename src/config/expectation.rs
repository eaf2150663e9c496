//! The key `expect_every` of a route: how long the route, or a part of its sources, may be silent before an alarm is
//! raised.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::definition::Form;
use super::destination::Destination;
use super::diagnostics::quoted;
use super::limits::{DURATION_DAYS_MAX, EXPECTATIONS_MAX};
use super::problem::Problem;
use super::section::Section;
use super::setting::{Optional, Setting};
use super::source::Placed;
use super::value::{duration_in, is_v4, source_of};

/// The definition of the key.
pub(super) const EXPECT_EVERY: Setting<Duration, Optional> =
    Setting::custom("expect_every", FORM, |value| duration_in(EVERY)(value))
        .optional("none")
        .meaning(
            "longest silence before an alarm is raised; as a table, the longest silence of each prefix of sources",
        );

const FORM: Form = Form::OneOf(&[
    DURATION_FORM,
    Form::Map {
        key: "\"PREFIX\"",
        value: &DURATION_FORM,
    },
]);

const DURATION_FORM: Form = Form::duration(EVERY);

/// The periods that can be expected. Below a second, a full queue or a busy machine would be reported as silence.
const EVERY: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(DURATION_DAYS_MAX * 86_400);

const KEY: &str = EXPECT_EVERY.key;

/// Traffic whose absence raises an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The prefix of sources that is expected to send; `None` for every source that the route accepts.
    pub source: Option<IpNet>,
    /// The longest permitted silence.
    pub every: Duration,
}

/// Reads the key. The result is sorted by prefix, so that the order in the file makes no difference.
pub(super) fn read(
    section: &mut Section<'_>,
    destinations: &[Placed<Destination>],
    sources: &[Placed<IpNet>],
) -> Vec<Expectation> {
    let Some(value) = section.raw(&EXPECT_EVERY) else {
        return Vec::new();
    };
    if !value.is_table() {
        let every = section.find(&EXPECT_EVERY);
        return every
            .map(|every| Expectation {
                source: None,
                every,
            })
            .into_iter()
            .collect();
    }
    let entries = section.entries(&EXPECT_EVERY);
    if entries.len() > EXPECTATIONS_MAX {
        let message = format!("more than {EXPECTATIONS_MAX} prefixes on one route");
        section.problem(KEY, message, "write shorter prefixes, or divide the route");
        return Vec::new();
    }
    if entries.is_empty() {
        section.problem(
            KEY,
            "the table is empty",
            "write \"60s\", or { \"10.0.0.0/8\" = \"60s\" }",
        );
    }
    let mut read: Vec<(Placed<IpNet>, Duration)> = Vec::with_capacity(entries.len());
    for (prefix, value) in entries {
        let every = section.parse(&EXPECT_EVERY, value);
        let Some(source) = read_prefix(section, prefix) else {
            continue;
        };
        if let Some((first, _)) = read.iter().find(|(other, _)| other.value == source.value) {
            let problem = Problem::error(source.at, format!("`{KEY}`: the same source twice"));
            section.report(problem.and_at(first.at.clone(), "first here"));
            continue;
        }
        check(section, &source, destinations, sources);
        read.extend(every.map(|every| (source, every)));
    }
    read.sort_by_key(|(source, _)| source.value);
    read.into_iter()
        .map(|(source, every)| Expectation {
            source: Some(source.value),
            every,
        })
        .collect()
}

/// Reads a prefix of sources. If it is malformed, reports that and returns `None`.
fn read_prefix(section: &mut Section<'_>, prefix: Placed<&str>) -> Option<Placed<IpNet>> {
    let Placed { value, at } = prefix;
    match source_of(value) {
        Ok(value) => Some(Placed { value, at }),
        Err(mistake) => {
            section.report(Problem::with_value(KEY, at, mistake));
            None
        }
    }
}

/// Reports a prefix from which no datagram can arrive. It would raise an alarm that never ends.
fn check(
    section: &mut Section<'_>,
    expected: &Placed<IpNet>,
    destinations: &[Placed<Destination>],
    sources: &[Placed<IpNet>],
) {
    let net = expected.value;
    let shown = quoted(&net.to_string());
    let problem = if !destinations
        .iter()
        .any(|one| is_v4(&one.value.net) == is_v4(&net))
    {
        let family = if is_v4(&net) { "IPv4" } else { "IPv6" };
        let message =
            format!("`{KEY}`: no `destination` is {family}, so no datagram from {shown} can match");
        let other = destinations
            .first()
            .map(|first| (first.at.clone(), "is of the other family"));
        Problem {
            other: other.map(|(at, label)| (at, label.to_owned())),
            ..Problem::error(expected.at.clone(), message)
        }
        .hint("sources must be of a destination's family")
    } else if let Some(first) = sources.first()
        && !sources.iter().any(|source| source.value.contains(&net))
    {
        let message = format!("`{KEY}`: {shown} does not lie within the route's `source`");
        Problem::error(expected.at.clone(), message)
            .and_at(first.at.clone(), "only these sources match")
            .hint("write a prefix within `source`, or add this one to `source`")
    } else {
        return;
    };
    section.report(problem);
}
