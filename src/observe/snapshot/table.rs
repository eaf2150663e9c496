//! The ledger's table, which is printed at the end and on SIGUSR1.

use std::fmt;
use std::io;

use super::{Snapshot, errnos};
use crate::dispatch::counters::{CounterField, CounterKind, ErrnoCounts};
use crate::dispatch::ledger::SessionCount;
use crate::dispatch::verdict::DropReason;
use crate::net::errno;
use crate::observe::snapshot::rows::{Account, HandlerRow, PASSIVELY_DEAD, UpstreamRow};

/// The end of the label of a row with replies.
const REPLIES: &str = ", replies";

/// One line of the table: a label, numbers, and notes below it.
struct TableRow<'a> {
    label: &'a str,
    account: &'a Account,
    /// Kernel drops of a listener, or datagrams sent by a handler.
    last: Option<u64>,
    notes: Vec<String>,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = label_width(self);
        head(f, width, "listener", "kernel drops")?;
        for listener in &self.listeners {
            row(
                f,
                width,
                &TableRow {
                    label: &listener.listener,
                    account: &listener.account,
                    last: Some(listener.counters.kernel_drops),
                    notes: counter_notes(listener.counters.iter()).collect(),
                },
            )?;
        }
        head(f, width, "route", "")?;
        for route in &self.routes {
            row(
                f,
                width,
                &TableRow {
                    label: &route.route,
                    account: &route.account,
                    last: None,
                    notes: Vec::new(),
                },
            )?;
        }
        head(f, width, "handler", "sent")?;
        for handler in &self.handlers {
            handler_rows(f, width, handler)?;
        }
        upstream_rows(f, &self.upstreams)?;
        let balance = if self.balances {
            "exact (received = handled + dropped + in flight, in every row)"
        } else {
            "BROKEN, a defect of udispatch; please report it with this table"
        };
        writeln!(f, "balance: {balance}")
    }
}

/// Returns the width of the longest label, except those of the upstreams, which have a table of their own.
fn label_width(snapshot: &Snapshot) -> usize {
    let listeners = snapshot.listeners.iter().map(|row| row.listener.len());
    let routes = snapshot.routes.iter().map(|row| row.route.len());
    let handlers = snapshot
        .handlers
        .iter()
        .map(|row| row.handler.len() + REPLIES.len());
    let labels = listeners.chain(routes).chain(handlers);
    labels.max().unwrap_or(0).max("listener".len())
}

/// Writes the row of a handler, and a row for the replies of its upstreams if there were any.
fn handler_rows(f: &mut fmt::Formatter<'_>, width: usize, handler: &HandlerRow) -> fmt::Result {
    let notes = errno_notes(&handler.failed, &handler.reported)
        .chain(session_lines(&handler.sessions))
        .chain(counter_notes(handler.sessions.iter()));
    let handled = TableRow {
        label: &handler.handler,
        account: &handler.account,
        last: Some(handler.counters.sent),
        notes: notes.collect(),
    };
    row(f, width, &handled)?;
    if handler.replies.received == 0 {
        return Ok(());
    }
    let replies = TableRow {
        label: &format!("{}{REPLIES}", handler.handler),
        account: &handler.replies,
        last: None,
        notes: Vec::new(),
    };
    row(f, width, &replies)
}

fn head(f: &mut fmt::Formatter<'_>, width: usize, what: &str, last: &str) -> fmt::Result {
    let line = format!(
        "{what:width$}  {:>13} {:>13} {:>13} {:>13} {last:>13}",
        "received", "handled", "dropped", "in flight"
    );
    writeln!(f, "{}", line.trim_end())
}

fn row(f: &mut fmt::Formatter<'_>, width: usize, row: &TableRow<'_>) -> fmt::Result {
    let TableRow {
        label,
        account,
        last,
        notes,
    } = row;
    let Account {
        received,
        handled,
        dropped,
        in_flight,
        ..
    } = account;
    write!(
        f,
        "{label:width$}  {received:>13} {handled:>13} {dropped:>13} {in_flight:>13}"
    )?;
    match last {
        Some(last) => writeln!(f, " {last:>13}")?,
        None => writeln!(f)?,
    }
    for reason in DropReason::ALL {
        let datagrams = account.dropped_for(*reason);
        if datagrams > 0 {
            writeln!(
                f,
                "  {datagrams} dropped {}: {}",
                reason.label(),
                reason.meaning()
            )?;
        }
    }
    notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
}

/// Returns the notes of counters that have one, unless they are 0.
pub fn counter_notes(
    counters: impl Iterator<Item = (&'static CounterField, u64)>,
) -> impl Iterator<Item = String> {
    counters.filter_map(|(field, value)| {
        let note = field.note.filter(|_| value > 0)?;
        Some(format!("{value} {note}"))
    })
}

/// Describes the sessions of a handler: the open ones, and how the others ended. Empty if there were none.
pub fn session_lines(count: &SessionCount) -> Vec<String> {
    if count.opened == 0 && count.inherited == 0 {
        return Vec::new();
    }
    let listed = |is_listed: fn(&CounterField) -> bool| {
        let listed = count.iter().filter(|(field, _)| is_listed(field));
        let listed = listed.map(|(field, value)| format!("{value} {}", field.label));
        listed.collect::<Vec<_>>().join(", ")
    };
    let is_total = |field: &CounterField| {
        field.kind == CounterKind::Counter && field.note.is_none() && !SessionCount::is_end(field)
    };
    vec![
        listed(|field| field.kind == CounterKind::Gauge),
        format!(
            "{}; ended: {}",
            listed(is_total),
            listed(SessionCount::is_end)
        ),
    ]
}

/// Returns the columns of an upstream in tables: headings and numbers.
pub fn upstream_columns(row: &UpstreamRow) -> Vec<(&'static str, u64)> {
    let counters = row
        .counters
        .iter()
        .filter(|(field, _)| field.note.is_none());
    let mut columns: Vec<_> = counters
        .map(|(field, value)| (field.label, value))
        .collect();
    // This column follows that of the datagrams that were sent.
    columns.insert(1, ("not sent", row.failed.total()));
    columns
}

/// Returns the notes below the row of an upstream.
fn upstream_notes(row: &UpstreamRow) -> Vec<String> {
    let mut all: Vec<String> = errno_notes(&row.failed, &row.reported).collect();
    all.extend(counter_notes(row.counters.iter()));
    if let Some(shadow) = &row.shadow {
        let results = shadow.iter();
        let results = results.map(|(field, replies)| format!("{replies} {}", field.label));
        let results: Vec<String> = results.collect();
        all.push(format!("shadow: replies {}", results.join(", ")));
    }
    if row.dead_in_workers > 0 {
        let workers = row.dead_in_workers;
        all.push(format!("dead in {workers} workers: {PASSIVELY_DEAD}"));
    }
    all
}

/// Writes the table of the upstreams, if there are any.
fn upstream_rows(f: &mut fmt::Formatter<'_>, upstreams: &[UpstreamRow]) -> fmt::Result {
    let label = |row: &UpstreamRow| format!("{} → {}", row.handler, row.upstream);
    let Some(width) = upstreams.iter().map(|row| label(row).chars().count()).max() else {
        return Ok(());
    };
    let mut is_first = true;
    for row in upstreams {
        let columns = upstream_columns(row);
        if is_first {
            write!(f, "{:width$} ", "upstream")?;
            columns
                .iter()
                .try_for_each(|(head, _)| write!(f, " {head:>13}"))?;
            writeln!(f)?;
        }
        is_first = false;
        write!(f, "{:width$} ", label(row))?;
        columns
            .iter()
            .try_for_each(|(_, number)| write!(f, " {number:>13}"))?;
        writeln!(f)?;
        upstream_notes(row)
            .iter()
            .try_for_each(|note| writeln!(f, "  {note}"))?;
    }
    Ok(())
}

/// Returns the notes on datagrams that were not sent, and on those that were lost later.
fn errno_notes<'a>(
    failed: &'a ErrnoCounts,
    reported: &'a ErrnoCounts,
) -> impl Iterator<Item = String> + use<'a> {
    let failed = errnos::sorted(failed).into_iter();
    let reported = errnos::sorted(reported).into_iter();
    failed
        .map(|(number, datagrams)| failure(number, datagrams))
        .chain(reported.map(|(number, times)| report(number, times)))
}

fn failure(number: i32, datagrams: u64) -> String {
    format!(
        "{datagrams} not sent {}: {}",
        errno::name(number),
        io::Error::from_raw_os_error(number)
    )
}

fn report(number: i32, times: u64) -> String {
    let name = errno::name(number);
    let why = io::Error::from_raw_os_error(number);
    format!("{times} reported {name}: {why}; datagrams that were sent before were lost")
}
