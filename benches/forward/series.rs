//! How the cost grows with routes, with sessions, and with receivers.

use crate::cell::{Cell, Load, Talk, Way};
use crate::exchange;
use crate::row::Row;
use crate::subject::{SUBJECTS, Side};
use crate::table::{aligned, grouped};

/// Number of destinations that the sender of the series of routes sends to, in turn.
const DESTINATIONS: usize = 1024;

/// Points of one curve, for each subject.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    heading: &'static str,
    load: Load,
    points: Vec<(usize, Cell)>,
    pub(crate) rows: Vec<Row>,
}

/// All three curves; `is_quick` leaves points out. The last point of the sessions is limited by the number of files
/// that may be open.
pub(crate) fn all(is_quick: bool, files_max: u64) -> Vec<Series> {
    let pick = |quick: &[usize], full: &[usize]| {
        if is_quick {
            quick.to_vec()
        } else {
            full.to_vec()
        }
    };
    let mut session_counts = pick(&[10, 10_000], &[10, 100, 1_000, 10_000, 100_000]);
    let clients_max = exchange::clients_max(files_max);
    if session_counts
        .last()
        .is_some_and(|last| *last > clients_max)
    {
        session_counts.retain(|count| *count < clients_max);
        session_counts.push(clients_max);
    }
    let routes = |routes| {
        Cell::Forward(Way {
            routes,
            destinations: DESTINATIONS,
            ..Way::PLAIN
        })
    };
    let sessions = |clients| Cell::Exchange(Talk::of(clients));
    let receivers = |fanout| {
        Cell::Forward(Way {
            fanout,
            ..Way::PLAIN
        })
    };
    let series = |name, heading, load, numbers: Vec<usize>, cell: &dyn Fn(usize) -> Cell| Series {
        name,
        heading,
        load,
        points: numbers
            .into_iter()
            .map(|number| (number, cell(number)))
            .collect(),
        rows: Vec::new(),
    };
    vec![
        series(
            "routes",
            "Routes under one wildcard port; 64 B to 1,024 destinations in turn, ns/datagram",
            Load::Backlog,
            pick(&[1, 10_000], &[1, 10, 100, 1_000, 10_000]),
            &routes,
        ),
        series(
            "sessions",
            "Sessions; request and reply, ns/exchange",
            Load::Loop,
            session_counts,
            &sessions,
        ),
        series(
            "receivers",
            "Receivers that each get a copy; 64 B, ns/datagram delivered",
            Load::Backlog,
            pick(&[1, 64], &[1, 2, 4, 8, 16, 32, 64]),
            &receivers,
        ),
    ]
}

impl Series {
    /// Makes the rows of the selected subjects.
    pub(crate) fn prepare(&mut self, wanted: impl Fn(&str) -> bool) {
        for (_, cell) in &self.points {
            for (number, subject) in SUBJECTS.iter().enumerate() {
                let one_way_peer = subject.side == Side::Peer && matches!(cell, Cell::Forward(_));
                let stays =
                    subject.side != Side::Variant && !one_way_peer && subject.name != "socat";
                if stays && (subject.suits)(cell) && wanted(subject.name) {
                    self.rows.push(Row::new(*cell, number, &[self.load]));
                }
            }
        }
    }

    /// The table of a curve: a line for each point, a column for each subject.
    pub(crate) fn table(&self) -> String {
        let mut subjects: Vec<_> = self.rows.iter().map(|row| row.subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let names = subjects
            .iter()
            .map(|&subject| SUBJECTS[subject].name.to_string());
        let mut table = vec![
            [self.name.to_string()]
                .into_iter()
                .chain(names)
                .collect::<Vec<_>>(),
        ];
        for (number, cell) in &self.points {
            let cost = |subject: &usize| {
                let row = self
                    .rows
                    .iter()
                    .find(|row| row.subject == *subject && row.cell == *cell);
                let Some(row) = row else { return String::new() };
                row.cpu_ns(self.load)
                    .map_or("absent".into(), |ns| format!("{ns:.0}"))
            };
            table.push(
                [grouped(*number)]
                    .into_iter()
                    .chain(subjects.iter().map(cost))
                    .collect(),
            );
        }
        format!("\n## {}\n\n{}", self.heading, aligned(&table, 0))
    }
}
