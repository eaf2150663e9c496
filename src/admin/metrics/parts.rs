//! The metric families of routes, handlers and upstreams.

use std::collections::HashMap;

use super::accounts::{AccountNames, CounterRow, accounts, by, counters};
use super::text::{MetricKind, Text};
use crate::dispatch::counters::ErrnoCounts;
use crate::dispatch::ledger::{HandlerCounters, SessionCount, ShadowCounts, UpstreamCounters};
use crate::observe::snapshot::{HandlerRow, Snapshot, UpstreamRow, errnos};

/// A family with counts by errno: its name, its help text, and the function that returns the counts of a row.
type ErrorFamily<R> = (&'static str, &'static str, fn(&R) -> &ErrnoCounts);

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
            "Datagrams that at least one handler of the route handled.",
        ),
        dropped: (
            "route_dropped_datagrams_total",
            "Datagrams that all handlers of the route dropped, by reason.",
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
            "Datagrams that the handler handled.",
        ),
        dropped: (
            "handler_dropped_datagrams_total",
            "Datagrams that the handler dropped, by reason.",
        ),
    };
    let rows: Vec<_> = handlers
        .iter()
        .map(|row| (row.handler.clone(), &row.account))
        .collect();
    accounts(text, &names, "handler", &rows);
    let help = "Datagrams that wait in the handler's sink.";
    let mut in_flight = text.family("handler_in_flight_datagrams", MetricKind::Gauge, help);
    handlers
        .iter()
        .for_each(|row| in_flight.sample(&[("handler", &row.handler)], row.account.in_flight));
    let rows: Vec<_> = handlers
        .iter()
        .map(|row| CounterRow {
            labels: vec![("handler", &row.handler)],
            values: row.counters.values().to_vec(),
        })
        .collect();
    counters(text, HandlerCounters::FIELDS, &rows);
    let errors: [ErrorFamily<HandlerRow>; 2] = [
        (
            "handler_send_errors_total",
            "Datagrams of the handler refused by the kernel, by errno.",
            |row| &row.failed,
        ),
        (
            "handler_reported_errors_total",
            "ICMP errors for datagrams of the handler, by errno.",
            |row| &row.reported,
        ),
    ];
    for (name, help, of) in errors {
        let mut family = text.family(name, MetricKind::Counter, help);
        for row in handlers {
            let labels = [("handler", row.handler.as_str())];
            by(&mut family, &labels, "errno", &errnos::by_name(of(row)));
        }
    }
}

fn replies(text: &mut Text, handlers: &[HandlerRow]) {
    let names = AccountNames {
        received: (
            "handler_received_replies_total",
            "Replies of the handler's upstreams.",
        ),
        handled: (
            "handler_handled_replies_total",
            "Replies that were passed on to a client.",
        ),
        dropped: (
            "handler_dropped_replies_total",
            "Replies that were dropped, by reason.",
        ),
    };
    let rows: Vec<_> = handlers
        .iter()
        .map(|row| (row.handler.clone(), &row.replies))
        .collect();
    accounts(text, &names, "handler", &rows);
}

fn sessions(text: &mut Text, handlers: &[HandlerRow]) {
    let rows: Vec<_> = handlers
        .iter()
        .map(|row| CounterRow {
            labels: vec![("handler", &row.handler)],
            values: row.sessions.values().to_vec(),
        })
        .collect();
    counters(text, SessionCount::FIELDS, &rows);
}

fn upstreams(text: &mut Text, upstreams: &[UpstreamRow]) {
    let names = names(upstreams);
    let rows = || {
        upstreams
            .iter()
            .zip(&names)
            .map(|(row, name)| (row, [("handler", row.handler.as_str()), ("upstream", name)]))
    };
    let help = "1 if the upstream is alive.";
    let mut up = text.family("upstream_up", MetricKind::Gauge, help);
    rows().for_each(|(row, labels)| up.sample(&labels, u8::from(row.alive)));
    let help = "1 if the upstream gets no new traffic.";
    let mut draining = text.family("upstream_draining", MetricKind::Gauge, help);
    rows().for_each(|(row, labels)| draining.sample(&labels, u8::from(row.draining)));
    let counted: Vec<_> = rows()
        .map(|(row, labels)| CounterRow {
            labels: labels.to_vec(),
            values: row.counters.values().to_vec(),
        })
        .collect();
    counters(text, UpstreamCounters::FIELDS, &counted);
    let errors: [ErrorFamily<UpstreamRow>; 2] = [
        (
            "upstream_send_errors_total",
            "Datagrams for the upstream refused by the kernel, by errno.",
            |row| &row.failed,
        ),
        (
            "upstream_reported_errors_total",
            "ICMP errors from the upstream, by errno.",
            |row| &row.reported,
        ),
    ];
    for (name, help, of) in errors {
        let mut family = text.family(name, MetricKind::Counter, help);
        rows().for_each(|(row, labels)| {
            by(&mut family, &labels, "errno", &errnos::by_name(of(row)));
        });
    }
    let shadows: Vec<_> = rows()
        .filter_map(|(row, labels)| {
            Some(CounterRow {
                labels: labels.to_vec(),
                values: row.shadow?.values().to_vec(),
            })
        })
        .collect();
    counters(text, ShadowCounts::FIELDS, &shadows);
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
