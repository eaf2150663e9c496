//! One subject in one kind of work: its rounds, and their results.

use crate::cell::{Cell, Load};
use crate::exchange;
use crate::place::Place;
use crate::subject::{SUBJECTS, Side, Subject};
use crate::table::Spread;
use crate::traffic::{self, Sample};
use std::io;
use std::time::Duration;

/// Time for which a subject warms up before it is measured.
const WARM_UP: Duration = Duration::from_millis(50);

/// All results of one subject in one cell.
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) subject: usize,
    /// Samples of each load, by round. A round that failed is `None`, so that rounds stay comparable.
    samples: Vec<(Load, Vec<Option<Sample>>)>,
    /// Resident memory, now and at most, in KiB. The largest of all rounds.
    pub(crate) resident_kib: u64,
    pub(crate) resident_max_kib: u64,
    /// The reason why the subject is absent, if a round failed.
    pub(crate) absent: Option<String>,
}

impl Row {
    pub(crate) fn new(cell: Cell, subject: usize, loads: &[Load]) -> Self {
        let samples = loads.iter().map(|load| (*load, Vec::new())).collect();
        Self {
            cell,
            subject,
            samples,
            resident_kib: 0,
            resident_max_kib: 0,
            absent: None,
        }
    }

    pub(crate) fn subject(&self) -> &'static Subject {
        &SUBJECTS[self.subject]
    }

    /// Adds a round. A failure affects this row alone.
    pub(crate) fn play(&mut self, place: &Place, window: Duration) {
        let rounds = self
            .samples
            .first()
            .map_or(0, |(_, samples)| samples.len() + 1);
        if let Err(error) = self.try_play(place, window) {
            self.absent = Some(error.to_string());
            // Keeps the place of this round.
            for (_, samples) in &mut self.samples {
                samples.resize(rounds, None);
            }
        }
    }

    fn try_play(&mut self, place: &Place, window: Duration) -> io::Result<()> {
        match self.cell {
            Cell::Forward(way) => {
                let mut trial = traffic::Trial::start(self.subject(), &way, place)?;
                trial.measure(Load::Backlog, WARM_UP)?;
                self.measure(|load| trial.measure(load, window))?;
                self.note_resident(trial.resident_kib());
            }
            Cell::Exchange(talk) => {
                let mut trial = exchange::Trial::start(self.subject(), &talk, place)?;
                trial.warm_up()?;
                self.measure(|_| trial.measure(window))?;
                self.note_resident(trial.resident_kib());
            }
        }
        Ok(())
    }

    /// Measures every load. The error is that of the last one that failed.
    fn measure(&mut self, mut measure: impl FnMut(Load) -> io::Result<Sample>) -> io::Result<()> {
        let mut failed = None;
        for (load, samples) in &mut self.samples {
            let sample = measure(*load);
            samples.push(sample.as_ref().ok().copied());
            failed = sample.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    fn note_resident(&mut self, (now, most): (u64, u64)) {
        self.resident_kib = self.resident_kib.max(now);
        self.resident_max_kib = self.resident_max_kib.max(most);
    }

    pub(crate) fn has(&self, load: Load) -> bool {
        self.samples.iter().any(|(of, _)| *of == load)
    }

    fn samples(&self, load: Load) -> &[Option<Sample>] {
        self.samples
            .iter()
            .find(|(of, _)| *of == load)
            .map_or(&[], |(_, samples)| samples)
    }

    /// The median of a value over the rounds.
    pub(crate) fn spread(&self, load: Load, figure: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples(load).iter().flatten().map(figure))
    }

    /// The median of the cost over the rounds.
    pub(crate) fn cpu_ns(&self, load: Load) -> Option<f64> {
        Some(self.spread(load, |sample| sample.cpu_ns)?.median)
    }

    /// The cost, as a multiple of that of another row. Each round has its own ratio, because a disturbance affects both
    /// sides.
    pub(crate) fn ratio(&self, base: &Self, load: Load) -> Option<Spread> {
        let both = self.samples(load).iter().zip(base.samples(load));
        Spread::of(
            both.filter_map(|(ours, base)| Some(ours.as_ref()?.cpu_ns / base.as_ref()?.cpu_ns)),
        )
    }
}

/// The row of the subject on that side in a cell.
pub(crate) fn find<'a>(rows: &'a [Row], side: Side, cell: &Cell) -> Option<&'a Row> {
    rows.iter()
        .find(|row| row.subject().side == side && row.cell == *cell)
}

/// The cheapest other forwarder in a cell.
pub(crate) fn best_peer<'a>(rows: &'a [Row], cell: &Cell, load: Load) -> Option<&'a Row> {
    let peers = rows
        .iter()
        .filter(|row| row.subject().side == Side::Peer && row.cell == *cell);
    let costs = peers.filter_map(|row| Some((row, row.cpu_ns(load)?)));
    costs
        .min_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(row, _)| row)
}

/// Runs all rounds of rows that belong together. Each round measures every row once.
pub(crate) fn play_all(rows: &mut [Row], rounds: usize, place: &Place, window: Duration) {
    for round in 1..=rounds {
        for row in &mut *rows {
            eprint!(
                "\r\x1b[Kround {round}/{rounds}: {}, {}",
                row.cell,
                row.subject().name
            );
            row.play(place, window);
        }
    }
    eprint!("\r\x1b[K");
}
