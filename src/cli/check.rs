//! `udispatch check FILE`: is the file right? Prints everything that is wrong with it at once.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, output};
use crate::config::words::{counted, printable};
use crate::config::{Config, Kind};

/// Tell whether a configuration file is right
///
/// Prints all that is wrong with it, each with its line and a hint, and exits with 78; or one line
/// and exits with 0. `run` refuses the same files with the same words.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let config = match Config::load(&arguments.file, kinds) {
        Ok(config) => config,
        Err(error) => return output::refuse(&error),
    };
    if !config.warnings.is_empty() {
        output::complain(&config.warnings.render(output::colours()));
    }
    output::print(&verdict(&arguments.file, &config))
}

fn verdict(file: &Path, config: &Config) -> String {
    let file = printable(&file.to_string_lossy());
    let routes = counted(config.routes.len(), "route");
    let handlers = counted(config.handlers.len(), "handler");
    format!("{file}: ok, {routes}, {handlers}\n")
}
