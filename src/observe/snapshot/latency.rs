//! The latency of datagrams in the daemon, for views.

use serde::{Deserialize, Serialize};

use crate::dispatch::histogram::Histogram;

/// The latency of handled datagrams: from their receipt in the kernel until the send call of their turn returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The number of measured datagrams: those handled while the measurement was enabled.
    pub count: u64,
    /// The sum of all measured latencies, in seconds.
    pub sum_seconds: f64,
    /// The upper bound of the bucket that contains the median, in seconds; null if it lies in the last bucket, which is
    /// unbounded, or if nothing was measured.
    pub p50_seconds: Option<f64>,
    /// The upper bound of the bucket that contains the 99th percentile, in seconds; null as for the median.
    pub p99_seconds: Option<f64>,
    /// The upper bound of the bucket that contains the 99.9th percentile, in seconds; null as for the median.
    pub p999_seconds: Option<f64>,
    /// The buckets of the cumulative histogram.
    pub buckets: Vec<LatencyBucket>,
}

/// One bucket of the histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The upper bound of the bucket, in seconds.
    pub up_to_seconds: f64,
    /// The number of datagrams with a latency up to this bound.
    pub count: u64,
}

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Latency {
        let seconds = |us: u64| us as f64 / 1e6;
        let quantile = |per_mille| histogram.quantile_us(per_mille).map(seconds);
        let bucket = |(us, count)| LatencyBucket {
            up_to_seconds: seconds(us),
            count,
        };
        Latency {
            count: histogram.count(),
            sum_seconds: histogram.sum_seconds(),
            p50_seconds: quantile(500),
            p99_seconds: quantile(990),
            p999_seconds: quantile(999),
            buckets: histogram.up_to().map(bucket).collect(),
        }
    }
}
