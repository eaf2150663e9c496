//! The one value that every view shows: all accounts at one instant, with their names.

use std::fmt;

use crate::config::Config;
use crate::dispatch::ledger::{HandlerCount, Ledger, ListenerCount, SessionCount, Tally, UpstreamCount};
use crate::dispatch::verdict::DropReason;
use crate::net::errno;

use super::plan::Plan;
use super::upstreams::Located;

/// All accounts at one instant. Displayed, it is the ledger's table.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Label and account of each listener.
    pub listeners: Vec<(String, ListenerCount)>,
    /// Label and account of each route.
    pub routes: Vec<(String, Tally)>,
    /// Name and account of each handler.
    pub handlers: Vec<(String, HandlerCount)>,
    /// Name and account of each upstream, with the name of its handler before it.
    pub upstreams: Vec<(String, UpstreamCount)>,
    /// Whether law 3 holds in and between all of them.
    pub balances: bool,
}

impl Snapshot {
    /// Puts the names to the accounts.
    pub fn new(config: &Config, plan: &Plan, ledger: Ledger) -> Snapshot {
        let balances = ledger.balances();
        let Ledger { listeners, routes, handlers, upstreams } = ledger;
        let named =
            |located: &Located| format!("{} → {}", config.handlers[located.handler.index()].name, located.upstream);
        Snapshot {
            listeners: plan.listeners.iter().map(|listener| listener.label.clone()).zip(listeners).collect(),
            routes: config.routes.iter().map(|route| route.label.clone()).zip(routes).collect(),
            handlers: config.handlers.iter().map(|handler| handler.name.clone()).zip(handlers).collect(),
            upstreams: plan.upstreams.iter().map(|(_, located)| named(located)).zip(upstreams).collect(),
            balances,
        }
    }
}

/// One line of the table: a label and numbers, and below it notes.
struct Row<'a> {
    label: &'a str,
    tally: &'a Tally,
    /// Kernel drops of a listener, datagrams sent of a handler.
    last: Option<u64>,
    notes: Vec<String>,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.listeners.iter().map(|row| row.0.len());
        let labels = labels.chain(self.routes.iter().map(|row| row.0.len()));
        let width = labels
            .chain(self.handlers.iter().map(|row| row.0.len() + ", answers".len()))
            .max()
            .unwrap_or(0)
            .max("listener".len());
        head(f, width, "listener", "kernel drops")?;
        for (label, count) in &self.listeners {
            let notes = listener_notes(count);
            row(f, width, &Row { label, tally: &count.tally, last: Some(count.kernel_drops), notes })?;
        }
        head(f, width, "route", "")?;
        for (label, tally) in &self.routes {
            row(f, width, &Row { label, tally, last: None, notes: Vec::new() })?;
        }
        head(f, width, "handler", "sent")?;
        for (label, count) in &self.handlers {
            let failed = count.failed.iter().map(|(errno, datagrams)| failure(*errno, *datagrams));
            let reported = count.reported.iter().map(|(errno, times)| report(*errno, *times));
            let notes = failed.chain(reported).chain(session_notes(&count.sessions)).collect();
            row(f, width, &Row { label, tally: &count.tally, last: Some(count.sent), notes })?;
            if count.replies.received > 0 {
                let label = format!("{label}, answers");
                row(f, width, &Row { label: &label, tally: &count.replies, last: None, notes: Vec::new() })?;
            }
        }
        upstream_rows(f, &self.upstreams)?;
        match self.balances {
            true => writeln!(f, "balance: exact (received = handled + dropped + in flight, in every row)"),
            false => writeln!(f, "balance: BROKEN, a defect of udispatch: please report it with this table"),
        }
    }
}

fn head(f: &mut fmt::Formatter<'_>, width: usize, what: &str, last: &str) -> fmt::Result {
    let line =
        format!("{what:width$}  {:>13} {:>13} {:>13} {:>13} {last:>13}", "received", "handled", "dropped", "in flight");
    writeln!(f, "{}", line.trim_end())
}

fn row(f: &mut fmt::Formatter<'_>, width: usize, row: &Row<'_>) -> fmt::Result {
    let Row { label, tally, last, notes } = row;
    let (received, handled, in_flight) = (tally.received, tally.handled, tally.in_flight);
    write!(f, "{label:width$}  {received:>13} {handled:>13} {:>13} {in_flight:>13}", tally.dropped_total())?;
    match last {
        Some(last) => writeln!(f, " {last:>13}")?,
        None => writeln!(f)?,
    }
    for reason in DropReason::ALL {
        let datagrams = tally.dropped_for(*reason);
        if datagrams > 0 {
            writeln!(f, "  {datagrams} dropped {}: {}", reason.label(), reason.meaning())?;
        }
    }
    notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
}

fn listener_notes(count: &ListenerCount) -> Vec<String> {
    let mut notes = Vec::new();
    if count.kernel_drops > 0 {
        notes.push(format!(
            "{} dropped by the kernel before us: the receive buffer was full; raise `receive_buffer` or `workers`",
            count.kernel_drops
        ));
    }
    if count.receive_errors > 0 {
        notes.push(format!("{} receive calls failed and were tried again", count.receive_errors));
    }
    notes
}

fn session_notes(count: &SessionCount) -> Vec<String> {
    let mut notes = Vec::new();
    if count.opened > 0 {
        let SessionCount { open, on_probation, opened, idle, unanswered, complete, displaced, broken, ports, .. } =
            count;
        notes.push(format!("{open} sessions open ({on_probation} not answered yet), {ports} source ports"));
        notes.push(format!(
            "{opened} opened; ended: {idle} idle, {unanswered} unanswered, {complete} complete, {displaced} displaced, \
             {broken} broken"
        ));
    }
    if count.one_way > 0 {
        notes.push(format!(
            "{} passed on without a way back: their senders are not to be answered (source port below 1024 or 0, group or \
             own address, an upstream, or sent to a group)",
            count.one_way
        ));
    }
    notes
}

/// The table of the upstreams, where there are any.
fn upstream_rows(f: &mut fmt::Formatter<'_>, upstreams: &[(String, UpstreamCount)]) -> fmt::Result {
    let Some(width) = upstreams.iter().map(|row| row.0.chars().count()).max() else { return Ok(()) };
    let head = format!("{:>13} {:>13} {:>13} {:>13} {:>13}", "sent", "not sent", "skipped", "answers", "sessions");
    writeln!(f, "{:width$}  {head}", "upstream")?;
    for (label, count) in upstreams {
        let failed: u64 = count.failed.iter().map(|(_, datagrams)| datagrams).sum();
        let UpstreamCount { sent, skipped, replies, sessions, .. } = count;
        writeln!(f, "{label:width$}  {sent:>13} {failed:>13} {skipped:>13} {replies:>13} {sessions:>13}")?;
        for (errno, datagrams) in &count.failed {
            writeln!(f, "  {}", failure(*errno, *datagrams))?;
        }
        for (errno, times) in &count.reported {
            writeln!(f, "  {}", report(*errno, *times))?;
        }
        if count.kernel_drops > 0 {
            let drops = count.kernel_drops;
            writeln!(
                f,
                "  {drops} answers dropped by the kernel before us: a session's receive buffer was full; raise net.core.rmem_max"
            )?;
        }
        if count.shadow != [0; 3] {
            let [same, different, missing] = count.shadow;
            writeln!(f, "  shadow: {same} answers the same, {different} different, {missing} missing")?;
        }
        if count.dead_in > 0 {
            writeln!(f, "  thought dead by {} workers: it refuses, or has stopped answering", count.dead_in)?;
        }
    }
    Ok(())
}

fn failure(errno: i32, datagrams: u64) -> String {
    let why = std::io::Error::from_raw_os_error(errno);
    format!("{datagrams} not sent {}: {why}", errno::name(errno))
}

fn report(errno: i32, times: u64) -> String {
    let why = std::io::Error::from_raw_os_error(errno);
    format!("{times} times word came back {}: {why}; what was sent before that was lost", errno::name(errno))
}
