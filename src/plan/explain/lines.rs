//! The lines of an explanation.

use std::fmt::Write;

use crate::config::diagnostics::listed;

/// Rows that are told about besides the one that takes the datagram.
pub(super) const ROWS_MAX: usize = 10;

/// A line of an explanation: what it is about, and what there is to say.
pub(crate) fn line(text: &mut String, head: &str, rest: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{head:9} {rest}");
}

/// Names in a sentence, the first of many.
pub(crate) fn shortened(mut names: Vec<String>, and: &str) -> String {
    let more = names.len().saturating_sub(ROWS_MAX);
    names.truncate(ROWS_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    listed(names.iter().map(String::as_str), and)
}
