//! Parsers for quantities with units: durations, sizes and rates. A bare number is rejected where its unit would be a
//! guess. A unit with two common meanings (MB) is rejected with a suggestion.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::super::diagnostics::{Mistake, quoted};
use super::super::limits::DURATION_DAYS_MAX;
use super::Value;

const DURATION: &str = "a duration such as \"30s\"";
const SIZE: &str = "a size such as \"8MiB\"";
const RATE: &str = "a rate such as \"100/s\"";
const FRACTION: &str = "a share such as \"1/100\"";

/// Units of time in nanoseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Units of size in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// The longest duration that a file may contain.
const DURATION_MAX: Duration = Duration::from_secs(DURATION_DAYS_MAX * 86_400);

/// A rate: a count per unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The count; at least 1.
    pub count: u32,
    /// The unit of time: a second, a minute or an hour.
    pub per: Duration,
}

/// Reads a duration from zero to a year: `"500ms"`, `"30s"`, `"2m"`, `"1h"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text, is not a whole number with a known unit, or is longer than a year.
pub fn duration(value: Value<'_>) -> Result<Duration, Mistake> {
    duration_in(Duration::ZERO..=DURATION_MAX)(value)
}

/// Returns a parser for a duration within `bounds`.
///
/// # Errors
///
/// The parser returns a mistake if the value is not a duration with a known unit or is out of bounds.
pub fn duration_in(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(Value<'_>) -> Result<Duration, Mistake> {
    move |value| {
        if let DeValue::Integer(number) = value.inner() {
            let hint = format!("write the unit: \"{number}s\" or \"{number}ms\"");
            return Err(Mistake::new("a number without a unit is not a duration").hint(hint));
        }
        let duration = parse_duration(value.text(DURATION)?)?;
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        let bound = if duration < *bounds.start() {
            format!("at least {}", show_duration(*bounds.start()))
        } else {
            format!("at most {}", show_duration(*bounds.end()))
        };
        Err(Mistake::new(format!("must be {bound}")))
    }
}

/// Returns a parser for a duration that is zero (`"0s"`) or within `bounds`.
///
/// # Errors
///
/// The parser returns a mistake if the value is not a duration, or is neither zero nor within bounds.
pub fn duration_or_zero(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(Value<'_>) -> Result<Duration, Mistake> {
    let within = duration_in(bounds);
    move |value| match duration(value)? {
        Duration::ZERO => Ok(Duration::ZERO),
        _ => within(value),
    }
}

/// Returns a duration in the largest unit that leaves no fraction. A single minute is shown as `60s`. A fraction of a
/// microsecond, which no file can contain, is left out.
pub fn show_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let fits = |(name, unit): &&(&str, u64)| {
        let unit = u128::from(*unit);
        ns.is_multiple_of(unit) && (*name != "m" || ns > unit)
    };
    match TIME_UNITS.iter().rev().find(fits) {
        Some((name, unit)) if ns > 0 => format!("{}{name}", ns / u128::from(*unit)),
        Some(_) => "0s".to_owned(),
        None => format!("{}us", duration.as_micros()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, Mistake> {
    let (number, unit) = split(text);
    let bad = || Mistake::new(format!("{} is not {DURATION}", quoted(text)));
    let units = "units are us, ms, s, m, h and d";
    if number.is_empty() {
        return Err(bad().hint(units));
    }
    if unit.is_empty() {
        return Err(bad().hint(format!("write the unit: \"{number}s\" or \"{number}ms\"")));
    }
    let Some((_, ns)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(bad().hint(duration_hint(number, unit).unwrap_or(units.to_owned())));
    };
    let total = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(*ns));
    let too_long = || Mistake::new(format!("must be at most {DURATION_DAYS_MAX}d"));
    total.map(Duration::from_nanos).ok_or_else(too_long)
}

fn duration_hint(number: &str, unit: &str) -> Option<String> {
    let unit = match unit.trim().to_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "msec" | "millis" | "milliseconds" | "ms" => "ms",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hour" | "hours" | "hr" | "h" => "h",
        "day" | "days" | "d" => "d",
        other if other.starts_with('.') => {
            return Some("a whole number and a smaller unit, such as \"1500ms\"".to_owned());
        }
        other if other.bytes().any(|byte| byte.is_ascii_digit()) => {
            return Some("one number and one unit, such as \"90m\"".to_owned());
        }
        _ => return None,
    };
    Some(format!("write \"{number}{unit}\""))
}

/// Reads a size in bytes: `"64KiB"`, `"8MiB"`, `"1GiB"`, or a whole number of bytes.
///
/// # Errors
///
/// Returns a mistake if the value is not a size with a known unit, or does not fit `u64`.
pub fn size(value: Value<'_>) -> Result<u64, Mistake> {
    if let DeValue::Integer(_) = value.inner() {
        let bytes = value.number(SIZE)?;
        return u64::try_from(bytes).map_err(|_| value.expected(SIZE));
    }
    parse_size(value.text(SIZE)?)
}

/// Returns a parser for a size within `bounds`, in bytes.
///
/// # Errors
///
/// The parser returns a mistake if the value is not a size or is out of bounds.
pub fn size_in(bounds: RangeInclusive<u64>) -> impl Fn(Value<'_>) -> Result<u64, Mistake> {
    move |value| match size(value)? {
        bytes if bounds.contains(&bytes) => Ok(bytes),
        bytes => Err(Mistake::new(format!(
            "must be from {} to {}, found {}",
            show_size(*bounds.start()),
            show_size(*bounds.end()),
            show_size(bytes)
        ))),
    }
}

fn parse_size(text: &str) -> Result<u64, Mistake> {
    let (number, unit) = split(text);
    let bad = || Mistake::new(format!("{} is not {SIZE}", quoted(text)));
    if number.is_empty() {
        return Err(bad().hint("units are B, KiB, MiB and GiB"));
    }
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(bad().hint(size_hint(number, unit)));
    };
    let total = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(*bytes));
    total.ok_or_else(|| Mistake::new(format!("{} is too large", quoted(text))))
}

fn size_hint(number: &str, unit: &str) -> String {
    let unit = match unit.trim().to_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => "KiB",
        "m" | "mb" | "mi" | "mib" => "MiB",
        "g" | "gb" | "gi" | "gib" => "GiB",
        "b" | "byte" | "bytes" => "B",
        "" => return format!("write the unit, \"{number}B\" or \"{number}MiB\""),
        _ => return "units are B, KiB, MiB and GiB".to_owned(),
    };
    format!("write \"{number}{unit}\" (KiB, MiB and GiB count in steps of 1024)")
}

/// Returns a size in the largest unit that leaves no fraction.
pub fn show_size(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes.is_multiple_of(*unit);
    match SIZE_UNITS.iter().rev().find(fits) {
        Some((name, unit)) if bytes > 0 => format!("{}{name}", bytes / unit),
        _ => format!("{bytes}B"),
    }
}

/// Reads a rate: `"100/s"`, `"1000/m"`, `"10/h"`.
///
/// # Errors
///
/// Returns a mistake if the value is not a rate, has an unknown unit, or has a count of 0 or one that does not fit
/// `u32`.
pub fn rate(value: Value<'_>) -> Result<Rate, Mistake> {
    if let DeValue::Integer(number) = value.inner() {
        let hint = format!("write the unit of time: \"{number}/s\" or \"{number}/m\"");
        return Err(Mistake::new("a number without a unit is not a rate").hint(hint));
    }
    parse_rate(value.text(RATE)?)
}

fn parse_rate(text: &str) -> Result<Rate, Mistake> {
    let bad = || Mistake::new(format!("{} is not {RATE}", quoted(text)));
    let (count, unit) = split(text);
    let seconds = match unit {
        "/s" => 1,
        "/m" => 60,
        "/h" => 3_600,
        _ => return Err(bad().hint("a whole number and /s, /m or /h")),
    };
    match count.parse() {
        Ok(0) => Err(Mistake::new("a rate of 0 lets nothing through")
            .hint("to let nothing through, use a `drop` handler")),
        Ok(count) => Ok(Rate {
            count,
            per: Duration::from_secs(seconds),
        }),
        Err(_) => Err(bad().hint(format!("a whole number from 1 to {}", u32::MAX))),
    }
}

/// Returns a parser for a fraction between 0 and 1, both excluded, as numerator and denominator: `"1/100"`.
///
/// # Errors
///
/// The parser returns a mistake if the value is not a fraction, is not between 0 and 1, or has a denominator above
/// `max`.
pub fn fraction(max: u32) -> impl Fn(Value<'_>) -> Result<(u32, u32), Mistake> {
    move |value| {
        let text = value.text(FRACTION)?;
        let bad = || Mistake::new(format!("{} is not {FRACTION}", quoted(text)));
        let (part, whole) = text.split_once('/').ok_or_else(bad)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // A number that does not fit `u32` is above every limit.
            digits.then(|| text.parse().unwrap_or(u32::MAX))
        };
        match (
            number(part).ok_or_else(bad)?,
            number(whole).ok_or_else(bad)?,
        ) {
            (_, whole) if whole > max => Err(Mistake::new(format!(
                "{} has a denominator above {max}",
                quoted(text)
            ))),
            (0, _) => {
                Err(Mistake::new("a share of 0 takes no datagrams").hint("leave the upstream out"))
            }
            (part, whole) if part >= whole => Err(Mistake::new("a share must be less than 1")
                .hint("leave the key out to take all datagrams")),
            taken => Ok(taken),
        }
    }
}

/// Returns the digits at the start of a text, and the rest.
fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    use super::super::{read, refusal};
    use super::*;

    /// Every unit is accepted, and every other common spelling has a hint.
    #[test]
    fn durations() {
        for (text, ms) in [
            ("\"500ms\"", 500),
            ("\"30s\"", 30_000),
            ("\"2m\"", 120_000),
            ("\"1h\"", 3_600_000),
            ("\"1d\"", 86_400_000),
            ("\"0s\"", 0),
        ] {
            assert_eq!(
                read(text, duration),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for (text, expected) in [
            ("30", "write the unit: \"30s\" or \"30ms\""),
            ("\"30\"", "write the unit: \"30s\""),
            ("\"30 s\"", "write \"30s\""),
            ("\"5min\"", "write \"5m\""),
            ("\"1.5s\"", "a smaller unit"),
            ("\"1h30m\"", "one number and one unit"),
            ("\"\"", "units are"),
            ("\"-5s\"", "units are"),
            ("\"366d\"", "at most 365d"),
            ("\"99999999999999999999d\"", "at most 365d"),
            ("\"18446744073709551615h\"", "at most 365d"),
            ("true", "expected a duration"),
        ] {
            let refusal = refusal(text, duration);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
        let bounded = duration_in(Duration::from_secs(1)..=Duration::from_secs(60));
        assert!(refusal("\"1ms\"", &bounded).contains("at least 1s"));
        assert!(refusal("\"2m\"", &bounded).contains("at most 60s"));
    }

    /// Sizes are binary. MB is rejected with a suggestion, because it has two meanings.
    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("\"64KiB\"", 65_536),
            ("\"8MiB\"", 8_388_608),
            ("\"1GiB\"", 1_073_741_824),
            ("\"7B\"", 7),
            ("1500", 1_500),
        ] {
            assert_eq!(read(text, size), Ok(bytes), "{text}");
        }
        for (text, expected) in [
            ("\"8MB\"", "write \"8MiB\""),
            ("\"8 mb\"", "write \"8MiB\""),
            ("\"8\"", "write the unit"),
            ("\"lots\"", "units are"),
            ("\"99999999999999999999GiB\"", "too large"),
            ("-1", "expected a size"),
            ("8.5", "expected a size"),
        ] {
            let refusal = refusal(text, size);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
        let bounded = size_in(4096..=1 << 30);
        assert!(refusal("1", &bounded).contains("must be from 4KiB to 1GiB, found 1B"));
    }

    /// Durations in messages are shown as a person would write them, and can be read again.
    #[test]
    fn durations_are_shown_in_round_units() {
        for text in [
            "0s", "5us", "1500ms", "1s", "60s", "90s", "2m", "1h", "25h", "1d", "365d",
        ] {
            let duration = read(&format!("\"{text}\""), duration).expect(text);
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(show_duration(Duration::from_nanos(1_500)), "1us");
    }

    /// A rate includes its unit of time.
    #[test]
    fn rates() {
        let per = |count, seconds| {
            Ok(Rate {
                count,
                per: Duration::from_secs(seconds),
            })
        };
        assert_eq!(read("\"100/s\"", rate), per(100, 1));
        assert_eq!(read("\"1000/m\"", rate), per(1000, 60));
        assert_eq!(read("\"1/h\"", rate), per(1, 3600));
        for (text, expected) in [
            ("100", "write the unit of time: \"100/s\""),
            ("\"100\"", "/s, /m or /h"),
            ("\"0/s\"", "lets nothing through"),
            ("\"x/s\"", "is not a rate"),
            ("\"99999999999/s\"", "from 1 to"),
        ] {
            let refusal = refusal(text, rate);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// Sizes in messages are shown as a person would write them.
    #[test]
    fn sizes_are_shown_in_round_units() {
        assert_eq!(show_size(0), "0B");
        assert_eq!(show_size(1_500), "1500B");
        assert_eq!(show_size(8 << 20), "8MiB");
    }

    /// A fraction is less than one and more than zero.
    #[test]
    fn fractions() {
        let parser = fraction(1_000_000);
        assert_eq!(read("\"1/100\"", &parser), Ok((1, 100)));
        assert_eq!(
            read("\"999999/1000000\"", &parser),
            Ok((999_999, 1_000_000))
        );
        for (text, expected) in [
            ("\"1/1000001\"", "has a denominator above 1000000"),
            (
                "\"1/99999999999999999999\"",
                "has a denominator above 1000000",
            ),
            ("\"1/1\"", "leave the key out to take all datagrams"),
            ("\"2/1\"", "leave the key out to take all datagrams"),
            ("\"0/0\"", "takes no datagrams"),
            ("\"0/9\"", "leave the upstream out"),
            ("\"1/0\"", "less than 1"),
            ("\"1\"", "is not a share such as"),
            ("\"+1/9\"", "is not a share"),
            ("\"1/ 9\"", "is not a share"),
            ("\"1/2/3\"", "is not a share"),
            ("\"/\"", "is not a share"),
            ("0.01", "expected a share"),
        ] {
            let refusal = refusal(text, &parser);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// Only zero is accepted outside the bounds.
    #[test]
    fn durations_or_none() {
        let parser = duration_or_zero(Duration::from_secs(1)..=Duration::from_secs(60));
        assert_eq!(read("\"0s\"", &parser), Ok(Duration::ZERO));
        assert_eq!(read("\"0ms\"", &parser), Ok(Duration::ZERO));
        assert_eq!(read("\"1s\"", &parser), Ok(Duration::from_secs(1)));
        assert!(refusal("\"1ms\"", &parser).contains("at least 1s"));
        assert!(refusal("\"2m\"", &parser).contains("at most 60s"));
    }
}
