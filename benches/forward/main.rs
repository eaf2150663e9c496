//! What does forwarding cost? udispatch against a forwarder written by hand, socat and nginx, as whole processes.
//!
//!     cargo bench --bench forward                       # about six minutes
//!     cargo bench --bench forward -- --quick            # about one minute
//!     cargo bench --bench forward -- --only udispatch --report FILE.md
//!
//! The figure is **processor time of the whole forwarder for each datagram that a receiver was handed**, in nanoseconds. What makes it
//! honest, and stable to a few per cent on a machine that does other work as well:
//!
//! - The forwarder's clock is the kernel's own sum over all its threads (CLOCK_PROCESS_CPUTIME_ID of another process), exact to the
//!   nanosecond, not the 4 to 10 ms ticks of /proc/PID/stat. Time in which others ran, or the hypervisor, is not in it.
//! - The forwarder is alone on its processor as far as the bench is concerned. The sender and the receivers share the other one, in a
//!   single thread that takes turns: no time slices between them, and the receivers never sleep, so no forwarder pays for waking them.
//! - On loopback the receiving half of a send runs in the sender's context. The forwarder's time thus holds the receivers' half of the
//!   network stack, and not its own, which the bench's sender paid. This is the same for all subjects. (A kernel with
//!   CONFIG_IRQ_TIME_ACCOUNTING takes that half out of the clock again, for all subjects alike.)
//! - Delivered is what the receivers took. They have buffers far larger than what is under way, and a run in which their drop counters
//!   moved is an error. They look at every length: datagrams must come as they were sent, not glued together. Their copying is cut
//!   short (MSG_TRUNC), for it costs the bench's processor only, which has enough to do. With three upstreams
//!   one datagram received is three delivered.
//! - **Backlog** is the figure to compare. The forwarder is stopped (SIGSTOP) while the sender fills its receive buffer to three
//!   quarters of what any process may ask for, then continued, and so on: it is saturated by construction however fast it is and
//!   however slow the sender, nothing is dropped, and the number of datagrams in a batch is not left to chance. Waking it is
//!   paid once in thousands of datagrams. The sender fills from the forwarder's own processor, as a network card's queue does that is
//!   steered to where its reader runs. From another one, the kernel sends a datagram's memory back there after use with an
//!   interrupt every 32 datagrams, which costs more than all else in a virtual machine and has nothing to do with forwarders.
//! - **Flood** is the figure to believe least and the one users will try: sender against forwarder at full speed. What the kernel drops before the forwarder
//!   costs the sender only. A forwarder that is *not* busy all the time here outruns the sender: it then sleeps, wakes, and gets small
//!   batches, so that its cost a datagram rises with its speed. `busy` tells.
//! - **Paced** is the cost of being woken for every single datagram.
//! - A round measures every subject in a cell right after the other, each a fresh process; a ratio is taken within its round, and the
//!   table shows the median of the rounds.
//!
//! Every run ends by itself. All traffic stays on loopback.

mod by_hand;
mod cell;
mod report;
mod subject;
mod sys;
mod traffic;

use cell::{Cell, Load};
use clap::Parser;
use report::Row;
use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use subject::{SUBJECTS, Subject};
use traffic::{Cpus, Trial};

/// How long a subject warms up before it is measured.
const WARM_UP: Duration = Duration::from_millis(50);

/// Compares forwarders as whole processes.
#[derive(Parser)]
struct Options {
    /// A quarter of a second a figure and three rounds
    #[arg(long)]
    quick: bool,
    /// Only subjects, cells and loads whose name contains this, e.g. `udispatch`, `1→3`, `plain`, `backlog`; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds for each figure of each round [default: 1]
    #[arg(long)]
    seconds: Option<f64>,
    /// Write the report to this file too, as Markdown
    #[arg(long, value_name = "FILE.md")]
    report: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    if let Some(("by-hand", [listen, upstreams @ ..])) = words.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        let upstreams: Result<Vec<_>, _> = upstreams.iter().map(|upstream| upstream.parse()).collect();
        return Ok(by_hand::run(listen.parse()?, &upstreams?)?);
    }
    if words.is_empty() {
        println!("This is a benchmark: cargo bench --bench forward");
        return Ok(());
    }
    let options = Options::parse();
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let window = Duration::try_from_secs_f64(options.seconds.unwrap_or(if options.quick { 0.25 } else { 1.0 }))?;
    let cpus = match sys::allowed_cpus()?.as_slice() {
        [first, .., last] => Cpus { forwarder: *last, load: *first },
        _ => {
            return Err("two processors are needed: one to forward, one to send and receive".into());
        }
    };
    sys::pin(cpus.load)?;

    let mut rows = selected(&options.only);
    for round in 1..=rounds {
        for row in &mut rows {
            eprint!("\r\x1b[Kround {round}/{rounds}: {}, {}", row.cell, SUBJECTS[row.subject].name);
            if let Err(error) = play(row, cpus, window) {
                row.absent = Some(error.to_string());
                // Keeps this round's place.
                for (_, samples) in &mut row.samples {
                    samples.resize(round, None);
                }
            }
        }
    }
    eprint!("\r\x1b[K");

    let title = format!(
        "# Cost of forwarding one datagram\n\n{}; {rounds} rounds of {} s; median and min–max, ratio to the forwarder written by hand.\n",
        report::machine(),
        window.as_secs_f64()
    );
    let text = title + &report::tables(&rows) + &report::absent(&rows);
    print!("{text}");
    if let Some(file) = options.report {
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// The rows that `only` leaves. Words for subjects, cells and loads each narrow their own kind; the yardstick always runs.
fn selected(only: &[String]) -> Vec<Row> {
    let narrows = |names: &[String]| -> Vec<String> {
        only.iter().filter(|word| names.iter().any(|name| name.contains(*word))).cloned().collect()
    };
    let fits = |words: &[String], name: &str| words.iter().all(|word| name.contains(word));
    let load_name = |load: &Load| format!("{load:?}").to_lowercase();
    let subjects = narrows(&SUBJECTS.map(|subject| subject.name.to_string()));
    let cells = narrows(&Cell::all().iter().map(Cell::to_string).collect::<Vec<_>>());
    let loads = narrows(&Load::ALL.map(|load| load_name(&load)));

    let mut rows = Vec::new();
    for cell in Cell::all().into_iter().filter(|cell| fits(&cells, &cell.to_string())) {
        for (subject, Subject { name, .. }) in SUBJECTS.iter().enumerate() {
            let wanted = subject == 0 || subjects.is_empty() || subjects.iter().any(|word| name.contains(word));
            if wanted && SUBJECTS[subject].suits(&cell) {
                let loads = Load::ALL
                    .iter()
                    .filter(|load| load.suits(&cell) && (loads.is_empty() || loads.contains(&load_name(load))));
                let samples = loads.map(|load| (*load, Vec::new())).collect();
                rows.push(Row { cell, subject, samples, resident_kib: 0, resident_max_kib: 0, absent: None });
            }
        }
    }
    rows
}

/// One round of one row.
fn play(row: &mut Row, cpus: Cpus, window: Duration) -> Result<(), Box<dyn Error>> {
    let mut trial = Trial::start(&SUBJECTS[row.subject], &row.cell, cpus)?;
    trial.measure(Load::Backlog, WARM_UP)?;
    let mut failed = None;
    for (load, samples) in &mut row.samples {
        let sample = trial.measure(*load, window);
        samples.push(sample.as_ref().ok().copied());
        failed = sample.err().or(failed);
    }
    let (now, most) = trial.resident_kib();
    row.resident_kib = row.resident_kib.max(now);
    row.resident_max_kib = row.resident_max_kib.max(most);
    failed.map_or(Ok(()), |error| Err(error.into()))
}
