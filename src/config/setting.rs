//! The definition of one key of a table: its accepted values, its default and its meaning. The parser, the error texts,
//! the help, the JSON schema and the list of known keys are derived from it.
//!
//! A new setting is one definition, its entry in the table, and its use:
//!
//! ```
//! use std::time::Duration;
//!
//! use udispatch::prelude::*;
//!
//! const SECOND: Duration = Duration::from_secs(1);
//! const DAY: Duration = Duration::from_secs(86_400);
//!
//! const SESSION_IDLE: Setting<Duration> = Setting::duration("session_idle", SECOND..=DAY)
//!     .default(Duration::from_secs(60))
//!     .meaning("time without traffic after which a session ends");
//! const TTL: Setting<u8, Optional> = Setting::integer("ttl", 1..=255)
//!     .optional("received less one")
//!     .meaning("TTL or hop limit to send with");
//!
//! /// The settings of a `Kind`.
//! const SETTINGS: SettingTable = &[&SESSION_IDLE, &TTL];
//!
//! fn read(section: &mut Section<'_>) -> (Duration, Option<u8>) {
//!     (section.get(&SESSION_IDLE), section.find(&TTL))
//! }
//! ```

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::definition::{AnySetting, DefaultText, Form, WordList};
use super::diagnostics::Mistake;
use super::value::{self, Rate, Value, show_duration, show_size};

/// The definition of one key whose values are `T`. `D` defines what applies if the key is absent: [`Fixed`],
/// [`Capped`], [`Optional`] or [`Required`].
pub struct Setting<T: 'static, D = Fixed<T>> {
    /// The name of the key.
    pub key: &'static str,
    former_key: Option<&'static str>,
    form: Form,
    parser: Parser<T>,
    default: D,
    meaning: &'static str,
}

/// The definition of one key that holds a value or a list of values, each of them a `T`.
pub struct ListSetting<T: 'static, D> {
    /// The name of the key.
    pub key: &'static str,
    element: Setting<T, D>,
}

/// If the key is absent, this value applies.
#[derive(Debug, Clone, Copy)]
pub struct Fixed<T> {
    value: T,
    /// The value in the notation of the file; `None` if it is derived from the value.
    written: Option<&'static str>,
}

/// If the key is absent, this value applies, or the value of another key if that is less.
#[derive(Debug, Clone, Copy)]
pub struct Capped<T> {
    value: T,
    other_key: &'static str,
}

/// The key may be absent. The text describes what applies then.
#[derive(Debug, Clone, Copy)]
pub struct Optional {
    text: &'static str,
    /// Whether the text is a value in the notation of the file.
    is_value: bool,
}

/// The key must be present.
#[derive(Debug, Clone, Copy)]
pub struct Required;

/// The definition does not state yet what applies if the key is absent. Such a setting can neither be read nor be part
/// of a table.
#[derive(Debug, Clone, Copy)]
pub struct Undecided;

/// What applies if a key is absent, where the key may be absent.
pub trait MayBeAbsent {}

impl<T> MayBeAbsent for Fixed<T> {}

impl<T> MayBeAbsent for Capped<T> {}

impl MayBeAbsent for Optional {}

/// How a value is read, and how it is written in the notation of the file.
enum Parser<T: 'static> {
    /// Reads a value within the bounds of the form.
    Bounded {
        read: fn(&Form, Value<'_>) -> Result<T, Mistake>,
        write: fn(&T) -> String,
    },
    /// Reads one of these words.
    Words {
        words: &'static Meanings<T>,
        read: fn(&Meanings<T>, Value<'_>) -> Result<T, Mistake>,
        is_equal: fn(&T, &T) -> bool,
    },
    /// Reads a value that is described by the form. Such a value is not written.
    Custom(fn(Value<'_>) -> Result<T, Mistake>),
}

/// Words, each with its meaning.
type Meanings<T> = [(&'static str, T)];

/// A whole number that a setting can hold.
pub trait WholeNumber: Copy + Display + TryFrom<u64> + 'static {
    /// The largest number of this type.
    const MAX: u64;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl WholeNumber for $number {
            const MAX: u64 = <$number>::MAX as u64;
        })*
    };
}

numbers!(u8, u16, u32, u64, usize);

impl<T: WholeNumber> Setting<T, Undecided> {
    /// Begins the definition of a key that holds a whole number within `bounds`.
    ///
    /// # Panics
    ///
    /// Panics, at compile time in a constant, if `T` cannot hold the largest number.
    pub const fn integer(key: &'static str, bounds: RangeInclusive<u64>) -> Setting<T, Undecided> {
        assert!(*bounds.end() <= T::MAX, "the type cannot hold the numbers");
        let parser = Parser::Bounded {
            read: |form, value| {
                let bounds = form.bounds();
                let number = value::integer(bounds.clone())(value)?;
                T::try_from(number).map_err(|_| value.expected(&value::whole_number(&bounds)))
            },
            write: T::to_string,
        };
        begin(key, Form::integer(bounds), parser)
    }
}

impl Setting<usize, Undecided> {
    /// Begins the definition of a key that holds a size within `bounds`, in bytes.
    pub const fn size(key: &'static str, bounds: RangeInclusive<u64>) -> Setting<usize, Undecided> {
        let form = Form::Size {
            min: *bounds.start(),
            max: *bounds.end(),
        };
        let parser = Parser::Bounded {
            read: |form, value| {
                let bytes = value::size_in(form.bounds())(value)?;
                let too_large = |_| Mistake::new("is too large for this machine");
                usize::try_from(bytes).map_err(too_large)
            },
            write: |bytes| format!("\"{}\"", show_size(*bytes as u64)),
        };
        begin(key, form, parser)
    }
}

impl Setting<Duration, Undecided> {
    /// Begins the definition of a key that holds a duration within `bounds`.
    pub const fn duration(
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Setting<Duration, Undecided> {
        let parser = Parser::Bounded {
            read: |form, value| value::duration_in(form.duration_bounds())(value),
            write: write_duration,
        };
        begin(key, Form::duration(bounds), parser)
    }

    /// Begins the definition of a key that holds zero (`"0s"`) or a duration within `bounds`.
    pub const fn duration_or_zero(
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Setting<Duration, Undecided> {
        let form = Form::DurationOrZero {
            min: *bounds.start(),
            max: *bounds.end(),
        };
        let parser = Parser::Bounded {
            read: |form, value| value::duration_or_zero(form.duration_bounds())(value),
            write: write_duration,
        };
        begin(key, form, parser)
    }
}

impl Setting<bool, Undecided> {
    /// Begins the definition of a key that holds `true` or `false`.
    pub const fn boolean(key: &'static str) -> Setting<bool, Undecided> {
        let parser = Parser::Bounded {
            read: |_, value| value::boolean(value),
            write: bool::to_string,
        };
        begin(key, Form::Boolean, parser)
    }
}

impl Setting<Rate, Undecided> {
    /// Begins the definition of a key that holds a rate.
    pub const fn rate(key: &'static str) -> Setting<Rate, Undecided> {
        begin(key, Form::Rate, Parser::Custom(value::rate))
    }
}

impl<T: Clone + PartialEq + Sync> Setting<T, Undecided> {
    /// Begins the definition of a key that holds one of a few words, each with its meaning.
    pub const fn choice<const N: usize>(
        key: &'static str,
        words: &'static [(&'static str, T); N],
    ) -> Setting<T, Undecided> {
        let list: &'static dyn WordList = words;
        let parser = Parser::Words {
            words,
            read: |words, value| value::choice(words)(value),
            is_equal: T::eq,
        };
        begin(key, Form::Choice(list), parser)
    }
}

impl<T> Setting<T, Undecided> {
    /// Begins the definition of a key with a parser of its own. `form` describes what the parser accepts.
    pub const fn custom(
        key: &'static str,
        form: Form,
        parser: fn(Value<'_>) -> Result<T, Mistake>,
    ) -> Setting<T, Undecided> {
        begin(key, form, Parser::Custom(parser))
    }

    /// Sets the value that applies if the key is absent. A setting with a parser of its own needs
    /// [`Setting::default_as`] instead.
    pub const fn default(self, value: T) -> Setting<T, Fixed<T>>
    where
        T: Copy,
    {
        let written = None;
        self.decide(Fixed { value, written })
    }

    /// Sets the value that applies if the key is absent. The file would write it as `written`.
    pub const fn default_as(self, value: T, written: &'static str) -> Setting<T, Fixed<T>>
    where
        T: Copy,
    {
        let written = Some(written);
        self.decide(Fixed { value, written })
    }

    /// Sets the value that applies if the key is absent. The value of `other_key` applies instead if it is less.
    pub const fn capped(self, value: T, other_key: &'static str) -> Setting<T, Capped<T>>
    where
        T: Copy,
    {
        self.decide(Capped { value, other_key })
    }

    /// Permits the key to be absent. `words` describe what applies then.
    pub const fn optional(self, words: &'static str) -> Setting<T, Optional> {
        self.decide(Optional {
            text: words,
            is_value: false,
        })
    }

    /// Permits the key to be absent. This has the same effect as the value that the file would write as `written`.
    pub const fn optional_as(self, written: &'static str) -> Setting<T, Optional> {
        self.decide(Optional {
            text: written,
            is_value: true,
        })
    }

    /// Requires the key to be present.
    pub const fn required(self) -> Setting<T, Required> {
        self.decide(Required)
    }

    const fn decide<D: Copy>(self, default: D) -> Setting<T, D> {
        Setting {
            key: self.key,
            former_key: self.former_key,
            form: self.form,
            parser: self.parser,
            default,
            meaning: self.meaning,
        }
    }
}

impl<T, D: Copy> Setting<T, D> {
    /// Sets the description of the key, in one line.
    pub const fn meaning(self, meaning: &'static str) -> Setting<T, D> {
        Setting { meaning, ..self }
    }

    /// Permits files to use the former name of the key.
    pub const fn formerly(self, former_key: &'static str) -> Setting<T, D> {
        Setting {
            former_key: Some(former_key),
            ..self
        }
    }

    /// Makes the key accept a list of values as well as a single one.
    pub const fn list(self) -> ListSetting<T, D> {
        ListSetting {
            key: self.key,
            element: self,
        }
    }
}

impl<T, D> Setting<T, D> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// Returns a mistake if the key does not accept the value.
    pub(super) fn parse(&self, value: Value<'_>) -> Result<T, Mistake> {
        match &self.parser {
            Parser::Bounded { read, .. } => read(&self.form, value),
            Parser::Words { words, read, .. } => read(words, value),
            Parser::Custom(read) => read(value),
        }
    }

    /// Returns a value in the notation of the file; empty for a setting with a parser of its own.
    fn write(&self, value: &T) -> String {
        match &self.parser {
            Parser::Bounded { write, .. } => write(value),
            Parser::Words {
                words, is_equal, ..
            } => {
                let mut words = words.iter().filter(|(_, meaning)| is_equal(meaning, value));
                let word = words.next().map(|(word, _)| format!("\"{word}\""));
                word.unwrap_or_default()
            }
            Parser::Custom(_) => String::new(),
        }
    }
}

impl<T: Copy> Setting<T, Fixed<T>> {
    /// Returns the value that applies if the key is absent.
    pub const fn default_value(&self) -> T {
        self.default.value
    }
}

impl<T: Copy + Ord> Setting<T, Capped<T>> {
    /// Returns the value that applies if the key is absent and the other key has the value `other`.
    pub(super) fn default_value(&self, other: T) -> T {
        self.default.value.min(other)
    }
}

const fn begin<T>(key: &'static str, form: Form, parser: Parser<T>) -> Setting<T, Undecided> {
    Setting {
        key,
        former_key: None,
        form,
        parser,
        default: Undecided,
        meaning: "",
    }
}

fn write_duration(duration: &Duration) -> String {
    format!("\"{}\"", show_duration(*duration))
}

impl<T, D> ListSetting<T, D> {
    /// Returns the definition of a single value, with which an element of the list is read.
    pub const fn element(&self) -> &Setting<T, D> {
        &self.element
    }
}

/// What applies if a key is absent, as text.
trait Absence<T> {
    fn text(&self, write: impl Fn(&T) -> String) -> DefaultText;
}

impl<T> Absence<T> for Fixed<T> {
    fn text(&self, write: impl Fn(&T) -> String) -> DefaultText {
        let written = self.written.map(str::to_owned);
        DefaultText::Value(written.unwrap_or_else(|| write(&self.value)))
    }
}

impl<T> Absence<T> for Capped<T> {
    fn text(&self, write: impl Fn(&T) -> String) -> DefaultText {
        let value = write(&self.value);
        DefaultText::Words(format!("{value}, or {} if that is less", self.other_key))
    }
}

impl<T> Absence<T> for Optional {
    fn text(&self, _: impl Fn(&T) -> String) -> DefaultText {
        let text = self.text.to_owned();
        if self.is_value {
            DefaultText::Value(text)
        } else {
            DefaultText::Words(text)
        }
    }
}

impl<T> Absence<T> for Required {
    fn text(&self, _: impl Fn(&T) -> String) -> DefaultText {
        DefaultText::Required
    }
}

impl<T: Sync, D: Absence<T> + Sync> AnySetting for Setting<T, D> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn former_key(&self) -> Option<&'static str> {
        self.former_key
    }

    fn form(&self) -> &Form {
        &self.form
    }

    fn default_text(&self) -> DefaultText {
        self.default.text(|value| self.write(value))
    }

    fn meaning(&self) -> &'static str {
        self.meaning
    }

    fn accepts(&self, text: &str) -> Result<(), Mistake> {
        value::read(text, |value| self.parse(value)).map(|_| ())
    }
}

impl<T: Sync, D: Absence<T> + Sync> AnySetting for ListSetting<T, D> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn former_key(&self) -> Option<&'static str> {
        self.element.former_key()
    }

    fn form(&self) -> &Form {
        self.element.form()
    }

    fn is_list(&self) -> bool {
        true
    }

    fn default_text(&self) -> DefaultText {
        self.element.default_text()
    }

    fn meaning(&self) -> &'static str {
        self.element.meaning
    }

    fn accepts(&self, text: &str) -> Result<(), Mistake> {
        self.element.accepts(text)
    }
}

#[cfg(test)]
mod tests;
