//! How long datagrams waited, and for how long none arrived, during a restart. All times are the kernel's, so that it
//! does not matter when this program reads.

use serde::Serialize;

/// The measurements of one restart, or of a time without one.
#[derive(Debug, Default, Clone, Copy)]
pub struct Window {
    /// The longest time in nanoseconds without an arrival while something had been sent.
    pub gap_ns: u64,
    /// The longest time in nanoseconds from sending to arrival.
    pub delay_ns: u64,
    /// Number of trains that arrived.
    pub arrivals: u64,
}

/// Records arrivals.
#[derive(Debug, Default)]
pub struct Meter {
    window: Window,
    /// The times of arrival and of sending of what came in this turn, on several sockets.
    turn: Vec<(u64, u64)>,
    /// The latest arrival so far.
    last: u64,
}

impl Meter {
    /// Begins a new window.
    pub fn begin(&mut self) {
        self.window = Window::default();
    }

    /// Returns the measurements since the last call of `begin`.
    pub fn end(&mut self) -> Window {
        self.window
    }

    /// Notes an arrival.
    pub fn note(&mut self, arrival_ns: Option<u64>, sent_ns: u64) {
        if let Some(arrival_ns) = arrival_ns {
            self.turn.push((arrival_ns, sent_ns));
        }
    }

    /// Notes that all arrivals until now are known.
    pub fn sum_up(&mut self) {
        self.turn.sort_unstable();
        for (arrival, sent) in self.turn.drain(..) {
            // If nothing was sent, nothing could arrive.
            let waiting_since = self.last.max(sent);
            self.window.gap_ns = self
                .window
                .gap_ns
                .max(arrival.saturating_sub(waiting_since));
            self.window.delay_ns = self.window.delay_ns.max(arrival.saturating_sub(sent));
            self.window.arrivals += 1;
            self.last = self.last.max(arrival);
        }
    }
}

/// The distribution of a number of values, in milliseconds.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Distribution {
    /// The number of values.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest value.
    pub max: f64,
}

impl Distribution {
    /// The distribution of these values, in milliseconds.
    pub fn of(values: impl Iterator<Item = f64>) -> Distribution {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Distribution {
            count: values.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time in which nothing is sent is not a gap. A time in which nothing arrives is one from the moment when
    /// something waited.
    #[test]
    fn gaps() {
        let mut meter = Meter::default();
        for (arrival, sent) in [(100, 99), (500, 499), (900, 600)] {
            meter.note(Some(arrival), sent);
        }
        meter.sum_up();
        assert_eq!(
            (
                meter.end().gap_ns,
                meter.end().delay_ns,
                meter.end().arrivals
            ),
            (300, 300, 3)
        );
        meter.begin();
        meter.note(Some(1_000), 900);
        meter.sum_up();
        assert_eq!((meter.end().gap_ns, meter.end().delay_ns), (100, 100));
    }

    /// Percentiles are values that occur.
    #[test]
    fn ranks() {
        let all = Distribution::of((1..=200).map(f64::from));
        assert_eq!(
            (all.count, all.p50, all.p90, all.p99, all.max),
            (200, 100.0, 180.0, 198.0, 200.0)
        );
        assert_eq!(Distribution::of(std::iter::empty()).max, 0.0);
    }
}
