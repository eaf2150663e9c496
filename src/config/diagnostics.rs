//! Text for messages: suggestions for misspelt words, quoted input, and lists. Input is always escaped, so that no
//! raw control character reaches a terminal.

use std::fmt::Write;

use super::limits::QUOTED_CHARS_MAX;

/// A description of what is wrong with one value. It never names the key: the section knows the key
/// and puts it in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// The description, as the end of a sentence that begins with the key.
    pub message: String,
    /// A suggestion of what to write instead.
    pub hint: Option<String>,
}

impl Mistake {
    /// Returns a mistake without a hint.
    pub fn new(message: impl Into<String>) -> Mistake {
        Mistake {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds a hint to the mistake.
    pub fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint to the mistake if there is one.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Mistake {
        self.hint = hint.or(self.hint);
        self
    }
}

/// Explains a text that begins with a scheme, as a URL does. Addresses have none. `None` if there is no scheme.
pub(crate) fn unexpected_scheme(text: &str) -> Option<Mistake> {
    let (scheme, rest) = text.split_once("://")?;
    let message = format!("{} begins with a scheme", quoted(text));
    Some(Mistake::new(message).hint(format!("leave out \"{scheme}://\": write \"{rest}\"")))
}

/// Returns text of the file between quotes, shortened and escaped for a terminal.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("\"{}\"", one_line(&short))
}

/// Returns a name from outside, escaped so that it fits within a line.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\u{a}")
}

/// Escapes every character that could move a cursor, change a colour or reverse the reading direction.
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

/// Returns whether a character is a control character, or an invisible one that reorders or hides the text around it.
pub fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || char == '\u{feff}'
}

/// Returns the candidate that is closest to a written word, if one is close enough to be a misspelling. A word of
/// more than [`QUOTED_CHARS_MAX`] bytes has no suggestion.
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
        // A third of the candidate's length may differ, from one edit to three. A larger distance would be a guess.
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns a question that suggests the closest candidate: `did you mean "echo"?`.
pub fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    closest(written, candidates).map(|candidate| format!("did you mean {}?", quoted(candidate)))
}

/// Joins words to a list for a sentence: `a`, `a and b`, `a, b and c`.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>, and: &str) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} {and} {last}", most.join(", ")),
    }
}

/// Returns a count with its noun: `1 route`, `2 routes`.
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No byte of a hostile file reaches a terminal as a control sequence.
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

    /// A misspelling has a suggestion; a different word has none.
    #[test]
    fn suggests_only_what_is_close() {
        let kinds = ["echo", "print", "forward"];
        assert_eq!(closest("ehco", kinds), Some("echo"));
        assert_eq!(closest("Forwrad", kinds), Some("forward"));
        assert_eq!(closest("kafka", kinds), None);
        assert_eq!(closest("", kinds), None);
        assert_eq!(closest(&"e".repeat(100_000), kinds), None);
    }

    /// Lists read as part of a sentence.
    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(listed([], "and"), "");
        assert_eq!(listed(["a"], "and"), "a");
        assert_eq!(listed(["a", "b", "c"], "or"), "a, b or c");
    }
}
