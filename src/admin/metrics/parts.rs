//! The metric families of routes, handlers and upstreams.

use std::collections::{BTreeMap, HashMap};

use super::accounts::{AccountNames, accounts, by};
use super::text::{MetricKind, Text};
use crate::observe::snapshot::{HandlerRow, SessionsRow, Snapshot, UpstreamRow};

/// A family: its name, its help text, and the function that returns its value for a row.
type Of<R, T> = (&'static str, &'static str, fn(&R) -> T);
/// A family with counts by a closed set: its name, its help text, and the function that returns the counts for a row.
type CountsOf<R> = (&'static str, &'static str, fn(&R) -> &BTreeMap<String, u64>);

/// Writes these families.
pub(super) fn write(text: &mut Text, snapshot: &Snapshot) {
    routes(text, snapshot);
    handlers(text, &snapshot.handlers);
    replies(text, &snapshot.handlers);
    sessions(text, &snapshot.handlers);
    upstreams(text, &snapshot.upstreams);
}

fn routes(text: &mut Text, snapshot: &Snapshot) {
    let names = AccountNames {
        received: (
            "route_received_datagrams_total",
            "Datagrams that took the route.",
        ),
        handled: (
            "route_handled_datagrams_total",
            "Of those, the ones that at least one of its handlers handled.",
        ),
        dropped: (
            "route_dropped_datagrams_total",
            "Of those, the ones that all of its handlers dropped, by reason.",
        ),
    };
    let rows: Vec<_> = snapshot
        .routes
        .iter()
        .map(|row| (row.route.clone(), &row.account))
        .collect();
    accounts(text, &names, "route", &rows);
}

fn handlers(text: &mut Text, handlers: &[HandlerRow]) {
    let names = AccountNames {
        received: (
            "handler_received_datagrams_total",
            "Datagrams that the handler's routes gave it.",
        ),
        handled: (
            "handler_handled_datagrams_total",
            "Of those, the ones that it handled.",
        ),
        dropped: (
            "handler_dropped_datagrams_total",
            "Of those, the ones that it dropped, by reason.",
        ),
    };
    let rows: Vec<_> = handlers
        .iter()
        .map(|row| (row.handler.clone(), &row.account))
        .collect();
    accounts(text, &names, "handler", &rows);
    let help = "Datagrams that wait in the handler's sink: neither written nor lost yet.";
    let mut in_flight = text.family("handler_in_flight_datagrams", MetricKind::Gauge, help);
    handlers
        .iter()
        .for_each(|row| in_flight.sample(&[("handler", &row.handler)], row.account.in_flight));
    let help = "Datagrams that the handler caused to be sent and that the kernel took.";
    let mut sent = text.family("handler_sent_datagrams_total", MetricKind::Counter, help);
    handlers
        .iter()
        .for_each(|row| sent.sample(&[("handler", &row.handler)], row.sent));
    let help = "Datagrams of the handler that the kernel refused to send, by errno.";
    let mut failed = text.family("handler_send_errors_total", MetricKind::Counter, help);
    handlers.iter().for_each(|row| {
        by(
            &mut failed,
            &[("handler", &row.handler)],
            "errno",
            &row.failed,
        )
    });
    let help = "Errors that came back by ICMP for what the handler sent, by errno.";
    let mut reported = text.family("handler_reported_errors_total", MetricKind::Counter, help);
    handlers.iter().for_each(|row| {
        by(
            &mut reported,
            &[("handler", &row.handler)],
            "errno",
            &row.reported,
        )
    });
}

fn replies(text: &mut Text, handlers: &[HandlerRow]) {
    let names = AccountNames {
        received: (
            "handler_received_replies_total",
            "Replies of the handler's upstreams.",
        ),
        handled: (
            "handler_handled_replies_total",
            "Of those, the ones that were passed on to a client.",
        ),
        dropped: (
            "handler_dropped_replies_total",
            "Of those, the ones that were not, by reason.",
        ),
    };
    let rows: Vec<_> = handlers
        .iter()
        .map(|row| (row.handler.clone(), &row.replies))
        .collect();
    accounts(text, &names, "handler", &rows);
}

fn sessions(text: &mut Text, handlers: &[HandlerRow]) {
    let gauges: [Of<SessionsRow, u64>; 3] = [
        ("sessions", "Sessions that are open.", |sessions| {
            sessions.open
        }),
        (
            "sessions_unreplied",
            "Of those, the ones without a reply so far.",
            |sessions| sessions.unreplied,
        ),
        (
            "source_ports",
            "Source ports that are open: leased, resting or spare.",
            |sessions| sessions.ports,
        ),
    ];
    for (name, help, of) in gauges {
        let mut gauge = text.family(name, MetricKind::Gauge, help);
        handlers
            .iter()
            .for_each(|row| gauge.sample(&[("handler", &row.handler)], of(&row.sessions)));
    }
    let counters: [Of<SessionsRow, u64>; 3] = [
        (
            "sessions_opened_total",
            "Sessions that ever began.",
            |sessions| sessions.opened,
        ),
        (
            "sessions_inherited_total",
            "Sessions that began under a handler that a reload has replaced, and go on with this one.",
            |sessions| sessions.inherited,
        ),
        (
            "sessions_left_total",
            "Sessions that go on with another handler since a reload.",
            |sessions| sessions.left,
        ),
    ];
    for (name, help, of) in counters {
        let mut counter = text.family(name, MetricKind::Counter, help);
        handlers
            .iter()
            .for_each(|row| counter.sample(&[("handler", &row.handler)], of(&row.sessions)));
    }
    let mut ended = text.family(
        "sessions_ended_total",
        MetricKind::Counter,
        "Sessions that ended, by cause.",
    );
    for row in handlers {
        let SessionsRow {
            idle,
            unanswered,
            complete,
            evicted,
            broken,
            ..
        } = row.sessions;
        for (cause, count) in [
            ("broken", broken),
            ("complete", complete),
            ("evicted", evicted),
            ("idle", idle),
            ("unanswered", unanswered),
        ] {
            ended.sample(&[("handler", &row.handler), ("cause", cause)], count);
        }
    }
    let help = "Datagrams passed on without a way back, since their sender must not be answered.";
    let mut one_way = text.family("one_way_datagrams_total", MetricKind::Counter, help);
    handlers
        .iter()
        .for_each(|row| one_way.sample(&[("handler", &row.handler)], row.sessions.one_way));
}

/// A family with one number for each upstream.
type Number = (
    &'static str,
    MetricKind,
    &'static str,
    fn(&UpstreamRow) -> u64,
);

const NUMBERS: [Number; 7] = [
    (
        "upstream_up",
        MetricKind::Gauge,
        "1 if the upstream is thought to answer.",
        |row| row.alive.into(),
    ),
    (
        "upstream_draining",
        MetricKind::Gauge,
        "1 if the upstream gets nothing new.",
        |row| row.draining.into(),
    ),
    (
        "upstream_sessions",
        MetricKind::Gauge,
        "Sessions that the upstream holds.",
        |row| row.sessions,
    ),
    (
        "upstream_sent_datagrams_total",
        MetricKind::Counter,
        "Datagrams that the kernel took for the upstream.",
        |row| row.sent,
    ),
    (
        "upstream_skipped_datagrams_total",
        MetricKind::Counter,
        "Datagrams that the upstream did not get although it was picked: not in its sample, above its rate.",
        |row| row.skipped,
    ),
    (
        "upstream_replies_total",
        MetricKind::Counter,
        "Replies of the upstream.",
        |row| row.replies,
    ),
    (
        "upstream_kernel_dropped_replies_total",
        MetricKind::Counter,
        "Replies of the upstream that the kernel dropped before the daemon.",
        |row| row.kernel_drops,
    ),
];

fn upstreams(text: &mut Text, upstreams: &[UpstreamRow]) {
    let names = names(upstreams);
    let rows = || {
        upstreams
            .iter()
            .zip(&names)
            .map(|(row, name)| (row, [("handler", row.handler.as_str()), ("upstream", name)]))
    };
    for (name, kind, help, of) in NUMBERS {
        let mut family = text.family(name, kind, help);
        rows().for_each(|(row, labels)| family.sample(&labels, of(row)));
    }
    let counts: [CountsOf<UpstreamRow>; 2] = [
        (
            "upstream_send_errors_total",
            "Datagrams for the upstream that the kernel refused to send, by errno.",
            |row| &row.failed,
        ),
        (
            "upstream_reported_errors_total",
            "Errors that came back by ICMP from the upstream, by errno.",
            |row| &row.reported,
        ),
    ];
    for (name, help, of) in counts {
        let mut family = text.family(name, MetricKind::Counter, help);
        rows().for_each(|(row, labels)| by(&mut family, &labels, "errno", of(row)));
    }
    let help = "Replies of an upstream that only shadows, against those that clients got.";
    let mut shadows = text.family("upstream_shadow_replies_total", MetricKind::Counter, help);
    for (row, [handler, upstream]) in rows() {
        let Some(shadow) = row.shadow else { continue };
        for (result, count) in [
            ("different", shadow.different),
            ("missing", shadow.missing),
            ("same", shadow.same),
        ] {
            shadows.sample(&[handler, upstream, ("result", result)], count);
        }
    }
}

/// Returns the names of the upstreams. If a handler has two upstreams with one address, a number distinguishes the
/// second.
fn names(upstreams: &[UpstreamRow]) -> Vec<String> {
    let mut seen: HashMap<(&str, &str), u32> = HashMap::new();
    let mut names = Vec::new();
    for row in upstreams {
        let times = seen.entry((&row.handler, &row.upstream)).or_default();
        *times += 1;
        names.push(if *times == 1 {
            row.upstream.clone()
        } else {
            format!("{} #{times}", row.upstream)
        });
    }
    names
}
