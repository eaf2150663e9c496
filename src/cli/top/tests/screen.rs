//! Tests of what is on the screen.

use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use serde_json::json;

use super::super::rates::Rates;
use super::super::state::{Spots, TopState};
use super::super::{batch_output, view};
use super::{
    SECOND, busy, handler, listener, press, route, routes, screen, snapshot, upstream, with,
};

/// The first screen shows the daemon's state, the traffic in and out, kernel drops, problems, and the routes with
/// aligned numbers.
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
        "q quit  ? help  Enter details  / filter  s sort  r reverse  Space pause"
    );
}

/// Each table has as many of its columns as fit, and always the one that it is sorted by.
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

/// The detail view has the row's numbers, its alarm with the cure, drops by reason with their meaning, and where the
/// row leads.
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
        "sessions\n  7 sessions open, 2 unreplied, 8 source ports",
        "upstreams: pool/10.0.0.1:53, pool/10.0.0.2:53",
        "kind: forward",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

/// Problems stand out with colours and without. If colours are disabled, there are none.
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

/// No cell contains a control character on any screen, whatever the daemon sends.
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
    let mut state = TopState::new(snapshot.clone(), Instant::now(), SECOND, true);
    state.on_response(Ok(snapshot.clone()), Instant::now());
    state.on_response(Err(evil.to_owned()), Instant::now());
    let spots = Spots::default();
    for keys in [
        "1", "2", "3", "4", "5", "1\n", "2\n", "3\n", "4\n", "a", "?",
    ] {
        press(&mut state, &spots, keys);
        let (text, _) = screen(&mut state, 200, 60);
        assert!(
            !text
                .concat()
                .contains(crate::config::diagnostics::is_unprintable),
            "{keys:?}: {text:#?}"
        );
        assert!(
            keys.len() > 1 || text.concat().contains("u{1b}"),
            "{keys:?} shows it escaped: {text:#?}"
        );
    }
    let rates = Rates::between(None, &snapshot);
    let text = batch_output::text(&snapshot, &rates) + &batch_output::json(&snapshot, &rates);
    assert!(
        !text.contains(|letter| letter != '\n' && char::is_control(letter)),
        "{text:?}"
    );
}

/// No window size or mode causes a panic. Down to 40×10, the state, the first row and the keys are shown.
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

/// While the daemon does not respond, the screen says so with the age of the data. Paused numbers stand still until the
/// pause ends.
#[test]
fn silence_and_pause() {
    let mut state = busy(false);
    let spots = Spots::default();
    state.on_response(
        Err("no daemon listens on /run/x".to_owned()),
        Instant::now(),
    );
    let text = screen(&mut state, 120, 24).0;
    assert!(
        text[0].starts_with("udispatch  NO RESPONSE  1 s old"),
        "{text:#?}"
    );
    assert!(
        text[2].contains("what is shown is 1 s old; retrying: no daemon listens on /run/x"),
        "{text:#?}"
    );
    press(&mut state, &spots, " ");
    state.on_response(Ok(routes(4242, 66_000, &[("other", 1)])), Instant::now());
    let text = screen(&mut state, 80, 24).0.join("\n");
    assert!(
        text.contains(" PAUSED ") && text.contains("127.0.0.1:53") && !text.contains("other"),
        "{text}"
    );
    assert!(!text.contains("NO RESPONSE"), "{text}");
    press(&mut state, &spots, " ");
    let text = screen(&mut state, 80, 24).0.join("\n");
    assert!(text.contains("other") && !text.contains("PAUSED"), "{text}");
}
