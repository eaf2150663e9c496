//! Tests of the live view on snapshots of their own making: what is a rate, in which order rows stand, what is on the screen.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

use super::input::{Next, on_event};
use super::measure::{Measure, Noun};
use super::once;
use super::order::{Order, arrange};
use super::rates::Rates;
use super::sight::Sight;
use super::state::{Mode, Spots, State};
use super::view;
use crate::observe::snapshot::{HostCounts, Snapshot};

const SECOND: Duration = Duration::from_secs(1);

fn account(received: u64, dropped: u64) -> Value {
    let drops = if dropped > 0 {
        json!({ "low_source_port": dropped })
    } else {
        json!({})
    };
    json!({ "received": received, "handled": received - dropped, "dropped": dropped, "in_flight": 0, "drops": drops })
}

fn with(mut row: Value, more: &Value) -> Value {
    let more = more.as_object().expect("an object").clone();
    row.as_object_mut().expect("an object").extend(more);
    row
}

fn route(name: &str, received: u64, dropped: u64) -> Value {
    with(json!({ "route": name }), &account(received, dropped))
}

fn handler(name: &str, sent: u64) -> Value {
    let sessions = json!({ "open": 7, "on_probation": 2, "opened": 9, "idle": 1, "unanswered": 1, "complete": 0,
        "displaced": 0, "broken": 0, "one_way": 0, "ports": 8 });
    let rest = json!({ "handler": name, "kind": "forward", "sent": sent, "failed": { "ENETUNREACH": 3 }, "reported": {},
        "replies": account(0, 0), "sessions": sessions });
    with(rest, &account(sent, 0))
}

fn upstream(address: &str, is_alive: bool, sent: u64) -> Value {
    json!({ "handler": "pool", "upstream": address, "address": address, "alive": is_alive, "dead_in_workers": 0,
        "draining": false, "drained_by_hand": false, "last_failure": null, "sessions": 4, "sent": sent, "failed": {},
        "reported": {}, "skipped": 0, "replies": 0, "kernel_drops": 0, "shadow": null })
}

fn listener(name: &str, received: u64, kernel_drops: u64) -> Value {
    with(
        json!({ "listener": name, "kernel_drops": kernel_drops, "receive_errors": 0 }),
        &account(received, 0),
    )
}

/// A snapshot of this process after so many milliseconds, in which these keys are others.
fn snapshot(pid: u32, uptime_ms: u64, others: &Value) -> Snapshot {
    let snapshot = json!({
        "version": "0.1.0", "pid": pid, "config_file": "u.toml", "generation": 0, "started": 1_000, "reloaded": null,
        "reloads": { "applied": 0, "refused": 0, "last_refused": null }, "taken_unix_ms": 1_000_000 + uptime_ms,
        "uptime_ms": uptime_ms, "state": "serving", "reasons": [], "alarms": [], "workers": [], "listeners": [],
        "routes": [], "handlers": [], "upstreams": [],
        "flows": { "listener_to_route": [], "route_to_handler": [], "handler_to_upstream": [], "is_cut": false },
        "drops": {}, "send_errors": {}, "host": HostCounts::default(),
        "admin": crate::observe::snapshot::AdminRow::default(), "balances": true,
    });
    serde_json::from_value(with(snapshot, others)).expect("a snapshot")
}

fn routes(pid: u32, uptime_ms: u64, routes: &[(&str, u64)]) -> Snapshot {
    let routes: Vec<Value> = routes
        .iter()
        .map(|(name, received)| route(name, *received, 0))
        .collect();
    snapshot(pid, uptime_ms, &json!({ "routes": routes }))
}

fn received(rates: &Rates) -> Vec<(String, Option<f64>)> {
    let row = |row: &super::rates::Row| (row.item.key.name.clone(), row.value(Measure::Received));
    rates.rows(Noun::Routes).iter().map(row).collect()
}

/// A rate is what a counter rose by over the time that the daemon says has passed, not the time that answers took.
#[test]
fn rates_are_over_the_daemons_time() {
    let rates = Rates::between(
        Some(&routes(1, 5_000, &[("a", 100)])),
        &routes(1, 7_000, &[("a", 150)]),
    );
    assert_eq!(received(&rates), [("a".to_owned(), Some(25.0))]);
    let rates = Rates::between(None, &routes(1, 5_000, &[("a", 100)]));
    assert_eq!(
        received(&rates),
        [("a".to_owned(), None)],
        "one snapshot has no rates"
    );
    let rates = Rates::between(
        Some(&routes(1, 5_000, &[("a", 1)])),
        &routes(1, 5_000, &[("a", 2)]),
    );
    assert_eq!(
        received(&rates),
        [("a".to_owned(), None)],
        "no time, no rate"
    );
}

/// Rows come, go and change places, and each keeps its own rate; one that is new has none, also where names are alike.
#[test]
fn rows_are_told_apart_by_their_names() {
    let before = routes(
        1,
        1_000,
        &[("a", 10), ("b", 20), ("same", 100), ("same", 200)],
    );
    let after = routes(
        1,
        2_000,
        &[
            ("new", 9),
            ("b", 23),
            ("same", 101),
            ("same", 202),
            ("same", 7),
        ],
    );
    let found = received(&Rates::between(Some(&before), &after));
    let rates: Vec<Option<f64>> = found.into_iter().map(|(_, rate)| rate).collect();
    assert_eq!(rates, [None, Some(3.0), Some(1.0), Some(2.0), None]);
}

/// After a restart nothing has a rate, whichever way the counters went; a takeover counts on, except where a counter went
/// back; a number that is as it is now is known all the time.
#[test]
fn counters_that_go_back_have_no_rate() {
    let before = routes(1, 90_000, &[("up", 10), ("down", 1_000)]);
    let restarted = routes(2, 1_000, &[("up", 5_000), ("down", 1)]);
    let mut restarted_later = restarted.clone();
    restarted_later.started = 2_000;
    for after in [&restarted, &restarted_later] {
        let rates = Rates::between(Some(&before), after);
        assert_eq!(
            received(&rates),
            [("up".to_owned(), None), ("down".to_owned(), None)]
        );
        assert_eq!(
            rates.rows(Noun::Routes)[0].value(Measure::InFlight),
            Some(0.0)
        );
        assert_eq!(
            rates.sum(Noun::Routes, Measure::Received),
            None,
            "nor has the sum"
        );
    }
    let mut taken_over = routes(2, 500, &[("up", 14), ("down", 1)]);
    (taken_over.generation, taken_over.taken_unix_ms) = (1, before.taken_unix_ms + 2_000);
    let rates = Rates::between(Some(&before), &taken_over);
    assert_eq!(
        received(&rates),
        [("up".to_owned(), Some(2.0)), ("down".to_owned(), None)]
    );
}

/// Each column sorts both ways; what is not known stands last either way; equals stay in the file's order.
#[test]
fn rows_stand_in_order() {
    let before = routes(1, 1_000, &[("b", 0), ("c", 0), ("a", 0), ("d", 9)]);
    let after = routes(1, 2_000, &[("b", 5), ("c", 5), ("a", 8), ("d", 1)]);
    let rates = Rates::between(Some(&before), &after);
    let names = |filter: &str, order: Order| -> String {
        let rows = arrange(Noun::Routes, rates.rows(Noun::Routes), filter, order);
        rows.iter().map(|row| row.item.key.name.as_str()).collect()
    };
    let busiest = Order::default(Noun::Routes);
    assert_eq!(names("", busiest), "abcd");
    assert_eq!(names("", busiest.reverse()), "bcad");
    let by_name = busiest.shift(Noun::Routes, -1);
    assert_eq!(
        (names("", by_name), names("", by_name.reverse())),
        ("abcd".to_owned(), "dcba".to_owned())
    );
    assert_eq!(names("B", busiest), "b", "a filter knows no case");
    assert_eq!(
        by_name.shift(Noun::Routes, -1).measure(Noun::Routes),
        Some(Measure::InFlight),
        "it goes round"
    );
    let workers: Vec<Value> = [10, 2]
        .iter()
        .map(|number| with(json!({ "worker": number, "answers": true }), &account(0, 0)))
        .collect();
    let rates = Rates::between(None, &snapshot(1, 1, &json!({ "workers": workers })));
    let rows = arrange(
        Noun::Workers,
        rates.rows(Noun::Workers),
        "",
        Order::default(Noun::Workers),
    );
    assert_eq!(
        rows[0].item.key.name, "worker-10",
        "workers stand as the daemon lists them, not by letters"
    );
}

/// History is as long as two minutes, has gaps where nothing was heard, ends with its row, and a narrow picture keeps its
/// peaks.
#[test]
fn history_is_two_minutes_of_samples() {
    let start = Instant::now();
    let mut sight = Sight::first(routes(1, 0, &[("a", 0)]), start, SECOND);
    let key = sight.rates.rows(Noun::Routes)[0].item.key.clone();
    for second in 1..=300_u64 {
        sight.advance(
            routes(
                1,
                second * 1_000,
                &[("a", second * 10 + if second >= 290 { 90 } else { 0 })],
            ),
            start,
        );
    }
    sight.miss();
    let wide = sight.spark(Noun::Routes, &key, 500);
    assert_eq!(wide.len(), 120);
    assert_eq!((wide[0], wide[118], wide[119]), (Some(10), Some(10), None));
    assert_eq!(wide.iter().flatten().max(), Some(&100));
    for columns in 1..120 {
        let narrow = sight.spark(Noun::Routes, &key, columns);
        assert_eq!(
            (narrow.len(), narrow.iter().flatten().max()),
            (columns, Some(&100))
        );
    }
    sight.advance(routes(1, 301_000, &[]), start);
    sight.advance(routes(1, 302_000, &[("a", 1)]), start);
    assert_eq!(
        sight.spark(Noun::Routes, &key, 120),
        [None; 120],
        "a row that comes again is new"
    );
}

/// A daemon with something of everything, one second on.
fn busy(has_colours: bool) -> State {
    let alarm = json!({ "name": "kernel_drops", "about": "127.0.0.1:53", "since": 990,
        "text": "the kernel dropped 40 datagrams", "cure": "raise `receive_buffer`" });
    let at = |uptime_ms: u64, more: u64| {
        snapshot(
            4242,
            uptime_ms,
            &json!({
                "alarms": [alarm],
                "workers": [with(json!({ "worker": 0, "answers": true }), &account(more, 0)),
                    with(json!({ "worker": 1, "answers": false }), &account(0, 0))],
                "listeners": [listener("127.0.0.1:53", 1_000 + more, 2 + more / 100)],
                "routes": [route("127.0.0.1:53", 1_000 + more, more / 10), route("quiet \u{1b}[2J\u{202e}", 5, 0)],
                "handlers": [handler("pool", 100 + more)],
                "upstreams": [upstream("10.0.0.1:53", true, 50 + more), upstream("10.0.0.2:53", false, 50)],
                "flows": { "listener_to_route": [{ "from": 0, "to": 0 }], "route_to_handler": [{ "from": 0, "to": 0 }],
                    "handler_to_upstream": [{ "from": 0, "to": 0 }, { "from": 0, "to": 1 }], "is_cut": false },
            }),
        )
    };
    let start = Instant::now();
    let mut state = State::new(at(64_000, 0), start, SECOND, has_colours);
    state.hear(Ok(at(65_000, 1_200)), start + SECOND);
    state
}

/// What is on a screen of this size, without blanks at the ends of lines; and where things are.
fn screen(state: &mut State, columns: u16, lines: u16) -> (Vec<String>, Spots) {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("a terminal");
    let mut spots = Spots::default();
    let now = state.sight().at + SECOND;
    let frame = terminal
        .draw(|frame| spots = view::draw(frame, state, now))
        .expect("drawn");
    let line = |y| {
        (0..columns)
            .map(|x| frame.buffer[(x, y)].symbol())
            .collect::<String>()
            .trim_end()
            .to_owned()
    };
    let text = (0..lines).map(line).collect();
    state.settle(&spots);
    (text, spots)
}

fn press(state: &mut State, spots: &Spots, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        let event = Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(on_event(state, spots, &event), Next::GoOn, "{key:?}");
    }
}

/// The first screen tells how the daemon is, what goes in and out, what the kernel drops, what is wrong, and the routes
/// with their numbers below their heads.
#[test]
fn the_first_screen() {
    let (text, _) = screen(&mut busy(true), 80, 24);
    let expected = [
        "udispatch serving  up 1 min 5 s  2 workers  generation 0  pid 4242  0.1.0",
        "in 1200/s  out 1200/s  dropped 0/s  KERNEL DROPS 12/s (14)  unwritten 0",
        "! kernel_drops: the kernel dropped 40 datagrams",
        "[1 routes] 2 handlers  3 upstreams  4 listeners  5 workers             2 routes",
        "  route                   ▼received/s  handled/s  dropped/s  in flight",
        "> 127.0.0.1:53                   1200       1080        120          0",
        "  quiet \\u{1b}[2J\\u{202e}           0          0          0          0",
    ];
    assert_eq!(text[..7], expected, "{text:#?}");
    assert_eq!(
        text[23],
        "q quit  ? help  Enter details  / filter  s sort  r turn  Space pause"
    );
}

/// Each table has its columns, as many as there is room for, and always the one that it is sorted by.
#[test]
fn each_table_has_its_columns() {
    let mut state = busy(true);
    let spots = Spots::default();
    press(&mut state, &spots, "2");
    let (text, _) = screen(&mut state, 80, 24);
    assert_eq!(
        text[4],
        "  handler      ▼received/s  handled/s  dropped/s  in flight   sent/s  sessions"
    );
    assert_eq!(
        text[5],
        "> pool                1200       1200          0          0     1200         7"
    );
    press(&mut state, &spots, "<<");
    let (text, _) = screen(&mut state, 80, 24);
    assert!(
        text[4].ends_with("▼replies/s") && !text[4].contains("sessions"),
        "{text:#?}"
    );
    press(&mut state, &spots, "\t");
    let (text, _) = screen(&mut state, 80, 24);
    assert_eq!(
        text[4],
        "  upstream         state  ▼sent/s  not sent/s  replies/s  sessions  skipped/s"
    );
    assert_eq!(
        text[5],
        "> pool/10.0.0.1:53 alive     1200           0          0         4          0"
    );
    assert_eq!(
        text[6],
        " !pool/10.0.0.2:53 DEAD         0           0          0         4          0"
    );
    press(&mut state, &spots, "5");
    let (text, _) = screen(&mut state, 80, 24);
    assert!(text[6].starts_with(" !worker-1     SILENT"), "{text:#?}");
}

/// A row in full: numbers, the alarm about it with its cure, drops by reason with what they mean, where it leads to.
#[test]
fn a_row_in_full() {
    let mut state = busy(true);
    let spots = Spots::default();
    press(&mut state, &spots, "\n");
    let (text, _) = screen(&mut state, 80, 40);
    let text = text.join("\n");
    for words in [
        "127.0.0.1:53  received/s of the last 2 minutes, at most 1200",
        "  received                  2200        1200/s",
        "! the kernel dropped 40 datagrams\n    → raise `receive_buffer`",
        "dropped, by reason\n  120 (120/s) low_source_port  source port below 1024;",
        "handlers: pool",
        "█",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    press(&mut state, &spots, "\u{1b}2\n");
    let (text, _) = screen(&mut state, 80, 40);
    let text = text.join("\n");
    for words in [
        "not sent, by errno\n  3 (0/s) ENETUNREACH",
        "sessions\n  7 open, 2 of them on probation, 9 ever; 8 ports",
        "upstreams: pool/10.0.0.1:53, pool/10.0.0.2:53",
        "kind: forward",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

/// What matters stands out without colours, and with them; where colours are not wanted there are none.
#[test]
fn alarms_stand_out_without_colours() {
    for has_colours in [true, false] {
        let state = busy(has_colours);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        let frame = terminal
            .draw(|frame| _ = view::draw(frame, &state, Instant::now()))
            .expect("drawn");
        let alarm = &frame.buffer[(2, 2)];
        assert!(alarm.modifier.contains(Modifier::REVERSED | Modifier::BOLD));
        let is_coloured =
            |cell: &ratatui::buffer::Cell| cell.fg != Color::Reset || cell.bg != Color::Reset;
        assert_eq!(frame.buffer.content.iter().any(is_coloured), has_colours);
    }
}

/// Nothing that a terminal would obey is in a cell, whatever the daemon says, on any screen.
#[test]
fn no_control_character_reaches_the_terminal() {
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\r\n\u{202e}";
    let alarm = json!({ "name": evil, "about": evil, "since": 0, "text": evil, "cure": evil });
    let others = json!({
        "version": evil, "config_file": evil, "state": "degraded", "reasons": [evil], "alarms": [alarm],
        "routes": [with(route(evil, 1, 0), &json!({ "drops": { evil: 1 } }))],
        "handlers": [with(handler(evil, 1), &json!({ "kind": evil, "failed": { evil: 1 }, "reported": { evil: 1 } }))],
        "upstreams": [with(upstream(evil, false, 1), &json!({ "last_failure": { "at": 0, "text": evil, "cure": evil } }))],
        "listeners": [listener(evil, 1, 1)], "drops": { evil: 1 }, "send_errors": { evil: 1 },
    });
    let snapshot = snapshot(1, 1_000, &others);
    let mut state = State::new(snapshot.clone(), Instant::now(), SECOND, true);
    state.hear(Ok(snapshot.clone()), Instant::now());
    state.hear(Err(evil.to_owned()), Instant::now());
    let spots = Spots::default();
    for keys in [
        "1", "2", "3", "4", "5", "1\n", "2\n", "3\n", "4\n", "a", "?",
    ] {
        press(&mut state, &spots, keys);
        let (text, _) = screen(&mut state, 200, 60);
        assert!(
            !text.concat().contains(crate::config::words::is_unprintable),
            "{keys:?}: {text:#?}"
        );
        assert!(
            keys.len() > 1 || text.concat().contains("u{1b}"),
            "{keys:?} shows it escaped: {text:#?}"
        );
    }
    let rates = Rates::between(None, &snapshot);
    let text = once::text(&snapshot, &rates) + &once::json(&snapshot, &rates);
    assert!(
        !text.contains(|letter| letter != '\n' && char::is_control(letter)),
        "{text:?}"
    );
}

/// No size of a window and no mode makes it panic; down to 40×10 the state, the first row and the keys are there.
#[test]
fn every_size_can_be_drawn() {
    let mut state = busy(true);
    for keys in ["1", "2", "3\n", "4", "4\n", "a", "?", "1/x", "\u{1b}"] {
        press(&mut state, &Spots::default(), keys);
        for columns in [1, 2, 3, 5, 8, 13, 20, 39, 60, 80, 200] {
            for lines in [1, 2, 3, 4, 5, 6, 10, 15, 24] {
                screen(&mut state, columns, lines);
            }
        }
    }
    press(&mut state, &Spots::default(), "1");
    let (text, _) = screen(&mut state, 40, 10);
    assert!(text[0].starts_with("udispatch serving"), "{text:#?}");
    assert!(
        text[5].starts_with("> 127.0.0.1:53") && text[5].contains("1200"),
        "{text:#?}"
    );
    assert!(text[9].starts_with("q quit"), "{text:#?}");
}

/// A long table scrolls with its selection, which stays on its row when others overtake it.
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
    let mut state = State::new(at(0, |_| 0), Instant::now(), SECOND, false);
    state.hear(Ok(at(1_000, |number| 1_000 - number)), Instant::now());
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
    state.hear(Ok(at(2_000, |number| 1_000 + number)), Instant::now());
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
        "the filter is gone, the choice is not"
    );
}

/// While no answer comes that is said, with the age of what is shown; paused numbers stand still, and then go on.
#[test]
fn silence_and_pause() {
    let mut state = busy(false);
    let spots = Spots::default();
    state.hear(Err("nobody answers at /run/x".to_owned()), Instant::now());
    let text = screen(&mut state, 120, 24).0;
    assert!(
        text[0].starts_with("udispatch  NO ANSWER  1 s old"),
        "{text:#?}"
    );
    assert!(
        text[2].contains("what you see is 1 s old; trying again: nobody answers at /run/x"),
        "{text:#?}"
    );
    press(&mut state, &spots, " ");
    state.hear(Ok(routes(4242, 66_000, &[("other", 1)])), Instant::now());
    let text = screen(&mut state, 80, 24).0.join("\n");
    assert!(
        text.contains(" PAUSED ") && text.contains("127.0.0.1:53") && !text.contains("other"),
        "{text}"
    );
    assert!(!text.contains("NO ANSWER"), "{text}");
    press(&mut state, &spots, " ");
    let text = screen(&mut state, 80, 24).0.join("\n");
    assert!(text.contains("other") && !text.contains("PAUSED"), "{text}");
}

/// The mouse chooses tabs, rows and the order; the wheel goes through rows; everything works without it too.
#[test]
fn the_mouse_is_one_way() {
    let mut state = busy(true);
    let (_, spots) = screen(&mut state, 80, 24);
    let mouse = |state: &mut State, spots: &Spots, kind, column, row| {
        let mouse = MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        };
        assert_eq!(on_event(state, spots, &Event::Mouse(mouse)), Next::GoOn);
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    let name = |state: &State| {
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
    assert_eq!(state.noun, Noun::Handlers);
    let (_, spots) = screen(&mut state, 80, 24);
    mouse(&mut state, &spots, click, 5, 5);
    mouse(&mut state, &spots, click, 5, 5);
    assert_eq!(state.mode, Mode::Detail, "the second click opens it");
}

/// q and Ctrl-C end it, whatever is open; letters of a filter are letters, q too.
#[test]
fn ends_when_it_is_told() {
    let spots = Spots::default();
    let end = |state: &mut State, code, modifiers| {
        on_event(state, &spots, &Event::Key(KeyEvent::new(code, modifiers))) == Next::End
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

/// JSON has every row under its names, rates where they are known, null where not, and whole numbers that are whole.
#[test]
fn json_has_every_row() {
    let before = snapshot(
        1,
        1_000,
        &json!({ "upstreams": [upstream("10.0.0.1:53", true, 10)] }),
    );
    let upstreams = [
        upstream("10.0.0.1:53", true, 30),
        upstream("10.0.0.2:53", false, 30),
    ];
    let after = snapshot(
        1,
        3_000,
        &json!({ "upstreams": upstreams, "routes": [route("a", 1, 0)] }),
    );
    let text = once::json(&after, &Rates::between(Some(&before), &after));
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&json["elapsed_ms"], &json["state"]),
        (&json!(2_000), &json!("serving"))
    );
    let first = &json["upstreams"][0];
    assert_eq!(
        (&first["handler"], &first["upstream"]),
        (&json!("pool"), &json!("10.0.0.1:53"))
    );
    assert_eq!(
        (&first["sent_per_second"], &first["sessions"]),
        (&json!(10.0), &json!(4))
    );
    assert_eq!(json["upstreams"][1]["sent_per_second"], Value::Null);
    assert_eq!(json["routes"][0]["received_per_second"], Value::Null);
    assert_eq!(json["workers"], json!([]));
}
