//! Helpers for the lines of an explanation.

use std::fmt::Write;

use crate::config::diagnostics::listed;

/// The most rows that are listed besides the one that matches the datagram.
pub(super) const ROWS_MAX: usize = 10;

/// Appends a line of an explanation: a heading, and the text beside it.
pub(crate) fn line(text: &mut String, head: &str, rest: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{head:9} {rest}");
}

/// Joins names to a list for a sentence. Of more than [`ROWS_MAX`] names, the rest is only counted.
pub(crate) fn shortened(mut names: Vec<String>, and: &str) -> String {
    let more = names.len().saturating_sub(ROWS_MAX);
    names.truncate(ROWS_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    listed(names.iter().map(String::as_str), and)
}
