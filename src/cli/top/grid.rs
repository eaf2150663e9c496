//! The table: selects the columns that fit, and draws the lines.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::format;
use super::measure::{Measure, RowKind};
use super::palette::Tone;
use super::rates::RateRow;
use super::state::{Spots, TopState};
use super::text::{fit, width};

/// Width of the name column: the minimum, and the maximum that it may take from the numbers.
const NAME: std::ops::RangeInclusive<usize> = 12..=24;
/// Smallest width of a number column.
const NUMBER: usize = 8;
/// Width of the marks before a name, for the selection and for problems.
const MARKS: usize = 2;

/// The columns that are shown, and their widths.
struct Columns {
    /// Width of the name column, including the marks.
    name: usize,
    /// Width of the note column, including the blank before it.
    note: usize,
    /// The measures, each with its index among the columns of the table.
    measures: Vec<(usize, Measure)>,
}

impl Columns {
    /// Selects as many columns as fit. The column that the rows are sorted by is always among them.
    fn fit(state: &TopState, rows: &[&RateRow], room: usize) -> Columns {
        let row_kind = state.row_kind;
        let longest = rows
            .iter()
            .map(|row| width(&row.item.key.name))
            .max()
            .unwrap_or(0);
        let least = MARKS + longest.clamp(*NAME.start(), *NAME.end());
        let notes = rows
            .iter()
            .map(|row| 1 + width(&row.item.note))
            .max()
            .unwrap_or(0);
        let note = row_kind.note().map_or(0, |head| notes.max(1 + head.len()));
        let mut room_left = room.saturating_sub(least + note);
        let sorted = state.order().column;
        let all = row_kind
            .measures()
            .iter()
            .enumerate()
            .map(|(index, measure)| (index + 1, *measure));
        let (must, may): (Vec<_>, Vec<_>) = all.partition(|(column, _)| *column == sorted);
        let mut measures = Vec::new();
        for (column, measure) in must.into_iter().chain(may) {
            let Some(left) = room_left.checked_sub(number_width(measure)) else {
                break;
            };
            room_left = left;
            measures.push((column, measure));
        }
        measures.sort_by_key(|(column, _)| *column);
        let taken: usize = measures
            .iter()
            .map(|(_, measure)| number_width(*measure))
            .sum();
        let name = room
            .saturating_sub(note + taken)
            .min(MARKS + longest.max(*NAME.start()));
        Columns {
            name,
            note,
            measures,
        }
    }
}

/// Returns the width of a number column, including the blank before it, and space for the sort mark.
fn number_width(measure: Measure) -> usize {
    1 + (1 + measure.head().len()).max(NUMBER)
}

/// Draws the table into its area, and records where headings and rows are.
pub(super) fn draw(frame: &mut Frame<'_>, state: &TopState, area: Rect, spots: &mut Spots) {
    let rows = state.rows();
    let columns = Columns::fit(state, &rows, area.width.into());
    let [head, body] = [
        Rect {
            height: area.height.min(1),
            ..area
        },
        below(area),
    ];
    frame.render_widget(head_line(state, &columns, head, spots), head);
    let height = usize::from(body.height);
    let selected = state.selected(&rows);
    let first = state.first(rows.len(), selected, height);
    let shown = rows.iter().enumerate().skip(first).take(height);
    for ((at, row), area) in shown.zip(body.rows()) {
        let line = row_line(state, &columns, row, at == selected);
        frame.render_widget(line, area);
    }
    if rows.is_empty() {
        let why = if state.filter.is_empty() {
            format!("  no {}", state.row_kind.label())
        } else {
            format!(
                "  no {} match the filter; Esc clears it",
                state.row_kind.label()
            )
        };
        frame.render_widget(Line::from(why), body);
    }
    spots.body = body;
    spots.first = first;
}

fn below(area: Rect) -> Rect {
    Rect {
        y: area.y.saturating_add(area.height.min(1)),
        height: area.height.saturating_sub(1),
        ..area
    }
}

fn head_line(state: &TopState, columns: &Columns, area: Rect, spots: &mut Spots) -> Line<'static> {
    let order = state.order();
    let sign = |column| match (order.column == column, order.is_falling) {
        (false, _) => "",
        (true, true) => "▼",
        (true, false) => "▲",
    };
    let mut cells = vec![fit(
        &format!(
            "{}{}{}",
            " ".repeat(MARKS),
            sign(0),
            state.row_kind.singular()
        ),
        columns.name,
    )];
    let mut at = area.x;
    let mut place = |cell: &str, column: Option<usize>| {
        let place = Rect {
            x: at,
            width: u16::try_from(width(cell)).unwrap_or(u16::MAX),
            ..area
        }
        .intersection(area);
        spots.heads.extend(column.map(|column| (place, column)));
        at = at.saturating_add(place.width);
    };
    place(&cells[0], Some(0));
    if let Some(head) = state.row_kind.note() {
        cells.push(fit(&format!(" {head}"), columns.note));
        place(&cells[1], None);
    }
    for (column, measure) in &columns.measures {
        let head = format!("{}{}", sign(*column), measure.head());
        let cell = format!("{head:>width$}", width = number_width(*measure));
        place(&cell, Some(*column));
        cells.push(cell);
    }
    Line::styled(cells.concat(), Tone::Strong.style(state.has_colours))
}

fn row_line(
    state: &TopState,
    columns: &Columns,
    row: &RateRow,
    is_selected: bool,
) -> Line<'static> {
    let style = |tone: Tone| tone.style(state.has_colours);
    let marks = format!(
        "{}{}",
        if is_selected { '>' } else { ' ' },
        if row.stands_out() { '!' } else { ' ' }
    );
    let name_tone = if row.stands_out() {
        Tone::Warning
    } else {
        Tone::Plain
    };
    let name = fit(&(marks + &row.item.key.name), columns.name);
    let mut spans = vec![Span::styled(name, style(name_tone))];
    if state.row_kind.note().is_some() {
        let tone = if row.item.is_bad {
            Tone::Alarm
        } else {
            Tone::Good
        };
        // The blank before the number is not highlighted.
        spans.extend([
            Span::raw(" "),
            Span::styled(row.item.note.clone(), style(tone)),
        ]);
        let blanks = columns.note.saturating_sub(1 + width(&row.item.note));
        spans.push(Span::raw(" ".repeat(blanks)));
    }
    for (_, measure) in &columns.measures {
        let value = row.value(*measure);
        let is_bad = measure.is_loss() && value.is_some_and(|value| value > 0.0);
        let text = format!(
            "{:>width$}",
            format::value(value),
            width = number_width(*measure)
        );
        spans.push(Span::styled(
            text,
            style(if is_bad { Tone::Warning } else { Tone::Plain }),
        ));
    }
    let line = Line::from(spans);
    if is_selected {
        line.style(style(Tone::Selected))
    } else {
        line
    }
}

/// Returns how many rows there are, and how many of them are shown.
pub(super) fn counted(state: &TopState) -> String {
    let all = state.snapshots().rates.rows(state.row_kind).len();
    let shown = state.rows().len();
    let row_kind: &str = if all == 1 {
        RowKind::singular(state.row_kind)
    } else {
        state.row_kind.label()
    };
    if all == shown {
        format!("{all} {row_kind}")
    } else {
        format!("{shown} of {all} {row_kind}")
    }
}
