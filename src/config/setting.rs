//! The definition of each key: its accepted values, its default and its meaning. The help, the JSON schema and the
//! list of known keys are derived from it. The parsers are in `value/`; tests/it/schema.rs checks that both agree.

use super::diagnostics::listed;

/// The definition of one key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name of the key.
    pub key: &'static str,
    /// The accepted values.
    pub form: Form,
    /// The value that applies when the key is absent, in the notation of the file or in words; `required` if there is
    /// no default.
    pub default: &'static str,
    /// The meaning of the key, in one line.
    pub meaning: &'static str,
}

/// The accepted values of a key.
#[derive(Debug, Clone, Copy)]
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
        /// The shortest duration, in the notation of the file.
        min: &'static str,
        /// The longest duration, in the notation of the file.
        max: &'static str,
    },
    /// A number of bytes.
    Size {
        /// The smallest size, in the notation of the file.
        min: &'static str,
        /// The largest size, in the notation of the file.
        max: &'static str,
    },
    /// A count per unit of time.
    Rate,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A table with these keys.
    Table(&'static [Setting]),
    /// A table with arbitrary keys.
    Map {
        /// The description of the keys, such as `prefix`.
        key: &'static str,
        /// The accepted values of each key.
        value: &'static Form,
    },
    /// One value of this form, or a list of them.
    List(&'static Form),
    /// A value of any of these forms.
    OneOf(&'static [Form]),
}

impl Setting {
    /// Returns whether the table must have this key.
    pub fn is_required(&self) -> bool {
        self.default == "required"
    }

    /// Returns the accepted values, in words.
    pub fn values(&self) -> String {
        self.form.words()
    }

    /// Returns the keys of the table that the form accepts; empty if it accepts none.
    pub fn inner(&self) -> &'static [Setting] {
        self.form.table().unwrap_or_default()
    }
}

impl Form {
    /// Returns the form in words.
    pub fn words(&self) -> String {
        match self {
            Form::Text(what) => (*what).to_owned(),
            Form::Boolean => "true or false".to_owned(),
            Form::False => "false".to_owned(),
            Form::Integer { min, max } => format!("{min} to {max}"),
            Form::Duration { min, max } => format!("duration, \"{min}\" to \"{max}\""),
            Form::Size { min, max } => format!("size, \"{min}\" to \"{max}\""),
            Form::Rate => "rate such as \"100/s\"".to_owned(),
            Form::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                listed(words.iter().map(String::as_str), "or")
            }
            Form::Table(_) => "a table".to_owned(),
            Form::Map { key, value } => format!("a table of {key} = {}", value.words()),
            Form::List(form) => format!("{}; or a list", form.words()),
            Form::OneOf(forms) => {
                let forms: Vec<String> = forms.iter().map(Form::words).collect();
                forms.join(" or ")
            }
        }
    }

    fn table(&self) -> Option<&'static [Setting]> {
        match self {
            Form::Table(settings) => Some(settings),
            Form::List(form) => form.table(),
            Form::OneOf(forms) => forms.iter().find_map(Form::table),
            _ => None,
        }
    }
}

/// Returns the keys of a list of settings, for use in a constant.
pub const fn keys<const N: usize>(settings: &[Setting; N]) -> [&'static str; N] {
    let mut keys = [""; N];
    let mut index = 0;
    while index < N {
        keys[index] = settings[index].key;
        index += 1;
    }
    keys
}

/// Returns the words of a list that [`choice`](super::value::choice) accepts, for [`Form::Choice`].
pub const fn words<T, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = choices[index].0;
        index += 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form is described in words that a person would use.
    #[test]
    fn forms_in_words() {
        const PICKS: [(&str, u8); 3] = [("all", 1), ("any", 2), ("one", 3)];
        const WORDS: [&str; 3] = words(&PICKS);
        const INNER: [Setting; 1] = [Setting {
            key: "a",
            form: Form::Rate,
            default: "",
            meaning: "",
        }];
        for (form, words) in [
            (Form::Text("path"), "path"),
            (Form::Boolean, "true or false"),
            (Form::Integer { min: 1, max: 255 }, "1 to 255"),
            (
                Form::Duration {
                    min: "1s",
                    max: "1d",
                },
                "duration, \"1s\" to \"1d\"",
            ),
            (
                Form::Size {
                    min: "1KiB",
                    max: "1GiB",
                },
                "size, \"1KiB\" to \"1GiB\"",
            ),
            (Form::Rate, "rate such as \"100/s\""),
            (Form::Choice(&WORDS), "\"all\", \"any\" or \"one\""),
            (Form::Table(&INNER), "a table"),
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
            (
                Form::List(&Form::OneOf(&[Form::Text("text"), Form::Table(&INNER)])),
                "text or a table; or a list",
            ),
        ] {
            assert_eq!(form.words(), words);
        }
        assert_eq!(keys(&INNER), ["a"]);
    }
}
