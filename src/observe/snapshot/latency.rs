//! How long datagrams stay in the daemon, for views.

use serde::{Deserialize, Serialize};

use crate::dispatch::histogram::Histogram;

/// How long handled datagrams stayed: from the kernel's receiving them until the send call of their turn had returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured: those that were handled while it was asked for.
    pub count: u64,
    /// All their times together.
    pub sum_seconds: f64,
    /// The border that half of them did not exceed; null where there is none, as for all of these.
    pub p50_seconds: Option<f64>,
    /// The same of 99 in a hundred.
    pub p99_seconds: Option<f64>,
    /// The same of 999 in a thousand.
    pub p999_seconds: Option<f64>,
    /// For each border, how many did not exceed it.
    pub buckets: Vec<LatencyBucket>,
}

/// One border.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The border.
    pub up_to_seconds: f64,
    /// How many did not exceed it.
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
