//! What a forwarder adds when there is little to do: time to an exchange, and memory to a session.

use crate::cell::{Cell, Talk};
use crate::exchange::{Ends, Trial};
use crate::place::Place;
use crate::subject::{SUBJECTS, Side, Subject};
use crate::table::{Spread, aligned, grouped};
use std::io;
use std::time::Duration;

/// Time between two exchanges, in which the forwarder falls asleep.
const PAUSE: Duration = Duration::from_micros(100);
/// Number of exchanges before those that are timed.
const WARM_UP: usize = 200;
/// Number of sessions by which memory is divided.
const SESSIONS: usize = 10_000;

/// The subjects that keep sessions for many clients, as far as they were selected.
fn subjects(wanted: impl Fn(&str) -> bool) -> Vec<&'static Subject> {
    let cell = Cell::Exchange(Talk::of(SESSIONS));
    let fits = |subject: &&Subject| {
        subject.side != Side::Variant && (subject.suits)(&cell) && wanted(subject.name)
    };
    SUBJECTS.iter().filter(fits).collect()
}

/// A table of round trips: directly, and through each subject. Rounds are interleaved. Each one has its percentiles,
/// and the table shows their medians. The forwarder is woken twice in each exchange, from the other processor, which
/// may be most of the time.
pub(crate) fn latency(
    wanted: impl Fn(&str) -> bool,
    rounds: usize,
    count: usize,
    place: &Place,
) -> String {
    let subjects = subjects(wanted);
    let mut all: Vec<io::Result<Vec<[f64; 3]>>> =
        (0..=subjects.len()).map(|_| Ok(Vec::new())).collect();
    for round in 1..=rounds {
        for (number, of_rounds) in all.iter_mut().enumerate() {
            let subject = number.checked_sub(1).map(|number| subjects[number]);
            eprint!(
                "\r\x1b[Kround {round}/{rounds}: latency, {}",
                subject.map_or("directly", |subject| subject.name)
            );
            let result = match subject {
                None => {
                    Ends::without_forwarder().and_then(|mut ends| round_trips(&mut ends, count))
                }
                Some(subject) => Trial::start(subject, &Talk::of(1), place)
                    .and_then(|mut trial| round_trips(&mut trial.ends, count)),
            };
            match (result, &mut *of_rounds) {
                (Ok(times), Ok(of_rounds)) => of_rounds.push(percentiles(times)),
                (Ok(_), Err(_)) => {}
                (Err(error), _) => *of_rounds = Err(error),
            }
        }
    }
    eprint!("\r\x1b[K");
    let head = [
        "",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "p50 added",
        "p99 added",
        "p99.9 added",
    ];
    let mut table = vec![head.map(String::from).to_vec()];
    let direct = all[0].as_ref().ok().map(|rounds| medians(rounds));
    table.push(line("directly", &all[0], None));
    for (subject, rounds) in subjects.iter().zip(&all[1..]) {
        table.push(line(subject.name, rounds, direct));
    }
    format!(
        "\n## Latency: one exchange every {} µs, and nothing else\n\n{}",
        PAUSE.as_micros(),
        aligned(&table, 1)
    )
}

/// The line of one subject in that table. `direct` is the time without a forwarder.
fn line(name: &str, rounds: &io::Result<Vec<[f64; 3]>>, direct: Option<[f64; 3]>) -> Vec<String> {
    let mut line = vec![name.to_string()];
    match rounds {
        Ok(rounds) => {
            let these = medians(rounds);
            line.extend(these.map(|time| format!("{time:.1}")));
            line.extend(these.iter().enumerate().map(|(place, time)| {
                direct.map_or(String::new(), |direct| {
                    format!("{:.1}", time - direct[place])
                })
            }));
        }
        Err(error) => line.extend(["absent".into(), error.to_string()]),
    }
    line.resize(7, String::new());
    line
}

/// The median of each percentile over the rounds.
fn medians(rounds: &[[f64; 3]]) -> [f64; 3] {
    [0, 1, 2].map(|place| {
        Spread::of(rounds.iter().map(|round| round[place])).map_or(0.0, |spread| spread.median)
    })
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
fn percentiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort_unstable();
    [0.5, 0.99, 0.999].map(|part| {
        let place = (times.len() as f64 * part) as usize;
        times
            .get(place.min(times.len().saturating_sub(1)))
            .map_or(0.0, |time| time.as_nanos() as f64 / 1000.0)
    })
}

/// A table of resident memory: without sessions, with many, and the difference for each.
pub(crate) fn memory(wanted: impl Fn(&str) -> bool, rounds: usize, place: &Place) -> String {
    let head = [
        "",
        "none MiB",
        &format!("{} MiB", grouped(SESSIONS)),
        "bytes/session",
    ];
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
                let none = median(|figure| figure.0);
                let many = median(|figure| figure.1);
                let bytes = (many - none) * 1024.0 / SESSIONS as f64;
                line.extend([
                    format!("{:.1}", none / 1024.0),
                    format!("{:.1}", many / 1024.0),
                    format!("{bytes:.0}"),
                ]);
            }
            Err(error) => line.extend(["absent".into(), error.to_string(), String::new()]),
        }
        table.push(line);
    }
    eprint!("\r\x1b[K");
    format!(
        "\n## Resident memory, without what the kernel holds for the sockets\n\n{}",
        aligned(&table, 1)
    )
}

/// Resident memory without sessions and with many, in KiB.
fn resident(subject: &Subject, place: &Place) -> io::Result<(f64, f64)> {
    let mut trial = Trial::start(subject, &Talk::of(SESSIONS), place)?;
    let (none, _) = trial.resident_kib();
    trial.warm_up()?;
    let (many, _) = trial.resident_kib();
    Ok((none as f64, many as f64))
}
