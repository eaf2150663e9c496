//! The report: one Markdown text, padded so that it reads as well on a terminal.

use crate::cell::{Cell, Load};
use crate::subject::SUBJECTS;
use crate::traffic::Sample;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

/// All that one subject showed in one cell.
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) subject: usize,
    /// Samples of each load, by round; a round that failed is `None`, so that rounds stay comparable.
    pub(crate) samples: Vec<(Load, Vec<Option<Sample>>)>,
    /// Resident memory, now and at most, in KiB, the largest of all rounds.
    pub(crate) resident_kib: u64,
    pub(crate) resident_max_kib: u64,
    /// Why it is absent, if a round failed.
    pub(crate) absent: Option<String>,
}

impl Row {
    fn samples(&self, load: Load) -> &[Option<Sample>] {
        self.samples.iter().find(|(of, _)| *of == load).map_or(&[], |(_, samples)| samples)
    }
}

/// The machine that the figures come from.
pub(crate) fn machine() -> String {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = line("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    format!("Linux {}, {model}", line("/proc/sys/kernel/osrelease").trim())
}

/// The tables of all loads that were measured.
pub(crate) fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    for load in Load::ALL {
        let heading = match load {
            Load::Backlog => "Backlog: a full receive buffer, worked off in full batches",
            Load::Flood => "Flood: the sender sends as fast as it can",
            Load::Paced => "Paced: one datagram every 20 µs",
        };
        let lines: Vec<_> = rows
            .iter()
            .filter(|row| row.absent.is_some() || !row.samples(load).is_empty())
            .filter(|row| load.suits(&row.cell))
            .collect();
        if lines.iter().all(|row| row.samples(load).is_empty()) {
            continue;
        }
        let _ = writeln!(text, "\n## {heading}\n");
        let mut table = vec![
            ["cell", "subject", "ns/datagram", "min–max", "ratio", "min–max", "delivered", "busy", "RSS MiB", "peak"]
                .map(String::from),
        ];
        table.extend(lines.iter().map(|row| line(row, rows, load)));
        text.push_str(&aligned(&table));
    }
    text
}

/// Why subjects are absent, each reason once.
pub(crate) fn absent(rows: &[Row]) -> String {
    let reasons: BTreeSet<_> =
        rows.iter().filter_map(|row| Some((SUBJECTS[row.subject].name, row.absent.as_deref()?))).collect();
    let mut text = String::new();
    for (name, reason) in reasons {
        let _ = write!(text, "\nabsent: {name}: {reason}\n");
    }
    text
}

/// One row's cells of the table.
fn line(row: &Row, rows: &[Row], load: Load) -> [String; 10] {
    let samples = row.samples(load);
    let present = || samples.iter().flatten();
    let mut cells: [String; 10] = Default::default();
    cells[0] = row.cell.to_string();
    cells[1] = SUBJECTS[row.subject].name.into();
    let Some(cpu) = Spread::of(present().map(|sample| sample.cpu_ns)) else {
        cells[2] = "absent".into();
        return cells;
    };
    cells[2] = format!("{:.0}", cpu.median);
    cells[3] = format!("{:.0}–{:.0}", cpu.min, cpu.max);
    // Each round's ratio is its own: what disturbed a round disturbed both of its sides.
    let yardstick =
        rows.iter().find(|base| base.subject == 0 && base.cell == row.cell).map_or(&[][..], |base| base.samples(load));
    let ratios =
        samples.iter().zip(yardstick).filter_map(|(ours, base)| Some(ours.as_ref()?.cpu_ns / base.as_ref()?.cpu_ns));
    if let Some(ratio) = Spread::of(ratios) {
        cells[4] = format!("{:.2}", ratio.median);
        cells[5] = format!("{:.2}–{:.2}", ratio.min, ratio.max);
    }
    if let Some(delivered) = Spread::of(present().map(|sample| sample.delivered)) {
        cells[6] = format!("{:.1} %", delivered.median * 100.0);
    }
    if let Some(busy) = Spread::of(present().map(|sample| sample.busy)).filter(|_| load != Load::Backlog) {
        cells[7] = format!("{:.0} %", busy.median * 100.0);
    }
    cells[8] = format!("{:.1}", row.resident_kib as f64 / 1024.0);
    cells[9] = format!("{:.1}", row.resident_max_kib as f64 / 1024.0);
    cells
}

/// Median and extremes of some figures.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Nothing of nothing.
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let (&min, &max) = (figures.first()?, figures.last()?);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) };
        Some(Self { median, min, max })
    }
}

/// A Markdown table with its columns padded; the first row is its head. Words stand left, figures right.
fn aligned<const N: usize>(table: &[[String; N]]) -> String {
    const WORDS: usize = 2;
    let width = |column: usize| {
        let lengths = table.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column < WORDS { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = if column < WORDS {
                    write!(text, "|-{:-<width$}-", "")
                } else {
                    write!(text, "|-{:-<width$}:", "")
                };
            }
            text.push_str("|\n");
        }
    }
    text
}
