//! The definition of a key without the type of its values: what the help, the JSON schema and the list of known keys
//! are derived from. `setting.rs` adds the type and the parser.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostics::{Mistake, listed};
use super::value::{show_duration, show_size};

/// The definition of one key of a table, without the type of its values.
pub trait AnySetting: Sync {
    /// Returns the name of the key.
    fn key(&self) -> &'static str;

    /// Returns the former name of the key, which files may still use; `None` if it was never renamed.
    fn former_key(&self) -> Option<&'static str>;

    /// Returns the accepted values. For a list, these are the values of one element.
    fn form(&self) -> &Form;

    /// Returns whether the key accepts a list of values as well as a single one.
    fn is_list(&self) -> bool {
        false
    }

    /// Returns what applies if the key is absent.
    fn default_text(&self) -> DefaultText;

    /// Returns the meaning of the key, in one line.
    fn meaning(&self) -> &'static str;

    /// Checks a value in the notation of the file, such as `"60s"`. For a list, the value is one element. Tables are
    /// read elsewhere and cannot be checked.
    ///
    /// # Errors
    ///
    /// Returns a mistake if the key does not accept the value.
    fn accepts(&self, text: &str) -> Result<(), Mistake>;
}

impl dyn AnySetting + '_ {
    /// Returns whether the table must have this key.
    pub fn is_required(&self) -> bool {
        self.default_text() == DefaultText::Required
    }

    /// Returns the accepted values, in words.
    pub fn values(&self) -> String {
        if self.is_list() {
            format!("{}; or a list", self.form().words())
        } else {
            self.form().words()
        }
    }

    /// Returns the keys of the table that the key accepts; empty if it accepts none.
    pub fn inner(&self) -> SettingTable {
        self.form().table().unwrap_or_default()
    }
}

/// The definitions of all keys of a table, in the order in which the help presents them.
pub type SettingTable = &'static [&'static dyn AnySetting];

/// What applies if a key is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultText {
    /// Nothing: the table must have the key.
    Required,
    /// A value, in the notation of the file.
    Value(String),
    /// A description in words of what applies; may be empty.
    Words(String),
}

/// A list of words that a key accepts.
pub trait WordList: Sync {
    /// Returns the words in the order in which the help presents them.
    fn words(&self) -> Vec<&'static str>;
}

impl<const N: usize> WordList for [&'static str; N] {
    fn words(&self) -> Vec<&'static str> {
        self.to_vec()
    }
}

impl<T: Sync, const N: usize> WordList for [(&'static str, T); N] {
    fn words(&self) -> Vec<&'static str> {
        self.iter().map(|(word, _)| *word).collect()
    }
}

/// The accepted values of a key.
#[derive(Clone, Copy)]
pub enum Form {
    /// Text of the described kind, such as `path`.
    Text(&'static str),
    /// `true` or `false`.
    Boolean,
    /// The value `false`, where other forms describe the values that switch the feature on.
    False,
    /// A whole number within bounds.
    Integer {
        /// The smallest number.
        min: u64,
        /// The largest number.
        max: u64,
    },
    /// A duration with its unit.
    Duration {
        /// The shortest duration.
        min: Duration,
        /// The longest duration.
        max: Duration,
    },
    /// A duration with its unit, or `"0s"` to switch the feature off.
    DurationOrZero {
        /// The shortest duration other than zero.
        min: Duration,
        /// The longest duration.
        max: Duration,
    },
    /// A size.
    Size {
        /// The smallest size in bytes.
        min: u64,
        /// The largest size in bytes.
        max: u64,
    },
    /// A count per unit of time.
    Rate,
    /// One of these words.
    Choice(&'static dyn WordList),
    /// A table with these keys.
    Table(SettingTable),
    /// A table with arbitrary keys.
    Map {
        /// The description of the keys, such as `prefix`.
        key: &'static str,
        /// The accepted values of each key.
        value: &'static Form,
    },
    /// A value of any of these forms.
    OneOf(&'static [Form]),
}

impl Form {
    /// Returns the form of durations within `bounds`.
    pub const fn duration(bounds: RangeInclusive<Duration>) -> Form {
        Form::Duration {
            min: *bounds.start(),
            max: *bounds.end(),
        }
    }

    /// Returns the form of whole numbers within `bounds`.
    pub const fn integer(bounds: RangeInclusive<u64>) -> Form {
        Form::Integer {
            min: *bounds.start(),
            max: *bounds.end(),
        }
    }

    /// Returns the form in words.
    pub fn words(&self) -> String {
        match self {
            Form::Text(what) => (*what).to_owned(),
            Form::Boolean => "true or false".to_owned(),
            Form::False => "false".to_owned(),
            Form::Integer { min, max } => format!("{min} to {max}"),
            Form::Duration { min, max } => {
                format!(
                    "duration, \"{}\" to \"{}\"",
                    show_duration(*min),
                    show_duration(*max)
                )
            }
            Form::DurationOrZero { min, max } => {
                format!("\"0s\" or {}", Form::duration(*min..=*max).words())
            }
            Form::Size { min, max } => {
                format!("size, \"{}\" to \"{}\"", show_size(*min), show_size(*max))
            }
            Form::Rate => "rate such as \"100/s\"".to_owned(),
            Form::Choice(list) => {
                let words = list.words().into_iter().map(|word| format!("\"{word}\""));
                let words: Vec<String> = words.collect();
                listed(words.iter().map(String::as_str), "or")
            }
            Form::Table(_) => "a table".to_owned(),
            Form::Map { key, value } => format!("a table of {key} = {}", value.words()),
            Form::OneOf(forms) => {
                let forms: Vec<String> = forms.iter().map(Form::words).collect();
                forms.join(" or ")
            }
        }
    }

    /// Returns the bounds of a number or of a size; all numbers for other forms.
    pub(super) fn bounds(&self) -> RangeInclusive<u64> {
        match self {
            Form::Integer { min, max } | Form::Size { min, max } => *min..=*max,
            _ => 0..=u64::MAX,
        }
    }

    /// Returns the bounds of a duration, without the zero that switches the feature off; all durations for other
    /// forms.
    pub(super) fn duration_bounds(&self) -> RangeInclusive<Duration> {
        match self {
            Form::Duration { min, max } | Form::DurationOrZero { min, max } => *min..=*max,
            _ => Duration::ZERO..=Duration::MAX,
        }
    }

    fn table(&self) -> Option<SettingTable> {
        match self {
            Form::Table(settings) => Some(settings),
            Form::OneOf(forms) => forms.iter().find_map(Form::table),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form is described in words that a person would use.
    #[test]
    fn forms_in_words() {
        for (form, words) in [
            (Form::Text("path"), "path"),
            (Form::Boolean, "true or false"),
            (Form::integer(1..=255), "1 to 255"),
            (
                Form::duration(Duration::from_secs(1)..=Duration::from_secs(86_400)),
                "duration, \"1s\" to \"1d\"",
            ),
            (
                Form::DurationOrZero {
                    min: Duration::from_millis(100),
                    max: Duration::from_secs(60),
                },
                "\"0s\" or duration, \"100ms\" to \"60s\"",
            ),
            (
                Form::Size {
                    min: 1 << 10,
                    max: 1 << 30,
                },
                "size, \"1KiB\" to \"1GiB\"",
            ),
            (Form::Rate, "rate such as \"100/s\""),
            (
                Form::Choice(&["all", "any", "one"]),
                "\"all\", \"any\" or \"one\"",
            ),
            (
                Form::Choice(&[("all", 1), ("any", 2)]),
                "\"all\" or \"any\"",
            ),
            (Form::Table(&[]), "a table"),
            (
                Form::OneOf(&[Form::Text("path"), Form::False]),
                "path or false",
            ),
            (
                Form::Map {
                    key: "\"PREFIX\"",
                    value: &Form::Rate,
                },
                "a table of \"PREFIX\" = rate such as \"100/s\"",
            ),
        ] {
            assert_eq!(form.words(), words);
        }
    }
}
