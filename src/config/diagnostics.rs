//! Words for people: what was meant, what was written, and never a raw control character.

use std::fmt::Write;

use super::limits::QUOTED_CHARS_MAX;

/// What is wrong with one value. It never names the key: the [section](super::section) knows it and
/// puts it in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// What is wrong, as the end of a sentence that begins with the key.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake with no hint yet.
    pub fn new(message: impl Into<String>) -> Mistake {
        Mistake {
            message: message.into(),
            hint: None,
        }
    }

    /// The same, with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with a hint if there is one.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Mistake {
        self.hint = hint.or(self.hint);
        self
    }
}

/// What the file says, between quotes, short, and fit for a terminal.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("\"{}\"", one_line(&short))
}

/// A name that came from outside, fit for the middle of a line.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\u{a}")
}

/// The text with everything that could move a cursor, change a colour or turn the reading direction
/// written as an escape.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if is_unprintable(char) && char != '\n' {
            let _ = write!(out, "{}", char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

/// Control characters, and the invisible ones that reorder or hide the text around them.
pub fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || char == '\u{feff}'
}

/// The candidate that was probably meant, if one is close.
pub fn closest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if written.len() > QUOTED_CHARS_MAX {
        return None;
    }
    let lower = written.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        // Two slips in a long word, one in a short one: more would guess at random.
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean" in front of a list of all that is possible.
pub fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    closest(written, candidates).map(|candidate| format!("did you mean {}?", quoted(candidate)))
}

/// `a`, `a and b`, `a, b and c`.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>, and: &str) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} {and} {last}", most.join(", ")),
    }
}

/// `1 route`, `2 routes`.
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No byte of a hostile file reaches a terminal as a command.
    #[test]
    fn escapes_what_a_terminal_obeys() {
        assert_eq!(
            printable("a\x1b[31m\u{9b}\u{202e}\u{7f}ä"),
            "a\\u{1b}[31m\\u{9b}\\u{202e}\\u{7f}ä"
        );
        assert_eq!(quoted("\r"), "\"\\u{d}\"");
        assert_eq!(quoted("a\nb"), "\"a\\u{a}b\"", "one line stays one");
        assert!(quoted(&"x".repeat(1000)).chars().count() < 70);
    }

    /// A slip is recognised, a different word is not.
    #[test]
    fn suggests_only_what_is_close() {
        let kinds = ["echo", "print", "forward"];
        assert_eq!(closest("ehco", kinds), Some("echo"));
        assert_eq!(closest("Forwrad", kinds), Some("forward"));
        assert_eq!(closest("kafka", kinds), None);
        assert_eq!(closest("", kinds), None);
        assert_eq!(closest(&"e".repeat(100_000), kinds), None);
    }

    /// Lists read as a sentence.
    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(listed([], "and"), "");
        assert_eq!(listed(["a"], "and"), "a");
        assert_eq!(listed(["a", "b", "c"], "or"), "a, b or c");
    }
}
