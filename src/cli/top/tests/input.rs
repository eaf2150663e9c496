//! Tests of keys and the mouse.

use std::time::Instant;

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::super::input::{InputOutcome, on_event};
use super::super::measure::RowKind;
use super::super::order::Order;
use super::super::state::{Mode, Spots, TopState};
use super::{SECOND, busy, press, routes, screen};

/// A long table scrolls with its selection, which stays on its row when other rows move above it.
#[test]
fn the_selection_stays_on_its_row() {
    let names: Vec<String> = (0..100)
        .map(|number| format!("route-{number:02}"))
        .collect();
    let at = |uptime_ms, of: fn(u64) -> u64| {
        let rows: Vec<(&str, u64)> = names
            .iter()
            .zip(0..)
            .map(|(name, number)| (name.as_str(), of(number)))
            .collect();
        routes(1, uptime_ms, &rows)
    };
    let mut state = TopState::new(at(0, |_| 0), Instant::now(), SECOND, false);
    state.on_response(Ok(at(1_000, |number| 1_000 - number)), Instant::now());
    let (_, spots) = screen(&mut state, 80, 24);
    press(&mut state, &spots, &"j".repeat(50));
    let (text, spots) = screen(&mut state, 80, 24);
    let selected = |text: &[String]| {
        text.iter()
            .filter(|line| line.starts_with('>'))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(selected(&text).len(), 1);
    assert!(selected(&text)[0].starts_with("> route-50"), "{text:#?}");
    assert!(
        text[3].is_empty() || text[2].contains("100 routes"),
        "{text:#?}"
    );
    state.on_response(Ok(at(2_000, |number| 1_000 + number)), Instant::now());
    let (text, spots) = { (screen(&mut state, 80, 24).0, spots) };
    assert!(selected(&text)[0].starts_with("> route-50"), "{text:#?}");
    press(&mut state, &spots, "/route-07\n");
    let (text, spots) = screen(&mut state, 80, 24);
    assert!(
        selected(&text)[0].starts_with("> route-07") && text.concat().contains("1 of 100 routes"),
        "{text:#?}"
    );
    press(&mut state, &spots, "\u{1b}");
    assert!(
        selected(&screen(&mut state, 80, 24).0)[0].starts_with("> route-50"),
        "the filter is cleared, and the selection stays"
    );
}

/// The mouse selects tabs, rows and the order, and the wheel moves through rows. Keys can do the same.
#[test]
fn the_mouse_selects() {
    let mut state = busy(true);
    let (_, spots) = screen(&mut state, 80, 24);
    let mouse = |state: &mut TopState, spots: &Spots, kind, column, row| {
        let mouse = MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        };
        assert_eq!(
            on_event(state, spots, &Event::Mouse(mouse)),
            InputOutcome::Continue
        );
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    let name = |state: &TopState| {
        state
            .chosen()
            .map(|key| key.name.clone())
            .unwrap_or_default()
    };
    mouse(&mut state, &spots, click, 5, 6);
    assert!(name(&state).starts_with("quiet"), "{state:?}");
    mouse(&mut state, &spots, MouseEventKind::ScrollUp, 5, 6);
    assert_eq!(name(&state), "127.0.0.1:53");
    mouse(&mut state, &spots, click, 5, 20);
    assert_eq!(
        state.mode,
        Mode::Table,
        "below the last row there is nothing"
    );
    mouse(&mut state, &spots, click, 5, 4);
    assert_eq!(
        state.order(),
        Order {
            column: 0,
            is_falling: false
        }
    );
    mouse(&mut state, &spots, click, 5, 4);
    assert!(state.order().is_falling);
    mouse(&mut state, &spots, click, 14, 3);
    assert_eq!(state.row_kind, RowKind::Handlers);
    let (_, spots) = screen(&mut state, 80, 24);
    mouse(&mut state, &spots, click, 5, 5);
    mouse(&mut state, &spots, click, 5, 5);
    assert_eq!(state.mode, Mode::Detail, "the second click opens it");
}

/// q and Ctrl-C end the view in every mode, but q is a letter while a filter is edited.
#[test]
fn q_and_ctrl_c_end_the_view() {
    let spots = Spots::default();
    let end = |state: &mut TopState, code, modifiers| {
        on_event(state, &spots, &Event::Key(KeyEvent::new(code, modifiers))) == InputOutcome::End
    };
    for keys in ["", "?", "a", "\n", "/q"] {
        let mut state = busy(true);
        press(&mut state, &spots, keys);
        assert_eq!(
            end(&mut state, KeyCode::Char('q'), KeyModifiers::NONE),
            keys != "/q"
        );
        assert!(end(&mut state, KeyCode::Char('c'), KeyModifiers::CONTROL));
    }
}
