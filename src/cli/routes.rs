//! `udispatch routes`: lists the routes of the running daemon with the counts of their datagrams.

use clap::Args;

use super::Exit;
use super::remote::Remote;
use super::table::{Align, Table};
use crate::observe::snapshot::Snapshot;

/// List the routes of the running daemon, with the counts of their datagrams
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Print the rows as JSON; docs/status.md documents each key
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    let target = if arguments.json {
        "/status/routes"
    } else {
        "/status"
    };
    arguments.remote.show(target, arguments.json, table)
}

fn table(snapshot: &Snapshot) -> String {
    let heads = [
        ("route", Align::Left),
        ("received", Align::Right),
        ("handled", Align::Right),
        ("dropped", Align::Right),
        ("handlers", Align::Left),
    ];
    let mut table = Table::new(&heads);
    for (index, row) in snapshot.routes.iter().enumerate() {
        let edges = snapshot
            .flows
            .route_to_handler
            .iter()
            .filter(|edge| edge.from == index);
        let handlers = edges
            .filter_map(|edge| snapshot.handlers.get(edge.to))
            .map(|row| row.handler.as_str());
        let account = &row.account;
        table.row([
            row.route.clone(),
            account.received.to_string(),
            account.handled.to_string(),
            account.dropped.to_string(),
            handlers.collect::<Vec<_>>().join(", "),
        ]);
    }
    table.render()
}
