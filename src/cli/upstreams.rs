//! `udispatch upstreams`: lists the upstreams of the running daemon, with their states and counts.

use clap::Args;

use super::remote::{Remote, print_json, understand};
use super::table::{Align, Table};
use super::{Exit, output};
use crate::config::diagnostics::one_line;
use crate::observe::snapshot::UpstreamRow;

/// List the running daemon's upstreams: who is alive, who is draining, and what each got
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Print the rows as JSON; docs/status.md tells what each key means
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments
        .remote
        .show("/status/upstreams", arguments.json, text)
}

fn text(rows: &Vec<UpstreamRow>) -> String {
    if rows.is_empty() {
        return "no handler has upstreams\n".to_owned();
    }
    let heads = [
        ("upstream", Align::Left),
        ("state", Align::Left),
        ("sessions", Align::Right),
        ("sent", Align::Right),
        ("not sent", Align::Right),
        ("replies", Align::Right),
    ];
    let mut table = Table::new(&heads);
    let mut notes = String::new();
    for row in rows {
        let name = format!("{}/{}", row.handler, row.upstream);
        table.row([
            name.clone(),
            state(row).to_owned(),
            row.sessions.to_string(),
            row.sent.to_string(),
            row.failed.values().sum::<u64>().to_string(),
            row.replies.to_string(),
        ]);
        if let (false, Some(failure)) = (row.alive, &row.last_failure) {
            notes += &(one_line(&format!("{name}: {}; {}", failure.text, failure.cure)) + "\n");
        }
    }
    table.render() + &notes
}

fn state(row: &UpstreamRow) -> &'static str {
    match (row.alive, row.draining) {
        _ if row.address.is_none() => "no address",
        (true, false) => "alive",
        (true, true) => "draining",
        (false, false) => "dead",
        (false, true) => "dead, draining",
    }
}
