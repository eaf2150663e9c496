//! `udispatch man --dir DIR`: the manual pages, from the definitions of the command line. For packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::{Exit, Line, output};

/// Write the manual pages
///
/// One page for the program and one for each command, such as udispatch-run(1), in the form that man(1) reads.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The directory that they are written to
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn main(arguments: Arguments) -> Exit {
    match clap_mangen::generate_to(Line::command(), &arguments.dir) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            output::complain(&format!(
                "error: cannot write manual pages to {}: {error}",
                arguments.dir.display()
            ));
            Exit::Failure
        }
    }
}
