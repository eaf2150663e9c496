//! Draws one frame of a state. Pure: equal state, size and time give an equal frame. `rows.rs` has escaped all names,
//! since they come from outside. The other texts of the daemon are escaped here and in `detail.rs`.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::input::KEYS;
use super::measure::{Measure, RowKind};
use super::palette::Tone;
use super::state::{Mode, Spots, TopState};
use super::text::{TextLine, draw_text, width, wrap};
use super::{detail, format, grid};
use crate::config::diagnostics::{counted, one_line};
use crate::observe::snapshot::{DaemonState, Snapshot};

/// Largest number of lines for problems, on a normal and on a low screen.
const BANNER_LINES: (u16, u16) = (3, 1);
/// A screen with fewer lines than this is low.
const LOW: u16 = 16;

/// Draws the whole frame, and returns where its elements are.
pub(super) fn draw(frame: &mut Frame<'_>, state: &TopState, now: Instant) -> Spots {
    let area = frame.area();
    let mut spots = Spots::default();
    let banner = banner(state, now);
    let lines_max = if area.height < LOW {
        BANNER_LINES.1
    } else {
        BANNER_LINES.0
    };
    let lines = u16::try_from(banner.len())
        .unwrap_or(u16::MAX)
        .min(lines_max);
    let parts = [
        Constraint::Length(2),
        Constraint::Length(lines),
        Constraint::Length(1),
        Constraint::Min(0),
    ];
    let [head, alarms, tabs, rest] = Layout::vertical(parts).areas(area);
    let [body, foot] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(rest);
    for (line, area) in [title(state, now), totals(state)]
        .into_iter()
        .zip(head.rows())
    {
        frame.render_widget(line, area);
    }
    draw_banner(frame, state, alarms, &banner);
    draw_tabs(frame, state, tabs, &mut spots);
    match state.mode {
        Mode::Table | Mode::Filter => grid::draw(frame, state, body, &mut spots),
        Mode::Detail => detail::draw(frame, state, body, &mut spots),
        Mode::Alarms => draw_text(
            frame,
            state,
            body,
            &alarm_text(state, &banner, body.width),
            &mut spots,
        ),
        Mode::Help => draw_text(frame, state, body, &help_text(body.width), &mut spots),
    }
    frame.render_widget(footer(state), foot);
    spots
}

fn title(state: &TopState, now: Instant) -> Line<'static> {
    let Snapshot {
        version,
        pid,
        generation,
        uptime_ms,
        workers,
        state: health,
        ..
    } = &state.snapshots().snapshot;
    let style = |tone: Tone| tone.style(state.has_colours);
    let (word, tone) = match (&state.last_error, health) {
        (Some(_), _) => (" NO RESPONSE ".to_owned(), Tone::Alarm),
        (None, DaemonState::Serving) => (health.label().to_owned(), Tone::Good),
        (None, _) => (format!(" {} ", health.label().to_uppercase()), Tone::Alarm),
    };
    let mut spans = vec![
        Span::styled("udispatch ", style(Tone::Strong)),
        Span::styled(word, style(tone)),
    ];
    if state.is_paused() {
        spans.extend([
            Span::raw(" "),
            Span::styled(" PAUSED ", style(Tone::Selected)),
        ]);
    }
    if state.is_paused() || state.last_error.is_some() {
        spans.push(Span::raw(format!(" {} old", format::span(age(state, now)))));
    }
    let up = format::span(Duration::from_millis(*uptime_ms));
    let workers = counted(workers.len(), "worker");
    let version = one_line(version);
    spans.push(Span::raw(format!(
        "  up {up}  {workers}  generation {generation}  pid {pid}  {version}"
    )));
    Line::from(spans)
}

/// Returns the age of the data that is shown.
fn age(state: &TopState, now: Instant) -> Duration {
    now.saturating_duration_since(state.snapshots().at)
}

fn totals(state: &TopState) -> Line<'static> {
    let rates = &state.snapshots().rates;
    let style = |tone: Tone| tone.style(state.has_colours);
    let coming = format::rate(rates.sum(RowKind::Listeners, Measure::Received));
    let going = format::rate(rates.sum(RowKind::Handlers, Measure::Sent));
    let unwritten = rates.total(RowKind::Handlers, Measure::InFlight);
    let both = [RowKind::Listeners, RowKind::Upstreams];
    let drops = both.iter().fold(0, |sum: u64, row_kind| {
        sum.saturating_add(rates.total(*row_kind, Measure::KernelDrops))
    });
    let known = both
        .iter()
        .filter_map(|row_kind| rates.sum(*row_kind, Measure::KernelDrops));
    let rate = known.reduce(|sum, rate| sum + rate);
    let (what, tone) = match rate {
        Some(rate) if rate > 0.0 => ("KERNEL DROPS", Tone::Alarm),
        _ if drops > 0 => ("kernel drops", Tone::Warning),
        _ => ("kernel drops", Tone::Plain),
    };
    let dropped = rates.sum(RowKind::Listeners, Measure::Dropped);
    let tone_of_dropped = if dropped.is_some_and(|rate| rate > 0.0) {
        Tone::Warning
    } else {
        Tone::Plain
    };
    Line::from(vec![
        Span::raw(format!("in {coming}  out {going}  ")),
        Span::styled(
            format!("dropped {}", format::rate(dropped)),
            style(tone_of_dropped),
        ),
        Span::raw("  "),
        Span::styled(
            format!("{what} {} ({drops})", format::rate(rate)),
            style(tone),
        ),
        Span::raw(format!("  unwritten {unwritten}")),
    ])
}

/// Returns the problems, the most serious first, one sentence each.
fn banner(state: &TopState, now: Instant) -> Vec<String> {
    let snapshot = &state.snapshots().snapshot;
    let last_error = state.last_error.iter().map(|why| {
        let age = format::span(age(state, now));
        format!(
            "no response; what is shown is {age} old; retrying: {}",
            one_line(why)
        )
    });
    let balance = (!snapshot.balances)
        .then(|| "the ledger does not balance: a defect, please report it".to_owned());
    let reasons = snapshot.reasons.iter().map(|reason| one_line(reason));
    let alarms = snapshot
        .alarms
        .iter()
        .map(|alarm| one_line(&format!("{}: {}", alarm.name, alarm.text)));
    last_error
        .chain(balance)
        .chain(reasons)
        .chain(alarms)
        .collect()
}

fn draw_banner(frame: &mut Frame<'_>, state: &TopState, area: Rect, banner: &[String]) {
    for (index, place) in area.rows().enumerate() {
        let is_last = index + 1 == usize::from(area.height);
        let text = match banner.len() - index {
            more @ 2.. if is_last => {
                format!("! {more} more alarms, a shows all. {}", banner[index])
            }
            _ => format!("! {}", banner[index]),
        };
        frame.render_widget(
            Line::styled(text, Tone::Alarm.style(state.has_colours)),
            place,
        );
    }
}

fn draw_tabs(frame: &mut Frame<'_>, state: &TopState, area: Rect, spots: &mut Spots) {
    // If the screen is narrow, only the numbers are shown.
    let is_narrow = area.width < 60;
    let mut at = area.x;
    for (number, row_kind) in RowKind::ALL.into_iter().enumerate() {
        let is_shown = row_kind == state.row_kind;
        let label = if is_narrow && !is_shown {
            format!("{}", number + 1)
        } else {
            format!("{} {}", number + 1, row_kind.label())
        };
        let (label, tone) = if is_shown {
            (format!("[{label}]"), Tone::Selected)
        } else {
            (format!(" {label} "), Tone::Plain)
        };
        let columns = u16::try_from(width(&label)).unwrap_or(u16::MAX);
        let place = Rect {
            x: at,
            width: columns,
            ..area
        }
        .intersection(area);
        frame.render_widget(Line::styled(label, tone.style(state.has_colours)), place);
        spots.tabs.push((place, row_kind));
        at = at.saturating_add(columns);
    }
    let count = format!("{} ", grid::counted(state));
    let columns = u16::try_from(width(&count)).unwrap_or(u16::MAX);
    let place = Rect {
        x: area.right().saturating_sub(columns),
        width: columns,
        ..area
    };
    if place.x >= at && area.height > 0 {
        frame.render_widget(
            Line::styled(count, Tone::Quiet.style(state.has_colours)),
            place,
        );
    }
}

fn footer(state: &TopState) -> Line<'static> {
    let text = match state.mode {
        Mode::Filter => format!("/{}_  Enter keeps, Esc clears", one_line(&state.filter)),
        Mode::Table if !state.filter.is_empty() => {
            format!(
                "filter /{}  Esc clears  ? help  q quit",
                one_line(&state.filter)
            )
        }
        Mode::Table => {
            "q quit  ? help  Enter details  / filter  s sort  r reverse  Space pause".to_owned()
        }
        _ => "Esc back  ↑ ↓ scroll  Space pause  q quit".to_owned(),
    };
    Line::styled(text, Tone::Strong.style(state.has_colours))
}

/// Returns all problems, with what to do about each.
fn alarm_text(state: &TopState, banner: &[String], columns: u16) -> Vec<TextLine> {
    let alarms = &state.snapshots().snapshot.alarms;
    let mut text = Vec::new();
    let mut add = |words: &str, tone| {
        text.extend(
            wrap(words, columns.into(), 2)
                .into_iter()
                .map(|line| (line, tone)),
        );
    };
    let others = banner.len().saturating_sub(alarms.len());
    banner
        .iter()
        .take(others)
        .for_each(|words| add(&format!("! {words}"), Tone::Warning));
    let taken = state.snapshots().snapshot.taken_unix_ms / 1_000;
    for alarm in alarms {
        let lasts = format::span(Duration::from_secs(taken.saturating_sub(alarm.since)));
        add(
            &format!(
                "! {} {}, for {lasts}",
                one_line(&alarm.name),
                one_line(&alarm.about)
            ),
            Tone::Warning,
        );
        add(&format!("  {}", one_line(&alarm.text)), Tone::Plain);
        add(&format!("  → {}", one_line(&alarm.cure)), Tone::Plain);
    }
    if banner.is_empty() {
        add("there are no alarms", Tone::Good);
    }
    text
}

fn help_text(columns: u16) -> Vec<TextLine> {
    let keys = KEYS.iter().flat_map(|(keys, what)| {
        let blanks = " ".repeat(18_usize.saturating_sub(width(keys)));
        wrap(&format!("  {keys}{blanks}{what}"), columns.into(), 20)
    });
    let notes = [
        String::new(),
        "Rates are computed between the last two snapshots. – is a rate that is unknown, for example after a restart. A \
         row with ! is a dead upstream or a worker that does not respond, or has kernel drops."
            .to_owned(),
    ];
    let notes = notes.iter().flat_map(|note| wrap(note, columns.into(), 0));
    keys.chain(notes).map(|line| (line, Tone::Plain)).collect()
}
