//! `udispatch upstreams`: lists the upstreams of the running daemon, with their states and counts.

use clap::Args;

use super::Exit;
use super::remote::Remote;
use super::table::{Align, Table};
use crate::config::diagnostics::one_line;
use crate::observe::snapshot::{UpstreamRow, counter_notes, upstream_columns};

/// List the upstreams of the running daemon, with the state and the counts of each
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Print the rows as JSON; docs/status.md documents each key
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments
        .remote
        .show("/status/upstreams", arguments.json, text)
}

fn text(rows: &Vec<UpstreamRow>) -> String {
    let Some(first) = rows.first() else {
        return "no handler has upstreams\n".to_owned();
    };
    let mut heads = vec![("upstream", Align::Left), ("state", Align::Left)];
    heads.extend(
        upstream_columns(first)
            .iter()
            .map(|(head, _)| (*head, Align::Right)),
    );
    let mut table = Table::new(&heads);
    let mut notes = String::new();
    for row in rows {
        let name = format!("{}/{}", row.handler, row.upstream);
        let numbers = upstream_columns(row).into_iter();
        let numbers = numbers.map(|(_, number)| number.to_string());
        table.row(
            [name.clone(), state(row).to_owned()]
                .into_iter()
                .chain(numbers),
        );
        for note in counter_notes(row.counters.iter()) {
            notes += &(one_line(&format!("{name}: {note}")) + "\n");
        }
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
