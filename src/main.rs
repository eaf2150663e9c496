//! The daemon and its command line, with the built-in kinds of handlers.

use std::process::ExitCode;

fn main() -> ExitCode {
    udispatch::cli::main(udispatch::prelude::KINDS)
}
