//! The counters of datagrams that every row of the ledger has. Law 3 holds for each.

use serde::{Deserialize, Serialize};

use crate::dispatch::counters::growth;
use crate::dispatch::verdict::DropReason;

/// The counters of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that were handled.
    pub handled: u64,
    /// Datagrams that a sink holds: taken from the data plane and not yet written.
    pub in_flight: u64,
    /// Datagrams dropped, by reason.
    #[serde(with = "by_reason")]
    pub dropped: [u64; DropReason::COUNT],
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            received: 0,
            handled: 0,
            in_flight: 0,
            dropped: [0; DropReason::COUNT],
        }
    }
}

/// Serializes drops by name, so that they have the same meaning in another version.
mod by_reason {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::DropReason;

    type DropCounts = [u64; DropReason::COUNT];

    /// Writes the reasons whose count is not zero, as a map from label to count.
    ///
    /// # Errors
    ///
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(
        dropped: &DropCounts,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let named = DropReason::ALL
            .iter()
            .map(|reason| (reason.label(), dropped[*reason as usize]));
        serializer.collect_map(named.filter(|(_, datagrams)| *datagrams > 0))
    }

    /// Reads a map from label to count. Reasons that this version does not have are ignored.
    ///
    /// # Errors
    ///
    /// Returns the error of the deserializer if the input is not such a map.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DropCounts, D::Error> {
        let named = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut dropped = [0; DropReason::COUNT];
        for reason in DropReason::ALL {
            dropped[*reason as usize] = named.get(reason.label()).copied().unwrap_or(0);
        }
        Ok(dropped)
    }
}

impl Tally {
    /// Returns the number of datagrams dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Returns the number of datagrams dropped for one reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns whether law 3 holds.
    pub fn balances(&self) -> bool {
        self.received == self.handled + self.dropped_total() + self.in_flight
    }

    /// Counts a batch that came in, of which these datagrams were dropped and the others handled.
    pub(in crate::dispatch) fn batch(&mut self, datagrams: u32, drops: &[(u32, DropReason)]) {
        self.received += u64::from(datagrams);
        self.handled += u64::from(datagrams) - drops.len() as u64;
        for (_, reason) in drops {
            self.dropped[*reason as usize] += 1;
        }
    }

    /// Counts datagrams that came in and were dropped before any handler received them.
    pub(in crate::dispatch) fn refuse(&mut self, datagrams: u64, reason: DropReason) {
        self.received += datagrams;
        self.dropped[reason as usize] += datagrams;
    }

    /// Moves datagrams from handled to written, lost and in flight, according to the sink's counters.
    pub(super) fn settle(&mut self, written: u64, lost: u64) {
        self.in_flight = self.handled - written - lost;
        self.dropped[DropReason::SinkClosed as usize] += lost;
        self.handled = written;
    }

    /// Adds the counters of another row.
    pub fn add(&mut self, other: &Tally) {
        self.received += other.received;
        self.handled += other.handled;
        self.in_flight += other.in_flight;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
    }

    /// Returns what was counted since an earlier copy. The number in flight is left as it is now.
    pub fn since(&self, earlier: &Tally) -> Tally {
        let mut since = Tally {
            received: growth(self.received, earlier.received),
            handled: growth(self.handled, earlier.handled),
            ..*self
        };
        for (late, early) in since.dropped.iter_mut().zip(earlier.dropped) {
            *late = growth(*late, early);
        }
        since
    }
}
