//! The report, as one Markdown text.

use crate::cell::{Cell, Load};
use crate::place::Place;
use crate::row::{self, Row};
use crate::subject::Side;
use crate::table::aligned;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

/// A description of the machine that the results come from.
pub(crate) fn machine(place: &Place) -> String {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = line("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let network = if place.is_private() {
        "network namespaces of its own"
    } else {
        "the host's network"
    };
    format!(
        "Linux {}, {model}, {network}",
        line("/proc/sys/kernel/osrelease").trim()
    )
}

/// The tables of all loads that were measured.
pub(crate) fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    for load in Load::ALL {
        let (heading, figure) = match load {
            Load::Backlog => (
                "Backlog: a full receive buffer, worked off in full batches",
                "ns/datagram",
            ),
            Load::Flood => ("Flood: the sender sends as fast as it can", "ns/datagram"),
            Load::Paced => ("Paced: one datagram every 20 µs", "ns/datagram"),
            Load::Loop => (
                "Request and reply: every reply is followed by the next request",
                "ns/exchange",
            ),
        };
        let lines: Vec<_> = rows.iter().filter(|row| row.has(load)).collect();
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## {heading}\n");
        let head = [
            "cell",
            "subject",
            figure,
            "min–max",
            "ratio",
            "min–max",
            "delivered",
            "busy",
            "RSS MiB",
            "peak",
        ];
        let mut table = vec![head.map(String::from).to_vec()];
        table.extend(lines.iter().map(|row| line(row, rows, load)));
        text.push_str(&aligned(&table, 2));
    }
    text
}

/// The reasons why subjects are absent, each one once.
pub(crate) fn absent<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let reason = |row: &'a Row| {
        let place = if matches!(row.cell, Cell::Forward(way) if way.is_far) {
            " (another host)"
        } else {
            ""
        };
        Some((row.subject().name, place, row.absent.as_deref()?))
    };
    let reasons: BTreeSet<_> = rows.filter_map(reason).collect();
    let mut text = String::new();
    for (name, place, reason) in reasons {
        let _ = write!(text, "\nabsent: {name}{place}: {reason}\n");
    }
    text
}

/// The cells of one row of the table.
fn line(row: &Row, rows: &[Row], load: Load) -> Vec<String> {
    let mut cells = vec![String::new(); 10];
    cells[0] = row.cell.to_string();
    cells[1] = row.subject().name.into();
    let Some(cpu) = row.spread(load, |sample| sample.cpu_ns) else {
        cells[2] = "absent".into();
        return cells;
    };
    cells[2] = format!("{:.0}", cpu.median);
    cells[3] = format!("{:.0}–{:.0}", cpu.min, cpu.max);
    if let Some(ratio) =
        row::find(rows, Side::Yardstick, &row.cell).and_then(|base| row.ratio(base, load))
    {
        cells[4] = format!("{:.2}", ratio.median);
        cells[5] = format!("{:.2}–{:.2}", ratio.min, ratio.max);
    }
    if let Some(delivered) = row.spread(load, |sample| sample.delivered) {
        cells[6] = format!("{:.1} %", delivered.median * 100.0);
    }
    if let Some(busy) = row
        .spread(load, |sample| sample.busy)
        .filter(|_| load != Load::Backlog)
    {
        cells[7] = format!("{:.0} %", busy.median * 100.0);
    }
    cells[8] = format!("{:.1}", row.resident_kib as f64 / 1024.0);
    cells[9] = format!("{:.1}", row.resident_max_kib as f64 / 1024.0);
    cells
}
