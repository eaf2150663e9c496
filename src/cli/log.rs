//! `udispatch log LEVEL`: sets the log level of the running daemon.

use clap::Args;
use log::LevelFilter;

use super::Exit;
use super::remote::{Remote, target};
use crate::supervisor::log_level;

/// Set the log level of the running daemon, until it ends
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// The level: off, error, warn, info, debug or trace
    #[arg(value_parser = log_level::parse)]
    level: LevelFilter,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    let level = arguments.level.as_str().to_lowercase();
    arguments
        .remote
        .send_command(&target("/log", &[("level", Some(&level))]))
}
