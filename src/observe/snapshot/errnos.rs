//! Names errnos for views. In JSON, counts by errno are a map from the name of each errno to its count.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dispatch::counters::ErrnoCounts;
use crate::net::errno;

/// Returns the counts by the name of the errno.
pub fn by_name(counts: &ErrnoCounts) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(number, count)| (errno::label(number), count))
        .collect()
}

/// Returns the counts in the order of the errnos' names.
pub fn sorted(counts: &ErrnoCounts) -> Vec<(i32, u64)> {
    let mut sorted: Vec<(i32, u64)> = counts.iter().collect();
    sorted.sort_by_cached_key(|(number, _)| errno::label(*number));
    sorted
}

/// Writes a map from name to count.
///
/// # Errors
///
/// Returns the error of the serializer.
pub(super) fn serialize<S: Serializer>(
    counts: &ErrnoCounts,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    by_name(counts).serialize(serializer)
}

/// Reads a map from name to count. Names that this version does not have are counted as errno 0.
///
/// # Errors
///
/// Returns the error of the deserializer if the input is not such a map.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ErrnoCounts, D::Error> {
    let named = BTreeMap::<String, u64>::deserialize(deserializer)?;
    Ok(named
        .iter()
        .map(|(name, count)| (errno::of_label(name), *count))
        .collect())
}
