//! Formats numbers for columns: short, and without digits that suggest more precision than there is.

use std::time::Duration;

/// The text for an unknown value.
pub(super) const UNKNOWN: &str = "–";

/// Formats a rate or a current value: with tenths below ten unless they are zero, and in millions above ten millions.
pub(super) fn value(value: Option<f64>) -> String {
    match value {
        None => UNKNOWN.to_owned(),
        Some(value) if value >= 9_999_999.5 => format!("{:.1}M", value / 1e6),
        Some(value) if value < 9.95 && (value * 10.0).round() % 10.0 != 0.0 => {
            format!("{value:.1}")
        }
        Some(value) => format!("{value:.0}"),
    }
}

/// Formats a rate for a sentence.
pub(super) fn rate(rate: Option<f64>) -> String {
    format!("{}/s", value(rate))
}

/// Formats a duration in its two largest units.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let days = seconds / 86_400;
    let hours = seconds / 3_600 % 24;
    let minutes = seconds / 60 % 60;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small values have a tenth and large ones have none. An unknown value is not shown as 0.
    #[test]
    fn numbers_are_short() {
        let values: [Option<f64>; 9] = [
            None,
            Some(0.0),
            Some(0.04),
            Some(0.25),
            Some(2.0),
            Some(9.96),
            Some(12.34),
            Some(1234.5),
            Some(12_345_678.0),
        ];
        assert_eq!(
            values.map(value),
            ["–", "0", "0", "0.2", "2", "10", "12", "1234", "12.3M"]
        );
        let spans = [5, 65, 3_700, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}
