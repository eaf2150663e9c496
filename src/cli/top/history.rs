//! The history of the daemon: its last snapshot, the rates since the one before, and two minutes of samples for each
//! row.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::measure::RowKind;
use super::rates::Rates;
use super::rows::RowKey;
use crate::observe::snapshot::Snapshot;

/// Time that the history covers.
pub(super) const HISTORY: Duration = Duration::from_secs(120);
/// Largest number of samples of a row, for any interval.
const SAMPLES_MAX: usize = 1_200;

/// The samples of a row's pulse, the oldest first; `None` where the value was unknown.
type RowHistory = VecDeque<Option<f64>>;

/// The last snapshots, and what is derived from them.
#[derive(Debug, Clone)]
pub(super) struct SnapshotHistory {
    pub(super) snapshot: Snapshot,
    /// The previous snapshot, from which the rates are computed.
    pub(super) before: Option<Snapshot>,
    pub(super) rates: Rates,
    /// When the snapshot arrived.
    pub(super) at: Instant,
    samples_max: usize,
    histories: [HashMap<RowKey, RowHistory>; 5],
}

impl SnapshotHistory {
    /// Returns the history with its first snapshot. Further snapshots are expected at each interval.
    pub(super) fn first(snapshot: Snapshot, at: Instant, interval: Duration) -> SnapshotHistory {
        let rates = Rates::between(None, &snapshot);
        let samples_max = HISTORY.as_nanos() / interval.as_nanos().max(1);
        let samples_max = usize::try_from(samples_max)
            .unwrap_or(usize::MAX)
            .clamp(2, SAMPLES_MAX);
        SnapshotHistory {
            snapshot,
            before: None,
            rates,
            at,
            samples_max,
            histories: Default::default(),
        }
    }

    /// Adds the next snapshot.
    pub(super) fn advance(&mut self, snapshot: Snapshot, at: Instant) {
        self.rates = Rates::between(Some(&self.snapshot), &snapshot);
        self.before = Some(std::mem::replace(&mut self.snapshot, snapshot));
        self.at = at;
        for row_kind in RowKind::ALL {
            let mut before = std::mem::take(&mut self.histories[row_kind as usize]);
            // The history of a row that no longer exists is dropped.
            let rows = self.rates.rows(row_kind).iter().map(|row| {
                let mut history = before.remove(&row.item.key).unwrap_or_default();
                remember(&mut history, row.value(row_kind.pulse()), self.samples_max);
                (row.item.key.clone(), history)
            });
            self.histories[row_kind as usize] = rows.collect();
        }
    }

    /// Records that an expected snapshot did not arrive.
    pub(super) fn miss(&mut self) {
        for history in self.histories.iter_mut().flat_map(HashMap::values_mut) {
            remember(history, None, self.samples_max);
        }
    }

    /// Returns the last two minutes of a row in this number of columns, the newest at the right. With fewer columns
    /// than samples, each column shows the highest of its samples.
    pub(super) fn spark(
        &self,
        row_kind: RowKind,
        key: &RowKey,
        columns: usize,
    ) -> Vec<Option<u64>> {
        let columns = columns.min(self.samples_max);
        let Some(history) = self.histories[row_kind as usize].get(key) else {
            return vec![None; columns];
        };
        let sample =
            |slot: usize| *history.get((slot + history.len()).checked_sub(self.samples_max)?)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is not negative, and `as` saturates where it is too large"
        )]
        let column = |column: usize| {
            let slots =
                column * self.samples_max / columns..(column + 1) * self.samples_max / columns;
            slots
                .filter_map(sample)
                .reduce(f64::max)
                .map(|rate| rate.round() as u64)
        };
        (0..columns).map(column).collect()
    }
}

fn remember(history: &mut RowHistory, value: Option<f64>, samples_max: usize) {
    if history.len() >= samples_max {
        history.pop_front();
    }
    history.push_back(value);
}
