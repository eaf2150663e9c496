//! Rates: two consecutive snapshots → what happened a second, per row. Pure. What cannot be known (a row that is new, a
//! counter that went back, a daemon that was started anew) is no rate at all, rather than a wrong one.

use std::collections::HashMap;
use std::time::Duration;

use super::measure::{Measure, Noun};
use super::rows::{RowCounts, RowItem, RowKey, items};
use crate::observe::snapshot::Snapshot;

/// A row as it is shown.
#[derive(Debug, Clone)]
pub(super) struct RateRow {
    pub(super) item: RowItem,
    /// Its place in the snapshot's list.
    pub(super) index: usize,
    /// A second; nothing where it cannot be known, or where the number has no rate.
    rates: [Option<f64>; Measure::COUNT],
}

/// All rows, with their rates.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// Between the two snapshots.
    pub(super) elapsed: Option<Duration>,
    rows: [Vec<RateRow>; 5],
}

impl RateRow {
    /// What its column shows: a rate, or a number as it is now.
    pub(super) fn value(&self, measure: Measure) -> Option<f64> {
        match measure.only_rises() {
            true => self.rates[measure as usize],
            false => Some(self.count(measure) as f64),
        }
    }

    /// Since the beginning, or now.
    pub(super) fn count(&self, measure: Measure) -> u64 {
        self.item.counts[measure as usize]
    }

    /// Whether it has to be seen: its state is bad, or the kernel drops.
    pub(super) fn stands_out(&self) -> bool {
        self.item.is_ill
            || self
                .value(Measure::KernelDrops)
                .is_some_and(|rate| rate > 0.0)
    }
}

impl Rates {
    /// From a snapshot to a later one; without the former nothing has a rate yet.
    pub(super) fn between(before: Option<&Snapshot>, after: &Snapshot) -> Rates {
        let elapsed = before.and_then(|before| elapsed(before, after));
        let rows = Noun::ALL.map(|noun| {
            let before = before
                .filter(|_| elapsed.is_some())
                .map(|before| items(noun, before))
                .unwrap_or_default();
            let before: HashMap<&RowKey, &RowCounts> = before
                .iter()
                .map(|item| (&item.key, &item.counts))
                .collect();
            let after = items(noun, after).into_iter().enumerate();
            let row = |(index, item): (usize, RowItem)| {
                let rates = rates(before.get(&item.key).copied(), &item.counts, elapsed);
                RateRow { item, index, rates }
            };
            after.map(row).collect()
        });
        Rates { elapsed, rows }
    }

    /// The rows of one kind, in the order of the snapshot.
    pub(super) fn rows(&self, noun: Noun) -> &[RateRow] {
        &self.rows[noun as usize]
    }

    /// One row.
    pub(super) fn row(&self, noun: Noun, key: &RowKey) -> Option<&RateRow> {
        self.rows(noun).iter().find(|row| row.item.key == *key)
    }

    /// The sum of a kind's values that are known, if any is.
    pub(super) fn sum(&self, noun: Noun, measure: Measure) -> Option<f64> {
        self.rows(noun)
            .iter()
            .filter_map(|row| row.value(measure))
            .reduce(|sum, value| sum + value)
    }

    /// The sum of a kind's counts.
    pub(super) fn total(&self, noun: Noun, measure: Measure) -> u64 {
        self.rows(noun)
            .iter()
            .fold(0, |sum, row| sum.saturating_add(row.count(measure)))
    }
}

/// The time between two snapshots whose counters go on from one to the other.
pub(super) fn elapsed(before: &Snapshot, after: &Snapshot) -> Option<Duration> {
    let is_same = before.pid == after.pid && before.started == after.started;
    let milliseconds = match is_same {
        true => after.uptime_ms.checked_sub(before.uptime_ms),
        // A takeover counts on; one that was started anew begins at generation 0. The time in the process says nothing.
        false if after.generation > before.generation => {
            after.taken_unix_ms.checked_sub(before.taken_unix_ms)
        }
        false => None,
    };
    milliseconds
        .filter(|milliseconds| *milliseconds > 0)
        .map(Duration::from_millis)
}

/// A second, of each number that rises.
fn rates(
    before: Option<&RowCounts>,
    after: &RowCounts,
    elapsed: Option<Duration>,
) -> [Option<f64>; Measure::COUNT] {
    std::array::from_fn(|measure| rate(before?[measure], after[measure], elapsed?))
}

/// A second; nothing where the counter went back.
pub(super) fn rate(before: u64, after: u64, elapsed: Duration) -> Option<f64> {
    after
        .checked_sub(before)
        .map(|more| more as f64 / elapsed.as_secs_f64())
}
