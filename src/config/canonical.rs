//! Writes a TOML table in canonical form: keys are sorted, tables are inline, and comments and white space are
//! removed. Two tables of equal meaning have equal canonical text, so the running file and a new one are compared by
//! it. The text is valid TOML and can be parsed again.

use std::fmt::Write;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// Returns the keys of a table and their values in canonical form, one key a line.
pub fn text(table: &DeTable<'_>) -> String {
    let lines: Vec<String> = pairs(table);
    lines.join("\n")
}

fn pairs(table: &DeTable<'_>) -> Vec<String> {
    let mut entries: Vec<(&str, &Spanned<DeValue<'_>>)> = table
        .iter()
        .map(|(key, value)| (key.get_ref().as_ref(), value))
        .collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
        .into_iter()
        .map(|(key, value)| format!("{} = {}", show_key(key), show(value.get_ref())))
        .collect()
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => show_string(text),
        DeValue::Integer(integer) => show_integer(integer),
        DeValue::Float(float) => show_float(float.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => {
            let elements: Vec<String> =
                list.iter().map(|element| show(element.get_ref())).collect();
            format!("[{}]", elements.join(", "))
        }
        DeValue::Table(table) if table.is_empty() => "{}".to_owned(),
        DeValue::Table(table) => format!("{{ {} }}", pairs(table).join(", ")),
    }
}

/// Writes a key: bare where TOML allows it, otherwise between quotes.
fn show_key(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(is_bare) {
        key.to_owned()
    } else {
        show_string(key)
    }
}

/// Writes a basic string. TOML requires quotes, backslashes and control characters to be escaped.
fn show_string(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('"');
    for char in text.chars() {
        match char {
            '"' => shown.push_str("\\\""),
            '\\' => shown.push_str("\\\\"),
            char if char.is_control() => {
                // Writing to a String cannot fail. No control character needs more than four digits.
                let _ = write!(shown, "\\u{:04x}", u32::from(char));
            }
            char => shown.push(char),
        }
    }
    shown.push('"');
    shown
}

/// Writes an integer in decimal digits. An integer that does not fit `i128` keeps its written form.
fn show_integer(integer: &DeInteger<'_>) -> String {
    match i128::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) => number.to_string(),
        Err(_) => integer.to_string(),
    }
}

/// Writes the shortest digits that parse to the same number, with the point that makes it a float.
fn show_float(written: &str) -> String {
    match written.parse::<f64>() {
        Ok(number) if number.is_nan() => "nan".to_owned(),
        Ok(number) if number.is_finite() || written.contains("inf") => format!("{number:?}"),
        _ => written.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn canonical(document: &str) -> String {
        text(
            DeTable::parse(document)
                .unwrap_or_else(|error| panic!("{document}\n{error}"))
                .get_ref(),
        )
    }

    /// Returns the meaning of a table as JSON, without spans and without the notation that the file used.
    fn meaning(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => json!(text),
            DeValue::Integer(integer) => {
                let number = i128::from_str_radix(integer.as_str(), integer.radix());
                json!({ "integer": number.map_or(integer.to_string(), |number| number.to_string()) })
            }
            DeValue::Float(float) => {
                json!({ "float": float.as_str().parse::<f64>().expect("a number").to_string() })
            }
            DeValue::Boolean(value) => json!(value),
            DeValue::Datetime(time) => json!({ "time": time.to_string() }),
            DeValue::Array(list) => list.iter().map(|value| meaning(value.get_ref())).collect(),
            DeValue::Table(table) => table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), meaning(value.get_ref())))
                .collect(),
        }
    }

    fn meaning_of(document: &str) -> Value {
        let table = DeTable::parse(document).unwrap_or_else(|error| panic!("{document}\n{error}"));
        meaning(&DeValue::Table(table.into_inner()))
    }

    /// Order, comments, kinds of quotes, radix and inline tables do not change the text. Different values do.
    #[test]
    fn equal_meaning_has_equal_text() {
        let one = "b = 0x1F # why\na = 'x\\y'\n[to]\nport = 1_000\nfar.away = true\n";
        let other = "\na = \"x\\\\y\"\nto = { far = { away = true },   port = 1000 }\nb = 31";
        assert_eq!(canonical(one), canonical(other));
        assert_eq!(
            canonical(one),
            "a = \"x\\\\y\"\nb = 31\nto = { far = { away = true }, port = 1000 }"
        );
        assert_ne!(canonical(one), canonical(&other.replace("31", "32")));
        assert_ne!(
            canonical("a = 1"),
            canonical("a = 1.0"),
            "a value of another type has another meaning"
        );
        assert_eq!(
            canonical("f = [1.50, -inf, +nan, 1e3]"),
            "f = [1.5, -inf, nan, 1000.0]"
        );
        assert_eq!(
            canonical("\"a b\" = \"\\u007F\\e\""),
            "\"a b\" = \"\\u007f\\u001b\""
        );
        assert_eq!(canonical(""), "");
    }

    fn value() -> impl Strategy<Value = String> {
        let string = any::<String>().prop_map(|text| show_string(&text));
        let leaf = prop_oneof![
            string,
            any::<i64>().prop_map(|number| number.to_string()),
            any::<u32>().prop_map(|number| format!("0x{number:X}")),
            any::<f64>().prop_map(|number| if number.is_nan() {
                "nan".to_owned()
            } else {
                format!("{number:?}")
            }),
            any::<bool>().prop_map(|value| value.to_string()),
            Just("1979-05-27T07:32:00Z".to_owned()),
            Just("99999999999999999999999999999999999999999999".to_owned()),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let pairs = prop::collection::btree_map(any::<String>(), inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6)
                    .prop_map(|list| format!("[ {} ]", list.join(" ,"))),
                pairs.prop_map(|pairs| {
                    let pairs: Vec<_> = pairs
                        .iter()
                        .map(|(key, value)| format!("{}={value}", show_string(key)))
                        .collect();
                    format!("{{{}}}", pairs.join(","))
                }),
            ]
        })
    }

    proptest! {
        /// Canonical text parses to the meaning of the document that it was made from, and its own canonical text is
        /// equal to it.
        #[test]
        fn canonical_text_parses_again(keys in prop::collection::btree_map(any::<String>(), value(), 0..6)) {
            let lines = keys.iter().map(|(key, value)| format!("{} = {value}\n", show_string(key)));
            let document: String = lines.collect();
            let shown = canonical(&document);
            prop_assert_eq!(meaning_of(&shown), meaning_of(&document));
            prop_assert_eq!(canonical(&shown), shown);
        }
    }
}
