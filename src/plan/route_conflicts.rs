//! Finds rows of the route table that have equal precedence: the same destination, interface and source, with
//! overlapping port ranges of equal width. The route of a datagram to a port of both would be undefined.
//!
//! `config/route_checks.rs` finds the rows that are written identically. Here, the overlapping ranges remain, and one
//! interface with two names.

use std::collections::HashMap;
use std::ops::Range;

use crate::config::{Problem, Problems};
use crate::dispatch::route_table::Match;

/// Reports every row that conflicts with an earlier one.
pub fn find(rows: &[(Match, Range<usize>)], problems: &mut Problems) {
    let mut alike: HashMap<_, Vec<&(Match, Range<usize>)>> = HashMap::new();
    for row in rows {
        let Match {
            net,
            ports,
            interface,
            source,
            ..
        } = row.0;
        alike
            .entry((net, ports.1 - ports.0, interface, source))
            .or_default()
            .push(row);
    }
    for mut group in alike.into_values() {
        group.sort_by_key(|(row, at)| (row.ports, at.start));
        for pair in group.windows(2) {
            let [(first, first_at), (second, second_at)] = pair else {
                continue;
            };
            // The ranges are equally wide and sorted. They overlap if the second begins before the first ends.
            if second.ports.0 <= first.ports.1 && first_at != second_at {
                problems.push(conflict(second, second_at, first_at));
            }
        }
    }
}

fn conflict(row: &Match, at: &Range<usize>, other: &Range<usize>) -> Problem {
    let message = format!(
        "port {} is routed twice for {}, by equally specific routes",
        row.ports.0, row.net
    );
    Problem::error(at.clone(), message)
        .label("this range")
        .and_at(other.clone(), "and this one")
        .hint("make one of them narrower, or give them different `interface` or `source` settings")
}
