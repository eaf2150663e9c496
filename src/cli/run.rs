//! `udispatch run FILE`: the daemon itself.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, output};
use crate::config::limits::WORKERS_MAX;
use crate::config::{Config, Kind};

/// Serve until SIGTERM or Ctrl-C
///
/// Refuses a wrong file with the words of `check` and exits with 78; the log goes to standard error.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
    /// Receive with so many threads, whatever the file says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=WORKERS_MAX as i64))]
    workers: Option<u8>,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let Arguments { file, workers: _ } = arguments;
    match Config::load(&file, kinds) {
        Err(error) => output::refuse(&error),
        Ok(_) => {
            output::complain("error: `run` is not built yet");
            Exit::Failure
        }
    }
}
