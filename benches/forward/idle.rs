//! What a forwarder adds when there is little to do: time to an exchange, memory to a session.

use crate::cell::{Cell, Talk};
use crate::exchange::{Ends, Trial};
use crate::place::Place;
use crate::subject::{SUBJECTS, Side, Subject};
use crate::table::{Spread, aligned, grouped};
use std::io;
use std::time::Duration;

/// Time between two exchanges: the forwarder has gone to sleep meanwhile.
const PAUSE: Duration = Duration::from_micros(100);
/// Exchanges before those that are timed.
const WARM_UP: usize = 200;
/// Sessions that memory is divided by.
const SESSIONS: usize = 10_000;

/// The subjects that keep sessions for many clients, as far as they are wanted.
fn subjects(wanted: impl Fn(&str) -> bool) -> Vec<&'static Subject> {
    let cell = Cell::Exchange(Talk::of(SESSIONS));
    let fits = |subject: &&Subject| subject.side != Side::Variant && (subject.suits)(&cell) && wanted(subject.name);
    SUBJECTS.iter().filter(fits).collect()
}

/// A table of round trips: directly, and through each subject. Rounds are interleaved; percentiles are over all of them.
pub(crate) fn latency(wanted: impl Fn(&str) -> bool, rounds: usize, count: usize, place: &Place) -> String {
    let subjects = subjects(wanted);
    let mut times: Vec<io::Result<Vec<Duration>>> = (0..=subjects.len()).map(|_| Ok(Vec::new())).collect();
    for round in 1..=rounds {
        for (number, times) in times.iter_mut().enumerate() {
            let name = if number == 0 { "directly" } else { subjects[number - 1].name };
            eprint!("\r\x1b[Kround {round}/{rounds}: latency, {name}");
            let Ok(all) = times else { continue };
            let result = if number == 0 {
                Ends::without_forwarder().and_then(|mut ends| round_trips(&mut ends, count))
            } else {
                Trial::start(subjects[number - 1], &Talk::of(1), place)
                    .and_then(|mut trial| round_trips(&mut trial.ends, count))
            };
            match result {
                Ok(more) => all.extend(more),
                Err(error) => *times = Err(error),
            }
        }
    }
    eprint!("\r\x1b[K");
    let head = ["", "p50 µs", "p99 µs", "p99.9 µs", "p50 added", "p99 added", "p99.9 added"];
    let mut table = vec![head.map(String::from).to_vec()];
    let direct = times[0].as_ref().ok().map(|times| percentiles(times));
    let names = ["directly"].into_iter().chain(subjects.iter().map(|subject| subject.name));
    for (name, times) in names.zip(&times) {
        let mut line = vec![name.to_string()];
        match times {
            Ok(times) => {
                let these = percentiles(times);
                line.extend(these.map(|time| format!("{time:.1}")));
                let added = |place: usize| Some(format!("{:.1}", these[place] - direct?[place]));
                line.extend((0..3).map(|place| added(place).filter(|_| name != "directly").unwrap_or_default()));
            }
            Err(error) => {
                line.extend(["absent".into(), error.to_string()].into_iter().chain((0..4).map(|_| String::new())))
            }
        }
        table.push(line);
    }
    format!("\n## Latency: one exchange every {} µs, and nothing else\n\n{}", PAUSE.as_micros(), aligned(&table, 1))
}

fn round_trips(ends: &mut Ends, count: usize) -> io::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let time = ends.round_trip()?;
        if number >= WARM_UP {
            times.push(time);
        }
        ends.listen(PAUSE)?;
    }
    Ok(times)
}

/// p50, p99 and p99.9, in microseconds.
fn percentiles(times: &[Duration]) -> [f64; 3] {
    let mut times = times.to_vec();
    times.sort_unstable();
    [0.5, 0.99, 0.999].map(|part| {
        let place = (times.len() as f64 * part) as usize;
        times.get(place.min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_nanos() as f64 / 1000.0)
    })
}

/// A table of resident memory: without sessions, with many, and the difference for each.
pub(crate) fn memory(wanted: impl Fn(&str) -> bool, rounds: usize, place: &Place) -> String {
    let head = ["", "none MiB", &format!("{} MiB", grouped(SESSIONS)), "bytes/session"];
    let mut table = vec![head.map(String::from).to_vec()];
    for subject in subjects(wanted) {
        eprint!("\r\x1b[Kmemory, {}", subject.name);
        let figures: io::Result<Vec<_>> = (0..rounds).map(|_| resident(subject, place)).collect();
        let mut line = vec![subject.name.to_string()];
        match figures {
            Ok(figures) => {
                let median = |figure: fn(&(f64, f64)) -> f64| {
                    Spread::of(figures.iter().map(figure)).map_or(0.0, |spread| spread.median)
                };
                let (none, many) = (median(|figure| figure.0), median(|figure| figure.1));
                let bytes = (many - none) * 1024.0 / SESSIONS as f64;
                line.extend([format!("{:.1}", none / 1024.0), format!("{:.1}", many / 1024.0), format!("{bytes:.0}")]);
            }
            Err(error) => line.extend(["absent".into(), error.to_string(), String::new()]),
        }
        table.push(line);
    }
    eprint!("\r\x1b[K");
    format!("\n## Resident memory, without what the kernel holds for the sockets\n\n{}", aligned(&table, 1))
}

/// Resident memory without sessions and with many, in KiB.
fn resident(subject: &Subject, place: &Place) -> io::Result<(f64, f64)> {
    let mut trial = Trial::start(subject, &Talk::of(SESSIONS), place)?;
    let (none, _) = trial.resident_kib();
    trial.warm_up()?;
    let (many, _) = trial.resident_kib();
    Ok((none as f64, many as f64))
}
