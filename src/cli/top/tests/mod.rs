//! Tests of the live view on constructed snapshots, and their helpers.

mod batch;
mod input;
mod rates;
mod screen;

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::input::{InputOutcome, on_event};
use super::measure::{Measure, RowKind};
use super::rates::Rates;
use super::state::{Spots, TopState};
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
    let sessions = json!({ "open": 7, "unreplied": 2, "opened": 9, "idle": 1, "unanswered": 1, "complete": 0,
        "evicted": 0, "broken": 0, "one_way": 0, "ports": 8 });
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

/// Returns a snapshot of process `pid` after `uptime_ms`, with the values of `others`.
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
    let row =
        |row: &super::rates::RateRow| (row.item.key.name.clone(), row.value(Measure::Received));
    rates.rows(RowKind::Routes).iter().map(row).collect()
}

/// Returns the state for a daemon with some of everything, after one second.
fn busy(has_colours: bool) -> TopState {
    let alarm = json!({ "name": "kernel_drops", "about": "127.0.0.1:53", "since": 990,
        "text": "the kernel dropped 40 datagrams", "cure": "raise `receive_buffer`" });
    let at = |uptime_ms: u64, more: u64| {
        snapshot(
            4242,
            uptime_ms,
            &json!({
                "alarms": [alarm],
                "workers": [with(json!({ "worker": 0, "responsive": true }), &account(more, 0)),
                    with(json!({ "worker": 1, "responsive": false }), &account(0, 0))],
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
    let mut state = TopState::new(at(64_000, 0), start, SECOND, has_colours);
    state.on_response(Ok(at(65_000, 1_200)), start + SECOND);
    state
}

/// Returns the lines of a screen of this size without trailing blanks, and where its elements are.
fn screen(state: &mut TopState, columns: u16, lines: u16) -> (Vec<String>, Spots) {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("a terminal");
    let mut spots = Spots::default();
    let now = state.snapshots().at + SECOND;
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

fn press(state: &mut TopState, spots: &Spots, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        let event = Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(
            on_event(state, spots, &event),
            InputOutcome::Continue,
            "{key:?}"
        );
    }
}
