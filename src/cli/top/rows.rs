//! The rows of one snapshot in a uniform shape. Names are escaped, so that the terminal does not interpret them.

use std::collections::HashMap;

use super::measure::{Measure, RowKind};
use crate::config::diagnostics::one_line;
use crate::dispatch::counters::CounterField;
use crate::observe::snapshot::{
    Account, HandlerRow, ListenerRow, RouteRow, Snapshot, UpstreamRow, WorkerRow,
};

/// Identifies a row across snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RowKey {
    /// The name of the row, escaped for a terminal.
    pub(super) name: String,
    /// The index of the row among rows with the same name.
    pub(super) nth: usize,
}

/// The numbers of a row, by [`Measure`].
pub(super) type RowCounts = [u64; Measure::COUNT];

/// A row of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct RowItem {
    pub(super) key: RowKey,
    /// The kind or the state of the row, for the note column.
    pub(super) note: String,
    /// Whether the state of the row is bad.
    pub(super) is_bad: bool,
    pub(super) counts: RowCounts,
}

/// Returns the rows of one kind, in the order of the snapshot.
pub(super) fn items(row_kind: RowKind, snapshot: &Snapshot) -> Vec<RowItem> {
    let mut items: Vec<RowItem> = match row_kind {
        RowKind::Routes => snapshot.routes.iter().map(route).collect(),
        RowKind::Handlers => snapshot.handlers.iter().map(handler).collect(),
        RowKind::Upstreams => snapshot.upstreams.iter().map(upstream).collect(),
        RowKind::Listeners => snapshot.listeners.iter().map(listener).collect(),
        RowKind::Workers => snapshot.workers.iter().map(worker).collect(),
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in &mut items {
        let nth = seen.entry(item.key.name.clone()).or_default();
        item.key.nth = *nth;
        *nth += 1;
    }
    items
}

fn item(
    name: &str,
    note: &str,
    is_bad: bool,
    counts: impl IntoIterator<Item = (Measure, u64)>,
) -> RowItem {
    let mut all = [0; Measure::COUNT];
    for (measure, count) in counts {
        all[measure as usize] = count;
    }
    RowItem {
        key: RowKey {
            name: one_line(name),
            nth: 0,
        },
        note: one_line(note),
        is_bad,
        counts: all,
    }
}

fn account(account: &Account) -> [(Measure, u64); 4] {
    [
        (Measure::Received, account.received),
        (Measure::Handled, account.handled),
        (Measure::Dropped, account.dropped),
        (Measure::InFlight, account.in_flight),
    ]
}

/// Returns the counters that have a column; `detail.rs` shows the others.
fn columns(
    counters: impl Iterator<Item = (&'static CounterField, u64)>,
) -> impl Iterator<Item = (Measure, u64)> {
    counters.filter_map(|(field, value)| Some((Measure::of(field)?, value)))
}

fn route(row: &RouteRow) -> RowItem {
    item(&row.route, "", false, account(&row.account))
}

fn handler(row: &HandlerRow) -> RowItem {
    let others = [
        (Measure::NotSent, row.failed.total()),
        (Measure::Replies, row.replies.received),
        (Measure::Sessions, row.sessions.open),
    ];
    let counts = account(&row.account).into_iter();
    let counts = counts.chain(columns(row.counters.iter())).chain(others);
    item(&row.handler, &row.kind, false, counts)
}

fn upstream(row: &UpstreamRow) -> RowItem {
    let state = match (row.alive, row.draining || row.drained_by_hand) {
        (false, _) => "DEAD",
        (true, true) => "draining",
        (true, false) => "alive",
    };
    let counts = columns(row.counters.iter()).chain([(Measure::NotSent, row.failed.total())]);
    let name = format!("{}/{}", row.handler, row.upstream);
    item(&name, state, !row.alive, counts)
}

fn listener(row: &ListenerRow) -> RowItem {
    let counts = account(&row.account).into_iter();
    let counts = counts.chain(columns(row.counters.iter()));
    item(&row.listener, "", false, counts)
}

fn worker(row: &WorkerRow) -> RowItem {
    let state = if row.responsive {
        "responsive"
    } else {
        "SILENT"
    };
    item(
        &format!("worker-{}", row.worker),
        state,
        !row.responsive,
        account(&row.account),
    )
}
