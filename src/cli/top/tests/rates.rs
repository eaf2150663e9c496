//! Tests of rates, of the order of rows, and of the length of the history.

use std::time::Instant;

use serde_json::{Value, json};

use super::super::history::SnapshotHistory;
use super::super::measure::{Measure, RowKind};
use super::super::order::{Order, arrange};
use super::super::rates::Rates;
use super::{SECOND, account, received, routes, snapshot, with};

/// A rate is the increase of a counter divided by the daemon's own time, not by the time between responses.
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
        "there is no rate over no time"
    );
}

/// Rows appear, disappear and move, and each keeps its own rate. A new row has none, even if its name equals another's.
#[test]
fn rows_are_distinguished_by_their_names() {
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

/// After a restart nothing has a rate, whether counters rose or fell. A takeover continues the counters, except one
/// that went back. A current value is always known.
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
            rates.rows(RowKind::Routes)[0].value(Measure::InFlight),
            Some(0.0)
        );
        assert_eq!(
            rates.sum(RowKind::Routes, Measure::Received),
            None,
            "the sum is unknown, too"
        );
    }
    let mut taken_over = routes(2, 500, &[("up", 14), ("down", 1)]);
    taken_over.generation = 1;
    taken_over.taken_unix_ms = before.taken_unix_ms + 2_000;
    let rates = Rates::between(Some(&before), &taken_over);
    assert_eq!(
        received(&rates),
        [("up".to_owned(), Some(2.0)), ("down".to_owned(), None)]
    );
}

/// Each column sorts in both directions. Unknown values come last in either direction, and equal rows keep the file's
/// order.
#[test]
fn rows_are_sorted() {
    let before = routes(1, 1_000, &[("b", 0), ("c", 0), ("a", 0), ("d", 9)]);
    let after = routes(1, 2_000, &[("b", 5), ("c", 5), ("a", 8), ("d", 1)]);
    let rates = Rates::between(Some(&before), &after);
    let names = |filter: &str, order: Order| -> String {
        let rows = arrange(RowKind::Routes, rates.rows(RowKind::Routes), filter, order);
        rows.iter().map(|row| row.item.key.name.as_str()).collect()
    };
    let busiest = Order::default(RowKind::Routes);
    assert_eq!(names("", busiest), "abcd");
    assert_eq!(names("", busiest.reverse()), "bcad");
    let by_name = busiest.shift(RowKind::Routes, -1);
    assert_eq!(
        (names("", by_name), names("", by_name.reverse())),
        ("abcd".to_owned(), "dcba".to_owned())
    );
    assert_eq!(names("B", busiest), "b", "a filter ignores case");
    assert_eq!(
        by_name.shift(RowKind::Routes, -1).measure(RowKind::Routes),
        Some(Measure::InFlight),
        "the last column follows the first"
    );
    let workers: Vec<Value> = [10, 2]
        .iter()
        .map(|number| {
            with(
                json!({ "worker": number, "responsive": true }),
                &account(0, 0),
            )
        })
        .collect();
    let rates = Rates::between(None, &snapshot(1, 1, &json!({ "workers": workers })));
    let rows = arrange(
        RowKind::Workers,
        rates.rows(RowKind::Workers),
        "",
        Order::default(RowKind::Workers),
    );
    assert_eq!(
        rows[0].item.key.name, "worker-10",
        "workers are in the order of the snapshot, not of their names"
    );
}

/// The history covers two minutes and has gaps for missing snapshots. It is dropped with its row. A narrow sparkline
/// keeps its peaks.
#[test]
fn history_is_two_minutes_of_samples() {
    let start = Instant::now();
    let mut snapshots = SnapshotHistory::first(routes(1, 0, &[("a", 0)]), start, SECOND);
    let key = snapshots.rates.rows(RowKind::Routes)[0].item.key.clone();
    for second in 1..=300_u64 {
        snapshots.advance(
            routes(
                1,
                second * 1_000,
                &[("a", second * 10 + if second >= 290 { 90 } else { 0 })],
            ),
            start,
        );
    }
    snapshots.miss();
    let wide = snapshots.spark(RowKind::Routes, &key, 500);
    assert_eq!(wide.len(), 120);
    assert_eq!((wide[0], wide[118], wide[119]), (Some(10), Some(10), None));
    assert_eq!(wide.iter().flatten().max(), Some(&100));
    for columns in 1..120 {
        let narrow = snapshots.spark(RowKind::Routes, &key, columns);
        assert_eq!(
            (narrow.len(), narrow.iter().flatten().max()),
            (columns, Some(&100))
        );
    }
    snapshots.advance(routes(1, 301_000, &[]), start);
    snapshots.advance(routes(1, 302_000, &[("a", 1)]), start);
    assert_eq!(
        snapshots.spark(RowKind::Routes, &key, 120),
        [None; 120],
        "a row that appears again is new"
    );
}
