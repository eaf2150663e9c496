//! `udispatch completions SHELL`: what makes a shell complete our command lines, from their definitions. For packages.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Exit, Line, output};

/// Print the completions of a shell
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn main(arguments: Arguments) -> Exit {
    let mut line = Line::command();
    let name = line.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut line, name, &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
