//! `udispatch man --dir DIR`: writes the manual pages. They are made from the definition of the command line, for packages.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, output};

/// Write the manual pages
///
/// Writes one page for the program and one for each command, such as udispatch-run(1), in the form that man(1) reads.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The directory to write to
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages. `line` is the definition of the command line.
pub(super) fn main(arguments: Arguments, line: clap::Command) -> Exit {
    match clap_mangen::generate_to(line, &arguments.dir) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            output::print_error(&format!(
                "error: cannot write manual pages to {}: {error}",
                arguments.dir.display()
            ));
            Exit::Failure
        }
    }
}
