//! Parsers for the values of keys. Each takes a [`Value`] and returns its meaning or a [`Mistake`]. None names its
//! own key; the section does.
//!
//! A parser with bounds or words is made by a function: `integer(1..=64)`. Quantities with units are in
//! `quantity.rs`, addresses in `address.rs`, and bytes in `bytes.rs`. Properties of sent datagrams are in
//! `egress.rs`, and the addresses of the daemon itself in `control.rs`.

mod address;
mod bytes;
mod control;
mod egress;
mod quantity;

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use self::address::{interface_name, is_v4, source_of};
pub use self::address::{ip_address, prefix, socket_address, upstream};
pub use self::bytes::hex;
pub use self::control::{host_header, http_address, socket_name, socket_path};
pub use self::egress::{DSCP, DSCP_MAX, dscp, interface, send_from};
pub use self::quantity::{
    Rate, duration, duration_in, duration_or_zero, fraction, rate, show_duration, show_size, size,
    size_in,
};
use super::diagnostics::{Mistake, did_you_mean, listed, quoted};
use super::source::Placed;

/// One value of the file, such as a string, a number, a list or a table.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a>(&'a Spanned<DeValue<'a>>);

impl<'a> Value<'a> {
    pub(super) fn new(value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value(value)
    }

    /// Returns the byte range of the file that holds the value.
    pub fn at(&self) -> Range<usize> {
        self.0.span()
    }

    /// Returns whether the value is a table, inline or not. [`Section::table`](super::section::Section::table) reads
    /// it.
    pub fn is_table(&self) -> bool {
        self.0.get_ref().is_table()
    }

    pub(super) fn inner(&self) -> &'a DeValue<'a> {
        self.0.get_ref()
    }

    /// Returns the text of the value. `accepted` describes the accepted values, such as `a size such as "8MiB"`.
    ///
    /// # Errors
    ///
    /// Returns a mistake with `accepted` if the value is not text.
    pub fn text(&self, accepted: &str) -> Result<&'a str, Mistake> {
        match self.inner() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.expected(accepted)),
        }
    }

    /// Returns the number that the value holds. `accepted` describes the accepted values.
    ///
    /// # Errors
    ///
    /// Returns a mistake with `accepted` if the value is not an integer or does not fit `i128`.
    pub fn number(&self, accepted: &str) -> Result<i128, Mistake> {
        match self.inner() {
            DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
                .map_err(|_| self.expected(accepted)),
            _ => Err(self.expected(accepted)),
        }
    }

    /// Returns the mistake that the value is not an accepted one. `accepted` describes the accepted values.
    pub fn expected(&self, accepted: &str) -> Mistake {
        let found = match self.inner() {
            DeValue::String(text) => format!("the text {}", quoted(text)),
            DeValue::Integer(integer) => format!("the number {}", shortened(integer.as_str())),
            DeValue::Float(float) => format!("the number {}", shortened(float.as_str())),
            DeValue::Boolean(value) => format!("`{value}`"),
            DeValue::Datetime(_) => "a date or time".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        Mistake::new(format!("expected {accepted}, found {found}"))
    }
}

fn shortened(number: &str) -> String {
    match number.get(..40) {
        Some(start) if start.len() < number.len() => format!("{start}…"),
        _ => number.to_owned(),
    }
}

/// Reads any text.
///
/// # Errors
///
/// Returns a mistake if the value is not text.
pub fn string(value: Value<'_>) -> Result<String, Mistake> {
    value.text("text between quotes").map(str::to_owned)
}

/// Reads text that is not empty.
///
/// # Errors
///
/// Returns a mistake if the value is not text or is empty.
pub fn nonempty_string(value: Value<'_>) -> Result<String, Mistake> {
    match string(value)? {
        text if text.is_empty() => Err(Mistake::new("is empty")),
        text => Ok(text),
    }
}

/// Reads the name of a file. A relative name is to be joined to
/// [`Section::base_dir`](super::section::Section::base_dir).
///
/// # Errors
///
/// Returns a mistake if the value is not text, is empty, or contains NUL.
pub fn path(value: Value<'_>) -> Result<PathBuf, Mistake> {
    let text = value.text("the name of a file between quotes")?;
    match text {
        "" => Err(Mistake::new("the name of the file is empty")),
        _ if text.contains('\0') => Err(Mistake::new("the name of a file cannot contain NUL")),
        _ => Ok(PathBuf::from(text)),
    }
}

/// Reads `true` or `false`.
///
/// # Errors
///
/// Returns a mistake if the value is not a boolean.
pub fn boolean(value: Value<'_>) -> Result<bool, Mistake> {
    match value.inner() {
        DeValue::Boolean(value) => Ok(*value),
        DeValue::String(text) => {
            let hint = match text.to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some("write true, without quotes".to_owned()),
                "false" | "no" | "off" | "0" => Some("write false, without quotes".to_owned()),
                _ => None,
            };
            Err(value.expected("true or false").maybe_hint(hint))
        }
        _ => Err(value.expected("true or false")),
    }
}

/// Returns the description of a whole number within `bounds`, for [`Value::expected`].
pub(super) fn whole_number<T: Display>(bounds: &RangeInclusive<T>) -> String {
    format!("a whole number from {} to {}", bounds.start(), bounds.end())
}

/// Returns a parser for a whole number within `bounds`.
///
/// # Errors
///
/// The parser returns a mistake if the value is not an integer or is out of bounds.
pub fn integer<T>(bounds: RangeInclusive<T>) -> impl Fn(Value<'_>) -> Result<T, Mistake>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let accepted = whole_number(&bounds);
        let number = value.number(&accepted).map_err(|mistake| {
            let text = value.text("").unwrap_or_default();
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            mistake.maybe_hint(is_number.then(|| "write it without quotes".to_owned()))
        })?;
        match T::try_from(number) {
            Ok(number) if bounds.contains(&number) => Ok(number),
            _ => Err(value.expected(&accepted)),
        }
    }
}

/// Returns a parser for one of a few words, each with its meaning.
///
/// # Errors
///
/// The parser returns a mistake if the value is not text or is none of the words.
pub fn choice<T: Clone>(words: &[(&str, T)]) -> impl Fn(Value<'_>) -> Result<T, Mistake> {
    move |value| {
        let names = words.iter().map(|(name, _)| *name);
        let accepted = listed(words.iter().map(|(name, _)| *name), "or");
        let text = value.text(&accepted)?;
        match words.iter().find(|(name, _)| *name == text) {
            Some((_, meaning)) => Ok(meaning.clone()),
            None => Err(value
                .expected(&accepted)
                .maybe_hint(did_you_mean(text, names))),
        }
    }
}

/// Returns a parser for text that `T` can be parsed from. `accepted` describes the accepted values, such as `a
/// destination such as ...`.
///
/// # Errors
///
/// The parser returns a mistake if the value is not text, or the mistake that `T` returns.
pub fn parsed<T>(accepted: &str) -> impl Fn(Value<'_>) -> Result<T, Mistake>
where
    T: FromStr<Err = Mistake>,
{
    move |value| value.text(accepted)?.parse()
}

/// Returns a parser that adds the place in the file to what `parser` reads, for later messages.
///
/// # Errors
///
/// The parser returns the mistakes of `parser`.
pub fn placed<T>(
    parser: impl Fn(Value<'_>) -> Result<T, Mistake>,
) -> impl Fn(Value<'_>) -> Result<Placed<T>, Mistake> {
    move |value| {
        let at = value.at();
        parser(value).map(|value| Placed { value, at })
    }
}

/// Reads `text` as the value of a key, in the notation of the file.
///
/// # Errors
///
/// Returns a mistake if `text` is not one TOML value, or the mistake of `parser`.
pub(super) fn read<T>(
    text: &str,
    parser: impl Fn(Value<'_>) -> Result<T, Mistake>,
) -> Result<T, Mistake> {
    let document = format!("key = {text}\n");
    let table = DeTable::parse(&document).map_err(|error| Mistake::new(error.message()))?;
    let mut values = table.get_ref().iter().map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => parser(Value::new(value)),
        _ => Err(Mistake::new("is not one value")),
    }
}

/// Returns the message and the hint for a text that `parser` must reject.
///
/// # Panics
///
/// Panics if `parser` accepts `text`.
#[cfg(test)]
pub(super) fn refusal<T: std::fmt::Debug>(
    text: &str,
    parser: impl Fn(Value<'_>) -> Result<T, Mistake>,
) -> String {
    let mistake = read(text, parser).expect_err(text);
    format!("{} / {}", mistake.message, mistake.hint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of the wrong type is reported with what was found, for every type of TOML.
    #[test]
    fn wrong_types_are_named() {
        for (text, found) in [
            ("\"x\"", "the text \"x\""),
            ("3", "the number 3"),
            ("nan", "the number nan"),
            ("-inf", "the number -inf"),
            (
                "99999999999999999999999999999999999999999999999",
                "the number 9999",
            ),
            ("1979-05-27", "a date or time"),
            ("[1]", "a list"),
            ("{a = 1}", "a table"),
        ] {
            let refusal = refusal(text, boolean);
            assert!(refusal.contains("expected true or false"), "{refusal}");
            assert!(refusal.contains(found), "{refusal}");
        }
        assert_eq!(read("true", boolean), Ok(true));
        assert!(refusal("\"yes\"", boolean).ends_with("write true, without quotes"));
    }

    /// Bounds hold at both ends, and for numbers that no machine type holds.
    #[test]
    fn integers_have_bounds() {
        let parser = integer(1..=64_u8);
        assert_eq!(read("1", &parser), Ok(1));
        assert_eq!(read("0x40", &parser), Ok(64));
        assert_eq!(read("1_0", &parser), Ok(10));
        for text in [
            "0",
            "65",
            "-1",
            "256",
            "1.0",
            "9223372036854775808",
            &"9".repeat(500),
        ] {
            let refusal = refusal(text, &parser);
            assert!(refusal.contains("a whole number from 1 to 64"), "{refusal}");
        }
        assert!(refusal("\"8\"", &parser).ends_with("write it without quotes"));
    }

    /// A misspelt word is reported with the list and the likely one.
    #[test]
    fn choices_suggest() {
        let parser = choice(&[("all", 1), ("round_robin", 2), ("random", 3)]);
        assert_eq!(read("\"random\"", &parser), Ok(3));
        let refusal = refusal("\"round-robin\"", &parser);
        assert!(
            refusal.contains("expected all, round_robin or random"),
            "{refusal}"
        );
        assert!(
            refusal.ends_with("did you mean \"round_robin\"?"),
            "{refusal}"
        );
    }

    /// Texts and file names are read as they are written.
    #[test]
    fn texts() {
        assert_eq!(read("\"\"", string), Ok(String::new()));
        assert!(read("\"\"", nonempty_string).is_err());
        assert_eq!(read("'tape'", path), Ok(PathBuf::from("tape")));
        assert!(refusal("\"a\\u0000\"", path).contains("NUL"));
    }
}
