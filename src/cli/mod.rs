//! The command line: one file for each command, and exit codes that say what kind of failure occurred.
//!
//! [`main`] takes the kinds of handlers, so that a program with its own kinds is a complete daemon:
//!
//! ```no_run
//! # const KINDS: &[udispatch::prelude::Kind] = &[];
//! fn main() -> std::process::ExitCode {
//!     udispatch::cli::main(KINDS)
//! }
//! ```
//!
//! Nothing is decided about datagrams here. The commands call the rooms below and print the results.

mod check;
mod completions;
mod drain;
mod exit;
mod explain;
mod handlers;
mod log;
mod man;
mod output;
pub(crate) mod pcapng;
mod reload;
mod remote;
mod routes;
mod run;
mod schema;
mod sessions;
mod status;
mod stop;
mod table;
mod tap;
mod top;
mod upstreams;

use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

pub use self::exit::Exit;
use crate::config::Kind;

const EXAMPLES: &str = "\
A first file, echo.toml:
  [[route]]
  destination = \"127.0.0.1:1234\"
  handler = \"echo\"

Examples:
  udispatch check echo.toml       check the file
  udispatch run echo.toml         serve until SIGTERM or Ctrl-C
  udispatch explain echo.toml --to 127.0.0.1:1234
                                  show which route gets this datagram, and what happens to it
  udispatch status                show the state of the running daemon
  udispatch top                   show datagrams per second, live in the terminal
  udispatch handlers              list the kinds of handlers

Exit codes:
  0   success
  1   failure; standard error says why
  2   the command line is invalid
  78  the configuration file is invalid";

/// One UDP port, many addresses, a handler for each.
///
/// udispatch listens on the destinations that a configuration file names, distinguishes datagrams by
/// the address they were sent to, and gives each to the handler of its route.
#[derive(Debug, Parser)]
#[command(name = "udispatch", version, after_help = EXAMPLES)]
#[command(arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    Run(run::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Status(status::Arguments),
    Top(top::Arguments),
    Routes(routes::Arguments),
    Sessions(sessions::Arguments),
    Upstreams(upstreams::Arguments),
    Tap(tap::Arguments),
    Reload(reload::Arguments),
    Drain(drain::DrainArguments),
    Undrain(drain::UndrainArguments),
    Log(log::Arguments),
    Stop(stop::Arguments),
    Handlers(handlers::Arguments),
    Schema(schema::Arguments),
    #[command(hide = true)]
    Man(man::Arguments),
    #[command(hide = true)]
    Completions(completions::Arguments),
}

/// Adds a tip to the error for a file where a command belongs, as in `udispatch file.toml`.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if word.ends_with(".toml") || Path::new(word).is_file() {
        let tip = format!("to serve a configuration file, write 'udispatch run {word}'");
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// Runs the whole program: parses the command line, runs a command, and returns the exit code.
pub fn main(kinds: &[Kind]) -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        // clap reports help and version as "errors" with exit code 0, on standard output. If that is a closed pipe,
        // there is no reader for a message.
        Err(error) => {
            let error = with_tip(error);
            let _ = error.print();
            let exit = if error.exit_code() == 0 {
                Exit::Ok
            } else {
                Exit::Usage
            };
            return exit.into();
        }
    };
    let exit = match line.command {
        CliCommand::Run(arguments) => run::main(arguments, kinds),
        CliCommand::Check(arguments) => check::main(arguments, kinds),
        CliCommand::Explain(arguments) => explain::main(arguments, kinds),
        CliCommand::Status(arguments) => status::main(&arguments),
        CliCommand::Top(arguments) => top::main(&arguments),
        CliCommand::Routes(arguments) => routes::main(&arguments),
        CliCommand::Sessions(arguments) => sessions::main(&arguments),
        CliCommand::Upstreams(arguments) => upstreams::main(&arguments),
        CliCommand::Tap(arguments) => tap::main(&arguments),
        CliCommand::Reload(arguments) => reload::main(&arguments),
        CliCommand::Drain(arguments) => drain::drain(&arguments),
        CliCommand::Undrain(arguments) => drain::undrain(&arguments),
        CliCommand::Log(arguments) => log::main(&arguments),
        CliCommand::Stop(arguments) => stop::main(&arguments),
        CliCommand::Handlers(arguments) => handlers::main(arguments, kinds),
        CliCommand::Schema(arguments) => schema::main(arguments, kinds),
        CliCommand::Man(arguments) => man::main(arguments, CommandLine::command()),
        CliCommand::Completions(arguments) => completions::main(arguments, CommandLine::command()),
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of the command line is consistent.
    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
