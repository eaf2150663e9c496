//! `udispatch status`: shows the state of the running daemon on one screen.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::remote::Remote;
use crate::config::diagnostics::{counted, one_line};
use crate::dispatch::ledger::ListenerCounters;
use crate::dispatch::verdict::DropReason;
use crate::observe::snapshot::{Account, Alarm, Snapshot, errnos};

/// Show the state of the running daemon
///
/// Prints its state, the active alarms with what to do about each, and the counts of all datagrams so far.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Print the whole snapshot as JSON; docs/status.md documents each key
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.remote.show("/status", arguments.json, screen)
}

/// Returns the whole screen.
fn screen(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let uptime = humantime::format_duration(Duration::from_secs(snapshot.uptime_ms / 1_000));
    let Snapshot {
        version,
        pid,
        config_file,
        generation,
        ..
    } = snapshot;
    let version = one_line(version);
    line(
        &mut text,
        "daemon",
        &format!("udispatch {version}, process {pid}, up {uptime}"),
    );
    line(
        &mut text,
        "file",
        &format!("{}, generation {generation}", one_line(config_file)),
    );
    line(&mut text, "state", snapshot.state.label());
    for reason in &snapshot.reasons {
        line(&mut text, "", &one_line(reason));
    }
    let mut head = "alarms";
    for Alarm {
        name,
        about,
        text: what,
        cure,
        ..
    } in &snapshot.alarms
    {
        line(
            &mut text,
            head,
            &one_line(&format!("{name} {about}: {what}")),
        );
        line(&mut text, "", &one_line(&format!("→ {cure}")));
        head = "";
    }
    ledger(&mut text, snapshot);
    parts(&mut text, snapshot);
    text
}

fn line(text: &mut String, head: &str, rest: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{head:14}  {rest}");
}

fn ledger(text: &mut String, snapshot: &Snapshot) {
    let sum = |of: fn(&Account) -> u64| -> u64 {
        snapshot.listeners.iter().map(|row| of(&row.account)).sum()
    };
    line(
        text,
        "received",
        &sum(|account| account.received).to_string(),
    );
    line(text, "handled", &sum(|account| account.handled).to_string());
    line(text, "dropped", &sum(|account| account.dropped).to_string());
    drops(text, snapshot);
    line(
        text,
        "in flight",
        &sum(|account| account.in_flight).to_string(),
    );
    // A listener's datagram counts as handled once a sink has it, so these are not part of the sums above.
    let unwritten: u64 = snapshot
        .handlers
        .iter()
        .map(|row| row.account.in_flight)
        .sum();
    if unwritten > 0 {
        line(
            text,
            "",
            &format!("{unwritten} handled by sinks are not written yet"),
        );
    }
    let mut counters = ListenerCounters::default();
    for row in &snapshot.listeners {
        counters.add(&row.counters);
    }
    for (field, value) in counters.iter() {
        line(text, field.label, &value.to_string());
    }
    let errors: Vec<String> = errnos::by_name(&snapshot.send_errors)
        .iter()
        .map(|(errno, datagrams)| format!("{datagrams} {errno}"))
        .collect();
    let not_sent = if errors.is_empty() {
        "0".to_owned()
    } else {
        errors.join(", ")
    };
    line(text, "not sent", &not_sent);
    let balance = if snapshot.balances {
        "exact"
    } else {
        "BROKEN, a defect of udispatch; please report it with `udispatch status --json`"
    };
    line(text, "balance", balance);
}

fn drops(text: &mut String, snapshot: &Snapshot) {
    for (reason, datagrams) in &snapshot.drops {
        let known = DropReason::ALL.iter().find(|known| known.label() == reason);
        let meaning = known.map_or("", |known| known.meaning());
        line(
            text,
            "",
            &format!("{datagrams} {}: {meaning}", one_line(reason)),
        );
    }
}

fn parts(text: &mut String, snapshot: &Snapshot) {
    let open: u64 = snapshot.handlers.iter().map(|row| row.sessions.open).sum();
    let serving = [
        counted(snapshot.workers.len(), "worker"),
        counted(snapshot.listeners.len(), "listener"),
        counted(snapshot.routes.len(), "route"),
        counted(snapshot.handlers.len(), "handler"),
        counted(usize::try_from(open).unwrap_or(usize::MAX), "session"),
    ];
    line(text, "serving", &serving.join(", "));
    if !snapshot.upstreams.is_empty() {
        let dead = snapshot.upstreams.iter().filter(|row| !row.alive).count();
        let draining = snapshot.upstreams.iter().filter(|row| row.draining).count();
        let upstreams = counted(snapshot.upstreams.len(), "upstream");
        line(
            text,
            "upstreams",
            &format!("{upstreams}, {dead} dead, {draining} draining"),
        );
    }
}
