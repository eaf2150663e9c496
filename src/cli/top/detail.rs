//! The detail view of one row: its numbers, what stands out about it, drops by reason, errors by errno, sessions, and
//! two minutes of history.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::symbols;
use ratatui::text::Line;
use ratatui::widgets::{RenderDirection, Sparkline};

use super::format;
use super::history::{HISTORY, SnapshotHistory};
use super::measure::{Measure, RowKind};
use super::palette::Tone;
use super::rates::{RateRow, Rates, rate};
use super::rows::{RowKey, items};
use super::state::{Spots, TopState};
use super::text::{TextLine, draw_text, wrap};
use crate::config::diagnostics::one_line;
use crate::dispatch::counters::{CounterField, CounterKind, ErrnoCounts};
use crate::dispatch::ledger::SessionCount;
use crate::dispatch::verdict::DropReason;
use crate::observe::snapshot::{Account, Edge, Snapshot, counter_notes, errnos, session_lines};

/// Number of lines of the sparkline, with its heading.
const SPARK_LINES: u16 = 4;

/// Draws the detail view of the chosen row.
pub(super) fn draw(frame: &mut Frame<'_>, state: &TopState, area: Rect, spots: &mut Spots) {
    let snapshots = state.snapshots();
    let row_kind = state.row_kind;
    let Some(row) = state
        .chosen()
        .and_then(|key| snapshots.rates.row(row_kind, key))
    else {
        let name = state.chosen().map_or("it", |key| key.name.as_str());
        let gone = format!(
            "{} {name} no longer exists; Esc goes back",
            row_kind.singular()
        );
        return draw_text(frame, state, area, &[(gone, Tone::Strong)], spots);
    };
    let picture = if area.height >= 3 * SPARK_LINES {
        SPARK_LINES
    } else {
        area.height / 3
    };
    let [picture, rest] =
        Layout::vertical([Constraint::Length(picture), Constraint::Min(0)]).areas(area);
    draw_spark(frame, state, picture, &row.item.key);
    let text: Vec<TextLine> = (text(snapshots, row_kind, row).into_iter())
        .flat_map(|(line, tone)| {
            wrap(&line, rest.width.into(), 4)
                .into_iter()
                .map(move |line| (line, tone))
        })
        .collect();
    draw_text(frame, state, rest, &text, spots);
}

fn draw_spark(frame: &mut Frame<'_>, state: &TopState, area: Rect, key: &RowKey) {
    let row_kind = state.row_kind;
    let columns = state.snapshots().spark(row_kind, key, area.width.into());
    let most = columns.iter().flatten().max();
    let minutes = HISTORY.as_secs() / 60;
    let most = most.map_or(String::new(), |most| format!(", at most {most}"));
    let head = format!(
        "{}  {} of the last {minutes} minutes{most}",
        key.name,
        row_kind.pulse().head()
    );
    let [first, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(
        Line::styled(head, Tone::Strong.style(state.has_colours)),
        first,
    );
    let newest_first = columns.iter().rev().copied();
    let spark = Sparkline::default()
        .data(newest_first)
        .direction(RenderDirection::RightToLeft)
        .absent_value_symbol(symbols::shade::EMPTY)
        .style(Tone::Good.style(state.has_colours));
    frame.render_widget(spark, rest);
}

/// The parts of a row that only some kinds of rows have.
#[derive(Default)]
struct RowParts<'a> {
    account: Option<&'a Account>,
    replies: Option<&'a Account>,
    /// The counters that have no column.
    counters: Vec<(&'static CounterField, u64)>,
    failed: Option<&'a ErrnoCounts>,
    reported: Option<&'a ErrnoCounts>,
    sessions: Option<&'a SessionCount>,
    /// The kind of rows that the row leads to, and the edges of the flow graph.
    next: Option<(RowKind, &'a [Edge])>,
    /// Further notes about the row.
    notes: Vec<String>,
}

fn parts(row_kind: RowKind, snapshot: &Snapshot, index: usize) -> Option<RowParts<'_>> {
    let flows = &snapshot.flows;
    Some(match row_kind {
        RowKind::Routes => RowParts {
            account: Some(&snapshot.routes.get(index)?.account),
            next: Some((RowKind::Handlers, &flows.route_to_handler)),
            ..RowParts::default()
        },
        RowKind::Workers => RowParts {
            account: Some(&snapshot.workers.get(index)?.account),
            ..RowParts::default()
        },
        RowKind::Listeners => {
            let row = snapshot.listeners.get(index)?;
            RowParts {
                account: Some(&row.account),
                counters: without_column(row.counters.iter()),
                next: Some((RowKind::Routes, &flows.listener_to_route)),
                ..RowParts::default()
            }
        }
        RowKind::Handlers => {
            let row = snapshot.handlers.get(index)?;
            RowParts {
                account: Some(&row.account),
                replies: Some(&row.replies).filter(|replies| replies.received > 0),
                counters: without_column(row.counters.iter()),
                failed: Some(&row.failed),
                reported: Some(&row.reported),
                sessions: Some(&row.sessions),
                next: Some((RowKind::Upstreams, &flows.handler_to_upstream)),
                notes: vec![format!("kind: {}", one_line(&row.kind))],
            }
        }
        RowKind::Upstreams => upstream(snapshot, index)?,
    })
}

fn without_column(
    counters: impl Iterator<Item = (&'static CounterField, u64)>,
) -> Vec<(&'static CounterField, u64)> {
    counters
        .filter(|(field, _)| Measure::of(field).is_none())
        .collect()
}

fn upstream(snapshot: &Snapshot, index: usize) -> Option<RowParts<'_>> {
    let row = snapshot.upstreams.get(index)?;
    let address = row
        .address
        .as_ref()
        .map_or("none: its name does not resolve".to_owned(), |address| {
            one_line(address)
        });
    let mut notes = vec![format!("address: {address}")];
    if row.dead_in_workers > 0 {
        notes.push(format!(
            "dead by passive health, in workers: {}",
            row.dead_in_workers
        ));
    }
    if row.draining || row.drained_by_hand {
        let why = if row.drained_by_hand {
            "by command; `udispatch undrain` ends it"
        } else {
            "by the file"
        };
        notes.push(format!("gets no new traffic: draining, {why}"));
    }
    if let Some(failure) = &row.last_failure {
        notes.push(format!(
            "a probe failed: {} → {}",
            one_line(&failure.text),
            one_line(&failure.cure)
        ));
    }
    if let Some(shadow) = &row.shadow {
        let results = shadow.iter();
        let results = results.map(|(field, replies)| format!("{replies} {}", field.label));
        let results: Vec<String> = results.collect();
        notes.push(format!("replies as a shadow: {}", results.join(", ")));
    }
    Some(RowParts {
        counters: without_column(row.counters.iter()),
        failed: Some(&row.failed),
        reported: Some(&row.reported),
        notes,
        ..RowParts::default()
    })
}

/// Returns the lines of the detail view.
fn text(snapshots: &SnapshotHistory, row_kind: RowKind, row: &RateRow) -> Vec<TextLine> {
    let heading = format!("  {:14}{:>16}{:>14}", "", "since start", "now");
    let mut lines = vec![(heading, Tone::Quiet)];
    lines.extend(
        row_kind
            .measures()
            .iter()
            .map(|measure| numbers(row, *measure)),
    );
    let before = before(snapshots, row_kind, &row.item.key);
    let elapsed = snapshots.rates.elapsed;
    let parts = parts(row_kind, &snapshots.snapshot, row.index);
    for (place, declared) in parts.iter().flat_map(|parts| &parts.counters).enumerate() {
        let was = before.as_ref().and_then(|was| was.counters.get(place));
        lines.push(counter(*declared, was.map(|was| was.1), elapsed));
    }
    lines.extend(alarm_lines(&snapshots.snapshot, &row.item.key));
    let Some(parts) = parts else {
        return lines;
    };
    lines.extend(named_count_lines(&parts, before.as_ref(), elapsed));
    lines.extend(parts.sessions.into_iter().flat_map(sessions));
    if let Some((next, edges)) = parts.next {
        lines.extend(next_line(&snapshots.rates, next, edges, row.index));
    }
    lines.extend(parts.notes.into_iter().map(|note| (note, Tone::Plain)));
    lines
}

/// Returns the alarms about the row, each with its cure.
fn alarm_lines(snapshot: &Snapshot, key: &RowKey) -> Vec<TextLine> {
    let mut lines = Vec::new();
    for alarm in snapshot
        .alarms
        .iter()
        .filter(|alarm| one_line(&alarm.about) == key.name)
    {
        lines.push((format!("! {}", one_line(&alarm.text)), Tone::Warning));
        lines.push((format!("    → {}", one_line(&alarm.cure)), Tone::Plain));
    }
    lines
}

/// Counts by the name of a drop reason or of an errno.
type NamedCounts = BTreeMap<String, u64>;

/// Returns the drops by reason and the errors by errno, with their rates since the previous snapshot.
fn named_count_lines(
    parts: &RowParts<'_>,
    before: Option<&RowParts<'_>>,
    elapsed: Option<Duration>,
) -> Vec<TextLine> {
    let drops = |account: Option<&Account>| account.map(|account| account.drops.clone());
    let errors = |counts: Option<&ErrnoCounts>| counts.map(errnos::by_name);
    let groups = |parts: &RowParts<'_>| {
        [
            drops(parts.account),
            drops(parts.replies),
            errors(parts.failed),
            errors(parts.reported),
        ]
    };
    let heads = [
        "dropped, by reason",
        "replies dropped",
        "not sent, by errno",
        "reported errors (ICMP), by errno",
    ];
    let before = before.map(groups).unwrap_or_default();
    let mut lines = Vec::new();
    for ((head, now), before) in heads.iter().zip(groups(parts)).zip(&before) {
        let now = now.unwrap_or_default();
        lines.extend(section(head, &now, before.as_ref(), elapsed));
    }
    lines
}

/// Returns a heading and a line for each count; nothing if there is no count.
fn section(
    head: &str,
    now: &NamedCounts,
    before: Option<&NamedCounts>,
    elapsed: Option<Duration>,
) -> Vec<TextLine> {
    if now.is_empty() {
        return Vec::new();
    }
    let per_second = |name: &String, count: u64| {
        let before = before?.get(name).copied().unwrap_or(0);
        rate(before, count, elapsed?)
    };
    let mut lines = vec![(head.to_owned(), Tone::Strong)];
    for (name, count) in now {
        let rate = format::rate(per_second(name, *count));
        let known = DropReason::ALL.iter().find(|known| known.label() == name);
        let meaning = known.map_or(String::new(), |known| format!("  {}", known.meaning()));
        let text = format!("  {count} ({rate}) {}{meaning}", one_line(name));
        lines.push((text, Tone::Plain));
    }
    lines
}

/// Returns the parts of the row in the previous snapshot.
fn before<'a>(
    snapshots: &'a SnapshotHistory,
    row_kind: RowKind,
    key: &RowKey,
) -> Option<RowParts<'a>> {
    let before = snapshots.before.as_ref()?;
    let index = items(row_kind, before)
        .iter()
        .position(|item| item.key == *key)?;
    parts(row_kind, before, index)
}

fn numbers(row: &RateRow, measure: Measure) -> TextLine {
    let count = row.count(measure);
    let value = row.value(measure);
    let (since, now) = if measure.only_rises() {
        (count.to_string(), format::rate(value))
    } else {
        (String::new(), count.to_string())
    };
    let is_bad = measure.is_loss() && value.is_some_and(|value| value > 0.0);
    let tone = if is_bad { Tone::Warning } else { Tone::Plain };
    (
        format!("  {:14}{since:>16}{now:>14}", measure.label()),
        tone,
    )
}

/// Returns the lines of a counter that has no column, with its rate if it is not a gauge.
fn counter(
    (field, value): (&CounterField, u64),
    before: Option<u64>,
    elapsed: Option<Duration>,
) -> TextLine {
    let (since, now) = match field.kind {
        CounterKind::Gauge => (String::new(), value.to_string()),
        CounterKind::Counter => {
            let rate = before
                .zip(elapsed)
                .and_then(|(before, elapsed)| rate(before, value, elapsed));
            (value.to_string(), format::rate(rate))
        }
    };
    (
        format!("  {:14}{since:>16}{now:>14}", field.label),
        Tone::Plain,
    )
}

/// Returns the lines about the sessions of a handler; none if it has had none.
fn sessions(count: &SessionCount) -> Vec<TextLine> {
    let texts = session_lines(count).into_iter();
    let texts: Vec<String> = texts.chain(counter_notes(count.iter())).collect();
    if texts.is_empty() {
        return Vec::new();
    }
    let head = ("sessions".to_owned(), Tone::Strong);
    let lines = texts
        .into_iter()
        .map(|text| (format!("  {text}"), Tone::Plain));
    std::iter::once(head).chain(lines).collect()
}

/// Returns the line with the rows that this row leads to.
fn next_line(rates: &Rates, next: RowKind, edges: &[Edge], index: usize) -> Option<TextLine> {
    let rows = rates.rows(next);
    let names = edges
        .iter()
        .filter(|edge| edge.from == index)
        .filter_map(|edge| rows.get(edge.to));
    let names: Vec<&str> = names.map(|row| row.item.key.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        (
            format!("{}: {}", next.label(), names.join(", ")),
            Tone::Plain,
        )
    })
}
