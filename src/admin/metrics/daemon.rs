//! The metric families of the process as a whole, its listeners, its workers, and the host.

use super::accounts::{AccountNames, CounterRow, accounts, counters};
use super::text::{MetricKind, Text};
use crate::dispatch::ledger::ListenerCounters;
use crate::dispatch::verdict::DropReason;
use crate::observe::snapshot::{AdminRow, DaemonState, HostCounts, Snapshot};

/// Writes these families.
pub(super) fn write(text: &mut Text, snapshot: &Snapshot) {
    process(text, snapshot);
    reloads(text, snapshot);
    alarms(text, snapshot);
    listeners(text, snapshot);
    workers(text, snapshot);
    latency(text, snapshot);
    host(text, snapshot);
    admin(text, snapshot);
}

fn process(text: &mut Text, snapshot: &Snapshot) {
    let mut info = text.family(
        "build_info",
        MetricKind::Gauge,
        "Always 1; the label is the version of the program.",
    );
    info.sample(&[("version", &snapshot.version)], 1);
    let mut started = text.family(
        "start_time_seconds",
        MetricKind::Gauge,
        "When the process started, in unix time.",
    );
    started.sample(&[], snapshot.started);
    let mut states = text.family(
        "state",
        MetricKind::Gauge,
        "1 for the current state of the daemon.",
    );
    for state in [
        DaemonState::Serving,
        DaemonState::Degraded,
        DaemonState::Stopping,
    ] {
        states.sample(
            &[("state", state.label())],
            u8::from(state == snapshot.state),
        );
    }
    let help = "1 if received = handled + dropped + in flight in every row.";
    text.family("ledger_balances", MetricKind::Gauge, help)
        .sample(&[], u8::from(snapshot.balances));
}

fn reloads(text: &mut Text, snapshot: &Snapshot) {
    let reloads = &snapshot.reloads;
    let mut outcomes = text.family(
        "config_reloads_total",
        MetricKind::Counter,
        "Reloads since the start, by outcome.",
    );
    outcomes.sample(&[("outcome", "applied")], reloads.applied);
    outcomes.sample(&[("outcome", "refused")], reloads.refused);
    let last = [
        ("applied", snapshot.reloaded),
        ("refused", reloads.last_refused),
    ];
    let help = "Unix time of the last reload with each outcome.";
    let mut times = text.family(
        "config_last_reload_timestamp_seconds",
        MetricKind::Gauge,
        help,
    );
    for (outcome, at) in last
        .iter()
        .filter_map(|(outcome, at)| Some((outcome, (*at)?)))
    {
        times.sample(&[("outcome", outcome)], at);
    }
    let help = "Reloads and takeovers so far.";
    text.family("config_generation", MetricKind::Gauge, help)
        .sample(&[], snapshot.generation);
}

fn alarms(text: &mut Text, snapshot: &Snapshot) {
    let mut alarms = text.family(
        "alarm_active",
        MetricKind::Gauge,
        "1 for each active alarm.",
    );
    for alarm in &snapshot.alarms {
        alarms.sample(&[("alarm", &alarm.name), ("about", &alarm.about)], 1);
    }
    text.family("alarms", MetricKind::Gauge, "Number of active alarms.")
        .sample(&[], snapshot.alarms.len());
}

fn listeners(text: &mut Text, snapshot: &Snapshot) {
    let names = AccountNames {
        received: (
            "received_datagrams_total",
            "Datagrams that the listener received.",
        ),
        handled: (
            "handled_datagrams_total",
            "Received datagrams that were handled.",
        ),
        dropped: (
            "dropped_datagrams_total",
            "Received datagrams that were dropped, by reason.",
        ),
    };
    let rows: Vec<_> = snapshot
        .listeners
        .iter()
        .map(|row| (row.listener.clone(), &row.account))
        .collect();
    accounts(text, &names, "listener", &rows);
    let help = "Dropped datagrams of all listeners, with every reason.";
    let mut reasons = text.family(
        "dropped_datagrams_by_reason_total",
        MetricKind::Counter,
        help,
    );
    for reason in DropReason::ALL {
        let label = reason.label();
        reasons.sample(
            &[("reason", label)],
            snapshot.drops.get(label).copied().unwrap_or(0),
        );
    }
    let rows: Vec<_> = snapshot
        .listeners
        .iter()
        .map(|row| CounterRow {
            labels: vec![("listener", &row.listener)],
            values: row.counters.values().to_vec(),
        })
        .collect();
    counters(text, ListenerCounters::FIELDS, &rows);
}

fn workers(text: &mut Text, snapshot: &Snapshot) {
    let names = AccountNames {
        received: (
            "worker_received_datagrams_total",
            "Datagrams that the worker received.",
        ),
        handled: (
            "worker_handled_datagrams_total",
            "Received datagrams that were handled.",
        ),
        dropped: (
            "worker_dropped_datagrams_total",
            "Received datagrams that were dropped, by reason.",
        ),
    };
    let rows: Vec<_> = snapshot
        .workers
        .iter()
        .map(|row| (row.worker.to_string(), &row.account))
        .collect();
    accounts(text, &names, "worker", &rows);
    let mut up = text.family(
        "worker_up",
        MetricKind::Gauge,
        "1 if the worker responded when the metrics were taken.",
    );
    rows.iter()
        .zip(&snapshot.workers)
        .for_each(|((name, _), row)| {
            up.sample(&[("worker", name)], u8::from(row.responsive));
        });
}

fn latency(text: &mut Text, snapshot: &Snapshot) {
    let Some(latency) = &snapshot.latency else {
        return;
    };
    let help = "Time from receipt in the kernel to the end of the send call.";
    let up_to = latency
        .buckets
        .iter()
        .map(|bucket| (bucket.up_to_seconds, bucket.count));
    text.family("time_in_daemon_seconds", MetricKind::Histogram, help)
        .histogram(up_to, latency.sum_seconds, latency.count);
}

fn host(text: &mut Text, snapshot: &Snapshot) {
    let values = snapshot.host.values().to_vec();
    let labels = Vec::new();
    counters(text, HostCounts::FIELDS, &[CounterRow { labels, values }]);
}

fn admin(text: &mut Text, snapshot: &Snapshot) {
    let values = snapshot.admin.values().to_vec();
    let labels = Vec::new();
    counters(text, AdminRow::FIELDS, &[CounterRow { labels, values }]);
}
