//! The log level: its text form, and how it is changed while the daemon runs.

use log::LevelFilter;

use crate::config::diagnostics::quoted;

/// The text forms of log levels, for messages.
pub const LEVELS: &str = "off, error, warn, info, debug or trace";

/// Parses a log level.
///
/// # Errors
///
/// Returns a sentence with the valid levels if the text is not one of them.
pub fn parse(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| format!("{} is not a log level; write {LEVELS}", quoted(text)))
}

/// Sets the log level. Returns a sentence that says what is logged from now on.
pub(crate) fn set(level: LevelFilter) -> String {
    let before = log::max_level();
    log::set_max_level(level);
    let name = |level: LevelFilter| level.as_str().to_lowercase();
    let done = format!(
        "the log level is now {}; it was {}",
        name(level),
        name(before)
    );
    match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => {
            format!("{done}; RUST_LOG was set when the daemon started and still limits the log")
        }
        _ => done,
    }
}
