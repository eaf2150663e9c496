//! `udispatch reload`: makes the running daemon read its file again and apply the changes.

use clap::Args;

use super::remote::{RELOAD_TIMEOUT, Remote, parse, target};
use super::{Exit, output};
use crate::config::diagnostics::printable;
use crate::supervisor::reload_report::ReloadReport;

/// Make the running daemon read its file again
///
/// An invalid file changes nothing. Its problems are printed in the form of `check`, and the exit code is 78.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Only print what would change
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    let dry_run = arguments.dry_run.then_some("1");
    let response = match arguments
        .remote
        .post(&target("/reload", &[("dry_run", dry_run)]), RELOAD_TIMEOUT)
    {
        Ok(response) => response,
        Err(exit) => return exit,
    };
    match parse(&response) {
        Ok(report) => show(&report, arguments.dry_run),
        Err(exit) => exit,
    }
}

fn show(report: &ReloadReport, is_dry_run: bool) -> Exit {
    let ReloadReport {
        is_applied,
        changes,
        problems,
        is_wrong_file,
    } = report;
    if let Some(problems) = problems {
        output::print_error(&printable(problems.trim_end()));
        output::print_error("nothing was changed: the daemon keeps its configuration");
        return if *is_wrong_file {
            Exit::Configuration
        } else {
            Exit::Failure
        };
    }
    let mut text: String = changes
        .iter()
        .map(|change| printable(change) + "\n")
        .collect();
    text += match (changes.is_empty(), is_dry_run, is_applied) {
        (true, ..) => "nothing has changed\n",
        (false, true, _) => "nothing was applied: a dry run\n",
        (false, false, true) => "applied\n",
        (false, false, false) => "not applied\n",
    };
    output::print(&text)
}
