//! `udispatch top`: shows the running daemon live in a terminal, or prints the tables once to a pipe.
//!
//! `rates.rs` turns two consecutive snapshots into rates, for the rows of `rows.rs` and the measures of `measure.rs`.
//! `history.rs` keeps the rates and previous samples. The state (`state.rs`) holds what is shown and in which order
//! (`order.rs`). Input changes it (`input.rs`), and each frame is drawn from it (`view.rs`, `grid.rs`, `detail.rs`).
//! These files are pure. `live.rs` is the loop, `screen.rs` the terminal, and `batch_output.rs` the output for a pipe.

mod batch_output;
mod detail;
mod ending;
mod format;
mod grid;
mod history;
mod input;
mod live;
mod measure;
mod order;
mod palette;
mod rates;
mod rows;
mod screen;
mod state;
mod text;
mod view;

#[cfg(test)]
mod tests;

use std::env;
use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use self::rates::Rates;
use self::state::TopState;
use super::remote::{Remote, check, parse};
use super::{Exit, output};
use crate::admin::client::Client;
use crate::observe::snapshot::Snapshot;

/// Longest wait for a response. It is short, so that a missing response is shown soon.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The permitted intervals between two snapshots. The shortest keeps the load low, and the longest still shows changes.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

/// Show the traffic of the running daemon, in datagrams per second
///
/// Shows the rates of routes, handlers, upstreams, listeners and workers, the alarms, and the kernel drops. In a terminal
/// the view is live, and the key ? shows all keys. If the output is not a terminal, the tables are printed once.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Time between two snapshots, over which rates are computed: 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print the tables once, also in a terminal
    #[arg(long)]
    once: bool,
    /// Print the rows with their rates once, as one JSON object
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 2s or 500ms"))?;
    if INTERVAL.contains(&interval) {
        Ok(interval)
    } else {
        Err("it must be between 100ms and 1h".to_owned())
    }
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    let exit = if is_live(arguments) {
        watch(arguments)
    } else {
        print_once(arguments)
    };
    exit.unwrap_or_else(|exit| exit)
}

/// Returns whether to show the live view: it is requested, and there is a terminal that can show it.
fn is_live(arguments: &Arguments) -> bool {
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb && !arguments.once && !arguments.json
}

/// Shows the live view until the user ends it.
fn watch(arguments: &Arguments) -> Result<Exit, Exit> {
    let client = arguments.remote.client(TIMEOUT)?;
    let snapshot = first(&client)?;
    let has_colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let state = TopState::new(snapshot, Instant::now(), arguments.interval, has_colours);
    live::run(client, state, arguments.interval).map_err(|error| {
        output::print_error(&format!(
            "error: the terminal cannot be used: {error}. `--once` prints one table"
        ));
        Exit::Failure
    })?;
    Ok(Exit::Ok)
}

/// Takes two snapshots and prints what happened between them.
fn print_once(arguments: &Arguments) -> Result<Exit, Exit> {
    let client = arguments.remote.client(TIMEOUT)?;
    let before = first(&client)?;
    thread::sleep(arguments.interval);
    let after = first(&client)?;
    let rates = Rates::between(Some(&before), &after);
    let show = if arguments.json {
        batch_output::json
    } else {
        batch_output::text
    };
    Ok(output::print(&show(&after, &rates)))
}

/// Requests the first snapshot. A missing response ends the command.
fn first(client: &Client) -> Result<Snapshot, Exit> {
    parse(&check(client, client.get("/status"))?)
}
