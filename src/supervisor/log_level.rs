//! The log level: how it is written, and how it is changed while the daemon runs.

use log::LevelFilter;

use crate::config::diagnostics::quoted;

/// What a log level is written as.
pub const LEVELS: &str = "off, error, warn, info, debug or trace";

/// A log level, or a sentence about what is none.
pub fn parse(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| format!("{} is no log level; write {LEVELS}", quoted(text)))
}

/// What is logged from now on, and what that means, as a sentence.
pub(crate) fn set(level: LevelFilter) -> String {
    let before = log::max_level();
    log::set_max_level(level);
    let name = |level: LevelFilter| level.as_str().to_lowercase();
    let done = format!(
        "the log level is {} now, it was {}",
        name(level),
        name(before)
    );
    match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => {
            format!(
                "{done}; RUST_LOG was set when the daemon started, and nothing beyond it is logged"
            )
        }
        _ => done,
    }
}
