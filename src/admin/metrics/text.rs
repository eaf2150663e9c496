//! Writes the text format of Prometheus (exposition formats, version 0.0.4): families in order, each with its help and
//! type before its samples. No library is used, because its registry would hold the numbers of the snapshot a second
//! time.

use std::fmt::{Display, Write};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only rises; its name ends in `_total`.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Cumulative counts by upper bound, a sum and a count.
    Histogram,
}

/// The text, to which families are added.
#[derive(Debug, Default)]
pub struct Text(String);

/// One family, to which samples are added.
pub struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Text {
    /// Begins a family. Its name is given without the prefix `udispatch_`.
    pub fn family(&mut self, name: &'static str, kind: MetricKind, help: &str) -> Family<'_> {
        debug_assert_eq!(
            name.ends_with("_total"),
            kind == MetricKind::Counter,
            "{name}"
        );
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP udispatch_{name} {help}\n# TYPE udispatch_{name} {kind}"
        );
        Family { text: self, name }
    }

    /// Returns the whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Writes a sample. Each set of labels may occur once in a family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// Writes the samples of a histogram: for each upper bound, in ascending order, the number of values up to it.
    pub fn histogram(&mut self, up_to: impl Iterator<Item = (f64, u64)>, sum: f64, count: u64) {
        up_to.for_each(|(bound, count)| {
            self.part("_bucket", &[("le", &bound.to_string())], count);
        });
        self.part("_bucket", &[("le", "+Inf")], count);
        self.part("_sum", &[], sum);
        self.part("_count", &[], count);
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.text.0;
        let _ = write!(text, "udispatch_{}{suffix}", self.name);
        for (place, (label, content)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{label}=\"", if place == 0 { '{' } else { ',' });
            escape(text, content);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

fn escape(text: &mut String, content: &str) {
    for character in content.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Help and type come before the samples, and no label value can end its own quotes.
    #[test]
    fn the_format() {
        let mut text = Text::default();
        let mut family = text.family("things_total", MetricKind::Counter, "Things.");
        family.sample(&[], 1);
        family.sample(&[("a", "x\"y\\z\n"), ("b", "")], 2_u64);
        let expected = "# HELP udispatch_things_total Things.\n# TYPE udispatch_things_total counter\n\
                        udispatch_things_total 1\nudispatch_things_total{a=\"x\\\"y\\\\z\\n\",b=\"\"} 2\n";
        assert_eq!(text.finish(), expected);
    }

    /// A histogram ends with the bound `+Inf`.
    #[test]
    fn a_histogram() {
        let mut text = Text::default();
        text.family("time", MetricKind::Histogram, "Time.")
            .histogram([(0.000001, 1), (1.5, 2)].into_iter(), 7.5, 3);
        let expected = "# HELP udispatch_time Time.\n# TYPE udispatch_time histogram\n\
                        udispatch_time_bucket{le=\"0.000001\"} 1\nudispatch_time_bucket{le=\"1.5\"} 2\n\
                        udispatch_time_bucket{le=\"+Inf\"} 3\nudispatch_time_sum 7.5\nudispatch_time_count 3\n";
        assert_eq!(text.finish(), expected);
    }
}
