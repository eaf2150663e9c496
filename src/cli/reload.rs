//! `udispatch reload`: makes the running daemon read its file again and apply the changes.

use clap::Args;

use super::remote::{RELOAD_TIMEOUT, Remote, target, understand};
use super::{Exit, output};
use crate::config::diagnostics::printable;
use crate::supervisor::reload_report::ReloadReport;

/// Make the running daemon read its file again
///
/// An invalid file changes nothing: its problems are printed as by `check`, and the exit code is 78.
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
    match understand(&response) {
        Ok(report) => tell(&report, arguments.dry_run),
        Err(exit) => exit,
    }
}

fn tell(report: &ReloadReport, is_dry_run: bool) -> Exit {
    let ReloadReport {
        is_applied,
        changes,
        problems,
        is_wrong_file,
    } = report;
    if let Some(problems) = problems {
        output::complain(&printable(problems.trim_end()));
        output::complain("nothing was changed: the daemon keeps its configuration");
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
