//! Keys and the mouse, and how each changes the state. The help shows [`KEYS`].

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;

use super::measure::RowKind;
use super::state::{Mode, Spots, TopState};

/// Number of rows that a page key moves if the height of the table is unknown.
const PAGE_ROWS: isize = 10;
/// Number of rows that a step of the wheel moves.
const WHEEL_ROWS: isize = 3;

/// The keys, and what they do.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "1 … 5, Tab",
        "routes, handlers, upstreams, listeners, workers",
    ),
    ("↑ ↓, PgUp PgDn", "select a row (also j k, Home End)"),
    ("Enter", "the row in full: drops, errors, sessions, history"),
    ("Esc", "back; clears the filter"),
    ("< >, s", "sort by another column"),
    ("r", "reverse the order"),
    ("/", "show only rows whose name or kind has this text"),
    ("a", "alarms and what to do about them"),
    ("Space", "pause, and continue"),
    ("q, Ctrl-C", "quit"),
    (
        "mouse",
        "click tabs, rows, headings; wheel; Shift selects text",
    ),
];

/// Whether the program continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputOutcome {
    Continue,
    End,
}

/// Handles a key, a mouse event, or a change of the window's size.
pub(super) fn on_event(state: &mut TopState, spots: &Spots, event: &Event) -> InputOutcome {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => return on_key(state, spots, key),
        Event::Mouse(mouse) => on_mouse(state, spots, mouse),
        _ => {}
    }
    InputOutcome::Continue
}

fn on_key(state: &mut TopState, spots: &Spots, key: &KeyEvent) -> InputOutcome {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') {
            InputOutcome::End
        } else {
            InputOutcome::Continue
        };
    }
    if state.mode == Mode::Filter && on_filter_key(state, key.code) {
        return InputOutcome::Continue;
    }
    let page = isize::try_from(spots.body.height)
        .ok()
        .filter(|rows| *rows > 0)
        .unwrap_or(PAGE_ROWS);
    match key.code {
        KeyCode::Char('q') => return InputOutcome::End,
        KeyCode::Char(digit @ '1'..='5') => state.show(RowKind::ALL[digit as usize - '1' as usize]),
        KeyCode::Tab | KeyCode::Right => state.turn(1),
        KeyCode::BackTab | KeyCode::Left => state.turn(-1),
        KeyCode::Down | KeyCode::Char('j') => state.go(1),
        KeyCode::Up | KeyCode::Char('k') => state.go(-1),
        KeyCode::PageDown => state.go(page),
        KeyCode::PageUp => state.go(-page),
        KeyCode::Home => state.go(-isize::MAX),
        KeyCode::End => state.go(isize::MAX),
        KeyCode::Enter if state.mode == Mode::Table => state.open(),
        KeyCode::Esc | KeyCode::Backspace => state.back(),
        KeyCode::Char('>' | 's') => state.sort(1),
        KeyCode::Char('<') => state.sort(-1),
        KeyCode::Char('r') => state.reverse(),
        KeyCode::Char('/') => state.set_mode(Mode::Filter),
        KeyCode::Char('a') => toggle(state, Mode::Alarms),
        KeyCode::Char('?' | 'h') => toggle(state, Mode::Help),
        KeyCode::Char(' ') => state.pause(),
        _ => {}
    }
    InputOutcome::Continue
}

/// Handles a key while a filter is edited, when letters are text. Returns whether the key was for the filter.
fn on_filter_key(state: &mut TopState, code: KeyCode) -> bool {
    match code {
        KeyCode::Char(letter) => state.write(letter),
        KeyCode::Backspace => _ = state.filter.pop(),
        KeyCode::Enter => state.set_mode(Mode::Table),
        _ => return false,
    }
    true
}

fn toggle(state: &mut TopState, mode: Mode) {
    state.set_mode(if state.mode == mode {
        Mode::Table
    } else {
        mode
    });
}

fn on_mouse(state: &mut TopState, spots: &Spots, mouse: &MouseEvent) {
    match mouse.kind {
        MouseEventKind::ScrollDown => state.go(WHEEL_ROWS),
        MouseEventKind::ScrollUp => state.go(-WHEEL_ROWS),
        MouseEventKind::Down(MouseButton::Left) => {
            on_click(state, spots, Position::new(mouse.column, mouse.row));
        }
        _ => {}
    }
}

fn on_click(state: &mut TopState, spots: &Spots, at: Position) {
    if let Some((_, row_kind)) = spots.tabs.iter().find(|(area, _)| area.contains(at)) {
        return state.show(*row_kind);
    }
    if !matches!(state.mode, Mode::Table | Mode::Filter) {
        return;
    }
    if let Some((_, column)) = spots.heads.iter().find(|(area, _)| area.contains(at)) {
        let by = column.cast_signed() - state.order().column.cast_signed();
        return if by == 0 {
            state.reverse();
        } else {
            state.sort(by);
        };
    }
    if !spots.body.contains(at) {
        return;
    }
    let clicked = spots.first + usize::from(at.y - spots.body.y);
    let rows = state.rows();
    let is_selected = state.chosen().is_some() && state.selected(&rows) == clicked;
    if clicked >= rows.len() {
        return;
    }
    state.select(clicked);
    // A second click on a row opens it.
    if is_selected {
        state.open();
    }
}
