//! The ledger's table, which is printed at the end and on SIGUSR1.

use std::collections::BTreeMap;
use std::fmt;

use super::Snapshot;
use crate::dispatch::verdict::DropReason;
use crate::net::errno;
use crate::observe::snapshot::rows::{Account, ListenerRow, SessionsRow, ShadowRow, UpstreamRow};

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
        let labels = self.listeners.iter().map(|row| row.listener.len());
        let labels = labels.chain(self.routes.iter().map(|row| row.route.len()));
        let width = labels
            .chain(
                self.handlers
                    .iter()
                    .map(|row| row.handler.len() + ", replies".len()),
            )
            .max()
            .unwrap_or(0)
            .max("listener".len());
        head(f, width, "listener", "kernel drops")?;
        for listener in &self.listeners {
            let (label, account, notes) = (
                &listener.listener,
                &listener.account,
                listener_notes(listener),
            );
            row(
                f,
                width,
                &TableRow {
                    label,
                    account,
                    last: Some(listener.kernel_drops),
                    notes,
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
            let failed = handler
                .failed
                .iter()
                .map(|(errno, datagrams)| failure(errno, *datagrams));
            let reported = handler
                .reported
                .iter()
                .map(|(errno, times)| report(errno, *times));
            let notes = failed
                .chain(reported)
                .chain(session_notes(&handler.sessions))
                .collect();
            row(
                f,
                width,
                &TableRow {
                    label: &handler.handler,
                    account: &handler.account,
                    last: Some(handler.sent),
                    notes,
                },
            )?;
            if handler.replies.received > 0 {
                let label = format!("{}, replies", handler.handler);
                row(
                    f,
                    width,
                    &TableRow {
                        label: &label,
                        account: &handler.replies,
                        last: None,
                        notes: Vec::new(),
                    },
                )?;
            }
        }
        upstream_rows(f, &self.upstreams)?;
        match self.balances {
            true => writeln!(
                f,
                "balance: exact (received = handled + dropped + in flight, in every row)"
            ),
            false => writeln!(
                f,
                "balance: BROKEN, a defect of udispatch: please report it with this table"
            ),
        }
    }
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

fn listener_notes(count: &ListenerRow) -> Vec<String> {
    let mut notes = Vec::new();
    if count.kernel_drops > 0 {
        notes.push(format!(
            "{} dropped by the kernel before us: the receive buffer was full; raise `receive_buffer` or `workers`",
            count.kernel_drops
        ));
    }
    if count.receive_errors > 0 {
        notes.push(format!(
            "{} receive calls failed and were tried again",
            count.receive_errors
        ));
    }
    notes
}

fn session_notes(count: &SessionsRow) -> Vec<String> {
    let mut notes = Vec::new();
    if count.opened > 0 {
        let SessionsRow {
            open,
            unreplied,
            opened,
            idle,
            unanswered,
            complete,
            evicted,
            broken,
            ports,
            ..
        } = count;
        notes.push(format!(
            "{open} sessions open ({unreplied} unreplied), {ports} source ports"
        ));
        notes.push(format!(
            "{opened} opened; ended: {idle} idle, {unanswered} unanswered, {complete} complete, {evicted} evicted, \
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

/// Writes the table of the upstreams, if there are any.
fn upstream_rows(f: &mut fmt::Formatter<'_>, upstreams: &[UpstreamRow]) -> fmt::Result {
    let label = |row: &UpstreamRow| format!("{} → {}", row.handler, row.upstream);
    let Some(width) = upstreams.iter().map(|row| label(row).chars().count()).max() else {
        return Ok(());
    };
    let head = format!(
        "{:>13} {:>13} {:>13} {:>13} {:>13}",
        "sent", "not sent", "skipped", "replies", "sessions"
    );
    writeln!(f, "{:width$}  {head}", "upstream")?;
    for row in upstreams {
        let failed: u64 = row.failed.values().sum();
        let UpstreamRow {
            sent,
            skipped,
            replies,
            sessions,
            ..
        } = row;
        writeln!(
            f,
            "{:width$}  {sent:>13} {failed:>13} {skipped:>13} {replies:>13} {sessions:>13}",
            label(row)
        )?;
        counts(f, &row.failed, failure)?;
        counts(f, &row.reported, report)?;
        if row.kernel_drops > 0 {
            let drops = row.kernel_drops;
            writeln!(
                f,
                "  {drops} replies dropped by the kernel before us: a session's receive buffer was full; raise net.core.rmem_max"
            )?;
        }
        if let Some(ShadowRow {
            same,
            different,
            missing,
        }) = row.shadow
        {
            writeln!(
                f,
                "  shadow: {same} replies the same, {different} different, {missing} missing"
            )?;
        }
        if row.dead_in_workers > 0 {
            let workers = row.dead_in_workers;
            writeln!(
                f,
                "  dead in {workers} workers: it refuses datagrams, or has stopped replying"
            )?;
        }
    }
    Ok(())
}

fn counts(
    f: &mut fmt::Formatter<'_>,
    counts: &BTreeMap<String, u64>,
    tell: fn(&str, u64) -> String,
) -> fmt::Result {
    counts
        .iter()
        .try_for_each(|(errno, count)| writeln!(f, "  {}", tell(errno, *count)))
}

fn failure(label: &str, datagrams: u64) -> String {
    let number = errno::of_label(label);
    format!(
        "{datagrams} not sent {}: {}",
        errno::name(number),
        std::io::Error::from_raw_os_error(number)
    )
}

fn report(label: &str, times: u64) -> String {
    let number = errno::of_label(label);
    let (name, why) = (
        errno::name(number),
        std::io::Error::from_raw_os_error(number),
    );
    format!("{times} times word came back {name}: {why}; what was sent before that was lost")
}
