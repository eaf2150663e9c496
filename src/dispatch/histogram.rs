//! A histogram of durations with fixed bounds: four buckets for each doubling, from 1 µs to 10.5 s. Histograms of
//! several workers can be added. The bound of a bucket is at most a quarter above the durations in it.

use serde::{Deserialize, Serialize};

use crate::number;

/// The number of buckets for each doubling.
const PER_DOUBLING: u32 = 4;
/// The number of doublings after the first four buckets, which are 1 µs wide each. The last bound is 5 × 2²¹ µs.
const DOUBLINGS: u32 = 21;
/// The number of buckets with a bound: the first four, four for each doubling, and one that brings the last bound
/// above 10 s.
const BUCKETS: usize = (PER_DOUBLING + DOUBLINGS * PER_DOUBLING + 1) as usize;

/// Counts of durations by length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    buckets: Vec<u64>,
    /// The number of durations above the last bound.
    longer: u64,
    sum_ns: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: vec![0; BUCKETS],
            longer: 0,
            sum_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts `times` durations of `duration_ns` nanoseconds.
    pub fn record(&mut self, duration_ns: u64, times: u64) {
        match self.buckets.get_mut(place(duration_ns)) {
            Some(bucket) => *bucket += times,
            None => self.longer += times,
        }
        self.sum_ns += u128::from(duration_ns) * u128::from(times);
    }

    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &Histogram) {
        self.buckets
            .iter_mut()
            .zip(&other.buckets)
            .for_each(|(sum, count)| *sum += count);
        self.longer += other.longer;
        self.sum_ns += other.sum_ns;
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum::<u64>() + self.longer
    }

    /// Returns the sum of all durations in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Returns the upper bound of each bucket in microseconds, inclusive, and the number of durations up to that
    /// bound.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets
            .iter()
            .enumerate()
            .scan(0, |sum, (place, count)| {
                *sum += count;
                Some((bound_us(place), *sum))
            })
    }

    /// Returns the lowest bound in microseconds that `per_mille` of a thousand durations do not exceed. Returns
    /// `None` if nothing was recorded, or if the quantile lies above all bounds.
    pub fn quantile_us(&self, per_mille: u64) -> Option<u64> {
        let count = u128::from(self.count());
        let rank = (count * u128::from(per_mille)).div_ceil(1_000).max(1);
        self.up_to()
            .find(|(_, sum)| u128::from(*sum) >= rank)
            .map(|(bound, _)| bound)
    }
}

/// Returns the bucket of a duration; [`BUCKETS`] or more if the duration exceeds all bounds.
fn place(duration_ns: u64) -> usize {
    // A bound belongs to the bucket below it, so a bucket starts just above the bound before it.
    let above = duration_ns.div_ceil(1_000).saturating_sub(1);
    if above < u64::from(PER_DOUBLING) {
        return number::to_usize(above);
    }
    let doubling = above.ilog2() - PER_DOUBLING.ilog2();
    let within = number::to_u32(number::to_usize(above >> doubling)) - PER_DOUBLING;
    ((1 + doubling) * PER_DOUBLING + within) as usize
}

/// Returns the upper bound of a bucket in microseconds.
fn bound_us(place: usize) -> u64 {
    let place = number::to_u32(place);
    let row = place / PER_DOUBLING;
    let within = place % PER_DOUBLING;
    match row {
        0 => u64::from(within + 1),
        row => u64::from(PER_DOUBLING + within + 1) << (row - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bounds are those that the documentation promises: steps of 1 µs, then four for each doubling, up to above 10
    /// s.
    #[test]
    fn bounds() {
        let bounds: Vec<u64> = (0..BUCKETS).map(bound_us).collect();
        assert_eq!(
            bounds[..14],
            [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24]
        );
        assert_eq!(bounds[BUCKETS - 2..], [8_388_608, 10_485_760]);
        for pair in bounds[4..].windows(2) {
            assert!(
                pair[0] < pair[1] && (pair[1] - pair[0]) * 4 <= pair[0],
                "{pair:?}"
            );
        }
    }

    proptest! {
        /// Counts, sums and quantiles equal those of a list of all durations, in whichever of two histograms each was
        /// recorded.
        #[test]
        fn as_a_list_of_durations(
            durations in prop::collection::vec((0u32..35, any::<u32>(), 1u64..50, any::<bool>()), 0..60), per_mille in 1u64..=1_000
        ) {
            let mut one = Histogram::default();
            let mut other = Histogram::default();
            let mut all = Vec::new();
            for (bits, noise, times, which) in durations {
                let duration = (1_u64 << bits) + u64::from(noise) % (1 << bits);
                if which { &mut one } else { &mut other }.record(duration, times);
                all.extend(std::iter::repeat_n(duration, times as usize));
            }
            one.add(&other);
            all.sort_unstable();
            prop_assert_eq!(one.count(), all.len() as u64);
            let sum: u64 = all.iter().sum();
            prop_assert!((one.sum_seconds() - sum as f64 / 1e9).abs() < 1e-6);
            for (bound, up_to) in one.up_to() {
                prop_assert_eq!(up_to, all.iter().filter(|duration| **duration <= bound * 1_000).count() as u64);
            }
            let rank = (all.len() as u64 * per_mille).div_ceil(1_000).max(1) as usize;
            let exact = all.get(rank - 1).copied();
            let first = exact.and_then(|exact| (0..BUCKETS).map(bound_us).find(|bound| bound * 1_000 >= exact));
            prop_assert_eq!(one.quantile_us(per_mille), first);
        }
    }
}
