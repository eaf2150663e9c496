//! Prints all tables once, for a pipe: rates over one interval, as text or as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::output::json_text;
use super::super::table::{Align, Table};
use super::format;
use super::measure::{Measure, RowKind};
use super::rates::{RateRow, Rates};
use crate::config::diagnostics::{counted, one_line};
use crate::observe::snapshot::Snapshot;

/// Returns all tables as text.
pub(super) fn text(snapshot: &Snapshot, rates: &Rates) -> String {
    let up = format::span(Duration::from_millis(snapshot.uptime_ms));
    let Snapshot {
        version,
        pid,
        generation,
        workers,
        state,
        ..
    } = snapshot;
    let workers = counted(workers.len(), "worker");
    let version = one_line(version);
    let state = state.label();
    let mut text = format!(
        "udispatch {version} {state}, up {up}, {workers}, generation {generation}, pid {pid}\n"
    );
    for reason in &snapshot.reasons {
        text += &format!("! {}\n", one_line(reason));
    }
    for alarm in &snapshot.alarms {
        text += &one_line(&format!(
            "! {}: {} → {}",
            alarm.name, alarm.text, alarm.cure
        ));
        text.push('\n');
    }
    for row_kind in RowKind::ALL
        .into_iter()
        .filter(|row_kind| !rates.rows(*row_kind).is_empty())
    {
        text.push('\n');
        text += &table(row_kind, rates.rows(row_kind));
    }
    text
}

fn table(row_kind: RowKind, rows: &[RateRow]) -> String {
    let mut heads = vec![(row_kind.singular(), Align::Left)];
    heads.extend(row_kind.note().map(|head| (head, Align::Left)));
    heads.extend(
        row_kind
            .measures()
            .iter()
            .map(|measure| (measure.head(), Align::Right)),
    );
    let mut table = Table::new(&heads);
    for row in rows {
        let note = row_kind.note().map(|_| row.item.note.clone());
        let numbers = row_kind
            .measures()
            .iter()
            .map(|measure| format::value(row.value(*measure)));
        table.row(
            [row.item.key.name.clone()]
                .into_iter()
                .chain(note)
                .chain(numbers),
        );
    }
    table.render()
}

/// Returns all tables as one JSON object. An unknown rate is null.
pub(super) fn json(snapshot: &Snapshot, rates: &Rates) -> String {
    let mut all = Map::new();
    all.insert("taken_unix_ms".to_owned(), snapshot.taken_unix_ms.into());
    let elapsed = rates
        .elapsed
        .and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok());
    all.insert("elapsed_ms".to_owned(), elapsed.into());
    all.insert("state".to_owned(), json!(snapshot.state));
    all.insert("alarms".to_owned(), json!(snapshot.alarms));
    for row_kind in RowKind::ALL {
        let rows = rates
            .rows(row_kind)
            .iter()
            .map(|row| object(row_kind, snapshot, row))
            .collect();
        all.insert(row_kind.label().to_owned(), Value::Array(rows));
    }
    json_text(&Value::Object(all).to_string()) + "\n"
}

fn object(row_kind: RowKind, snapshot: &Snapshot, row: &RateRow) -> Value {
    let mut object = Map::new();
    name(row_kind, snapshot, row, &mut object);
    for measure in row_kind.measures() {
        let value = row.value(*measure);
        // A current value is an integer and must not be printed as 3.0.
        let value = if measure.only_rises() {
            json!(value)
        } else {
            json!(row.count(*measure))
        };
        object.insert(Measure::key(*measure), value);
    }
    Value::Object(object)
}

/// Inserts the names of a row, under the keys of the snapshot.
fn name(row_kind: RowKind, snapshot: &Snapshot, row: &RateRow, object: &mut Map<String, Value>) {
    let mut insert = |key: &str, value: Value| _ = object.insert(key.to_owned(), value);
    let index = row.index;
    match row_kind {
        RowKind::Routes => insert("route", json!(snapshot.routes[index].route)),
        RowKind::Listeners => insert("listener", json!(snapshot.listeners[index].listener)),
        RowKind::Workers => {
            insert("worker", json!(snapshot.workers[index].worker));
            insert("responsive", json!(snapshot.workers[index].responsive));
        }
        RowKind::Handlers => {
            insert("handler", json!(snapshot.handlers[index].handler));
            insert("kind", json!(snapshot.handlers[index].kind));
        }
        RowKind::Upstreams => {
            let upstream = &snapshot.upstreams[index];
            insert("handler", json!(upstream.handler));
            insert("upstream", json!(upstream.upstream));
            insert("alive", json!(upstream.alive));
            insert("draining", json!(upstream.draining));
        }
    }
}
