//! `udispatch sessions`: lists the open sessions of the running daemon.

use std::time::Duration;

use clap::Args;

use super::Exit;
use super::remote::{Remote, target};
use super::table::{Align, Table};
use crate::supervisor::sessions::{LIST_MAX, SessionList, SessionRow};

/// List the open sessions, with the client and the upstream of each
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Only sessions of this handler
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Only sessions of this client: an address, an address and a port, or a prefix
    #[arg(long, value_name = "ADDR")]
    client: Option<String>,
    /// The largest number of sessions to list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=LIST_MAX as i64))]
    limit: u32,
    /// Print the sessions as JSON; docs/status.md documents each key
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    let Arguments {
        remote,
        handler,
        client,
        limit,
        json,
    } = arguments;
    let limit = limit.to_string();
    let parameters = [
        ("handler", handler.as_deref()),
        ("client", client.as_deref()),
        ("limit", Some(limit.as_str())),
    ];
    remote.show(&target("/sessions", &parameters), *json, text)
}

fn text(list: &SessionList) -> String {
    if list.sessions.is_empty() {
        return "no matching session is open\n".to_owned();
    }
    let heads = [
        ("client", Align::Left),
        ("destination", Align::Left),
        ("handler", Align::Left),
        ("upstream", Align::Left),
        ("requests", Align::Right),
        ("replies", Align::Right),
        ("idle", Align::Right),
    ];
    let mut table = Table::new(&heads);
    for row in &list.sessions {
        let SessionRow {
            client,
            local,
            handler,
            upstreams,
            requests,
            replies,
            idle_ms,
            ..
        } = row;
        table.row([
            client.clone(),
            local.clone(),
            handler.clone(),
            upstreams.join(" "),
            requests.to_string(),
            replies.to_string(),
            idle(*idle_ms),
        ]);
    }
    let more = if list.is_cut {
        "there are more sessions: raise --limit, or select by --handler or --client\n"
    } else {
        ""
    };
    table.render() + more
}

/// Returns a duration, rounded for reading.
fn idle(idle_ms: u64) -> String {
    match idle_ms {
        0..10_000 => format!("{}.{}s", idle_ms / 1_000, idle_ms % 1_000 / 100),
        _ => humantime::format_duration(Duration::from_secs(idle_ms / 1_000))
            .to_string()
            .replace(' ', ""),
    }
}
