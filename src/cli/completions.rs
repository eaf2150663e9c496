//! `udispatch completions SHELL`: prints a script with which a shell completes the command line. It is made from the
//! definition of the command line, for packages.

use clap::Args;
use clap_complete::Shell;

use super::{Exit, output};

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script. `line` is the definition of the command line.
pub(super) fn main(arguments: Arguments, mut line: clap::Command) -> Exit {
    let name = line.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut line, name, &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
