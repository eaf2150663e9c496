//! Rates: turns two consecutive snapshots into events per second, for each row. Pure. A rate that cannot be known is
//! left out, rather than wrong: for a new row, a counter that went back, or a restarted daemon.

use std::collections::HashMap;
use std::time::Duration;

use super::measure::{Measure, RowKind};
use super::rows::{RowCounts, RowItem, RowKey, items};
use crate::observe::snapshot::Snapshot;

/// A row as it is shown.
#[derive(Debug, Clone)]
pub(super) struct RateRow {
    pub(super) item: RowItem,
    /// The position of the row in the snapshot's list.
    pub(super) index: usize,
    /// The rate of each measure per second; `None` if it is unknown, or if the measure has no rate.
    rates: [Option<f64>; Measure::COUNT],
}

/// All rows, with their rates.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// Time between the two snapshots.
    pub(super) elapsed: Option<Duration>,
    rows: [Vec<RateRow>; 5],
}

impl RateRow {
    /// Returns what the column shows: a rate, or a current value.
    pub(super) fn value(&self, measure: Measure) -> Option<f64> {
        if measure.only_rises() {
            self.rates[measure as usize]
        } else {
            Some(self.count(measure) as f64)
        }
    }

    /// Returns the count since the start, or the current value.
    pub(super) fn count(&self, measure: Measure) -> u64 {
        self.item.counts[measure as usize]
    }

    /// Returns whether the row is highlighted, because its state is bad or the kernel drops its datagrams.
    pub(super) fn stands_out(&self) -> bool {
        self.item.is_bad
            || self
                .value(Measure::KernelDrops)
                .is_some_and(|rate| rate > 0.0)
    }
}

impl Rates {
    /// Returns the rates between two snapshots. Without the earlier one, no row has a rate yet.
    pub(super) fn between(before: Option<&Snapshot>, after: &Snapshot) -> Rates {
        let elapsed = before.and_then(|before| elapsed(before, after));
        let rows = RowKind::ALL.map(|row_kind| {
            let before = before
                .filter(|_| elapsed.is_some())
                .map(|before| items(row_kind, before))
                .unwrap_or_default();
            let before: HashMap<&RowKey, &RowCounts> = before
                .iter()
                .map(|item| (&item.key, &item.counts))
                .collect();
            let after = items(row_kind, after).into_iter().enumerate();
            let row = |(index, item): (usize, RowItem)| {
                let rates = rates(before.get(&item.key).copied(), &item.counts, elapsed);
                RateRow { item, index, rates }
            };
            after.map(row).collect()
        });
        Rates { elapsed, rows }
    }

    /// Returns the rows of one kind, in the order of the snapshot.
    pub(super) fn rows(&self, row_kind: RowKind) -> &[RateRow] {
        &self.rows[row_kind as usize]
    }

    /// Returns one row, if it exists.
    pub(super) fn row(&self, row_kind: RowKind, key: &RowKey) -> Option<&RateRow> {
        self.rows(row_kind).iter().find(|row| row.item.key == *key)
    }

    /// Returns the sum of the known values of one kind; `None` if none is known.
    pub(super) fn sum(&self, row_kind: RowKind, measure: Measure) -> Option<f64> {
        self.rows(row_kind)
            .iter()
            .filter_map(|row| row.value(measure))
            .reduce(|sum, value| sum + value)
    }

    /// Returns the sum of the counts of one kind.
    pub(super) fn total(&self, row_kind: RowKind, measure: Measure) -> u64 {
        self.rows(row_kind)
            .iter()
            .fold(0, |sum, row| sum.saturating_add(row.count(measure)))
    }
}

/// Returns the time between two snapshots; `None` if the counters of the later one do not continue those of the earlier
/// one.
pub(super) fn elapsed(before: &Snapshot, after: &Snapshot) -> Option<Duration> {
    let is_same = before.pid == after.pid && before.started == after.started;
    let milliseconds = if is_same {
        after.uptime_ms.checked_sub(before.uptime_ms)
    } else if after.generation > before.generation {
        // A takeover continues the counters, while a restarted daemon begins at generation 0. The uptime of the process
        // does not help here.
        after.taken_unix_ms.checked_sub(before.taken_unix_ms)
    } else {
        None
    };
    milliseconds
        .filter(|milliseconds| *milliseconds > 0)
        .map(Duration::from_millis)
}

/// Returns the rate per second of each measure that has one.
fn rates(
    before: Option<&RowCounts>,
    after: &RowCounts,
    elapsed: Option<Duration>,
) -> [Option<f64>; Measure::COUNT] {
    std::array::from_fn(|measure| rate(before?[measure], after[measure], elapsed?))
}

/// Returns a rate per second; `None` if the counter went back.
pub(super) fn rate(before: u64, after: u64, elapsed: Duration) -> Option<f64> {
    after
        .checked_sub(before)
        .map(|more| more as f64 / elapsed.as_secs_f64())
}
