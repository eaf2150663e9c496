//! What may stand behind a key: one definition each, from which people are told, editors complete, and a table's keys are
//! known. The parsers are in `value/`; tests/schema.rs holds the two together.

use super::diagnostics::listed;

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What may stand behind it.
    pub form: Form,
    /// What holds when it is absent, as the file would write it, or in words; `required` where there is no default.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// Text, and which: `path`.
    Text(&'static str),
    /// `true` or `false`.
    Boolean,
    /// `false`, where the other forms say what it is when it is on.
    False,
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A time with its unit.
    Duration {
        /// The shortest, as a file writes it.
        min: &'static str,
        /// The longest.
        max: &'static str,
    },
    /// So many bytes.
    Size {
        /// The least, as a file writes it.
        min: &'static str,
        /// The most.
        max: &'static str,
    },
    /// So many in so long.
    Rate,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A table with these keys.
    Table(&'static [Setting]),
    /// A table whose keys the file chooses.
    Map {
        /// What the keys are: `prefix`.
        key: &'static str,
        /// What may stand behind each.
        value: &'static Form,
    },
    /// One of these, or a list of them.
    List(&'static Form),
    /// Any of these.
    OneOf(&'static [Form]),
}

impl Setting {
    /// Whether the table cannot do without it.
    pub fn is_required(&self) -> bool {
        self.default == "required"
    }

    /// What may stand behind it, for people.
    pub fn values(&self) -> String {
        self.form.words()
    }

    /// The keys of the table that may stand behind it; none where none may.
    pub fn inner(&self) -> &'static [Setting] {
        self.form.table().unwrap_or_default()
    }
}

impl Form {
    /// The form in words.
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

/// The keys of a list of settings, where a constant is to hold them.
pub const fn keys<const N: usize>(settings: &[Setting; N]) -> [&'static str; N] {
    let mut keys = [""; N];
    let mut index = 0;
    while index < N {
        keys[index] = settings[index].key;
        index += 1;
    }
    keys
}

/// The words of a list that [`choice`](super::value::choice) reads, for [`Form::Choice`].
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

    /// Each form reads as people would say it.
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
