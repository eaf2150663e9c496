//! What does forwarding cost? udispatch against forwarders written by hand, socat, nginx, Envoy and Sōzu, as whole processes.
//!
//!     cargo bench --bench forward                       # about twenty minutes
//!     cargo bench --bench forward -- --quick            # about two minutes
//!     cargo bench --bench forward -- --only udispatch --report FILE.md --plot docs/forward.svg
//!
//! Envoy and Sōzu are looked for in $ENVOY and $SOZU, then in PATH; $UDISPATCH measures another udispatch than this one.
//!
//! The figure is **processor time of the whole forwarder for each datagram that a receiver was handed**, in nanoseconds; for request
//! and reply, for each exchange of the two. What makes it honest, and stable to a few per cent on a machine that does other work as
//! well:
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
//! - **Another host** is a network namespace behind a veth pair. What its kernel does on receiving is steered to the load's processor
//!   (RPS), so the forwarder's time ends with handing over, and holds the interrupt that the other processor is sent.
//! - **Request and reply** is a closed loop: each client sends one request, and the next one as soon as the reply is there; at most 256
//!   are under way, so that nothing need be lost. A client is an address and a port. All share a socket of the bench, which is what
//!   makes the load cheaper than any forwarder: `busy` shows whether the forwarder was, and on a quiet machine it is 95 to 100 %.
//!   Every reply is checked: whose it is, where from, how long. One that does not come is asked for again and counted as not delivered.
//! - **One-shot** is the same with a client for each request that is never seen again. The forwarder has warmed up for a second first,
//!   so that one that keeps ports for the next session has all that it will have. Of Envoy, which cannot be told that one reply is
//!   all, the time-outs are waited for and are in its time.
//! - As root, all of it happens in a network namespace of its own, without the host's firewall and with more ports.
//! - A round measures every subject in a cell right after the other, each a fresh process; a ratio is taken within its round, and the
//!   table shows the median of the rounds.
//!
//! Every run ends by itself. All traffic stays on loopback and between namespaces that are gone with the bench.

mod by_hand;
mod by_hand_sessions;
mod cell;
mod commands;
mod exchange;
mod goals;
mod idle;
mod place;
mod plot;
mod report;
mod row;
mod selection;
mod series;
mod setup;
mod subject;
mod sys;
mod table;
mod traffic;

use by_hand_sessions::Habits;
use clap::Parser;
use place::Place;
use selection::Selection;
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Compares forwarders as whole processes.
#[derive(Parser)]
struct Options {
    /// A quarter of a second a figure, three rounds, and only what the targets and the ends of the series need
    #[arg(long)]
    quick: bool,
    /// Only subjects, cells, loads and parts whose name contains this, e.g. `udispatch`, `1→3`, `plain`, `backlog`, `reply`,
    /// `one-shot`, `another host`, `routes`, `sessions`, `receivers`, `latency`, `memory`; may be given several times
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
    /// Draw the targets' table to this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => {
            println!("This is a benchmark: cargo bench --bench forward");
            Ok(())
        }
        ["by-hand", listen, upstreams @ ..] => {
            let upstreams: Result<Vec<_>, _> =
                upstreams.iter().map(|upstream| upstream.parse()).collect();
            Ok(by_hand::run(listen.parse()?, &upstreams?)?)
        }
        ["by-hand-sessions", replies, end, listen, upstream, ..] => {
            let habits = Habits {
                batched: *replies == "sendmmsg",
                one_reply: *end == "one-reply",
            };
            Ok(by_hand_sessions::run(
                listen.parse()?,
                upstream.parse()?,
                habits,
            )?)
        }
        _ => compare(&Options::parse()),
    }
}

/// Measures all that was asked for, and reports.
fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 0.25 } else { 1.0 });
    let window = Duration::try_from_secs_f64(seconds)?;
    let place = Place::find()?;
    let selection = Selection::new(&options.only, options.quick);

    let mut rows = selection.rows();
    row::play_all(&mut rows, rounds, &place, window);
    // Curves need no more than that.
    let few_rounds = if options.quick { 1 } else { rounds.min(3) };
    let mut series = series::all(options.quick, place.files_max);
    series.retain(|series| selection.has_part(series.name));
    for series in &mut series {
        series.prepare(|name| selection.has_subject(name));
        row::play_all(&mut series.rows, few_rounds, &place, window);
    }

    let machine = report::machine(&place);
    let mut text = format!(
        "# Cost of forwarding\n\n{machine}; {rounds} rounds of {seconds} s; processor time of the whole forwarder, in \
         nanoseconds for each datagram delivered, or for each exchange of a request and its reply; median and min–max, ratio \
         to the forwarder written by hand.\n"
    );
    let outcomes = goals::outcomes(&rows);
    if !outcomes.is_empty() {
        text += &goals::table(&outcomes);
    }
    text += &report::tables(&rows);
    series.iter().for_each(|series| text += &series.table());
    if selection.has_part("latency") {
        let count = if options.quick { 2_000 } else { 10_000 };
        text += &idle::latency(
            |name| selection.has_subject(name),
            few_rounds,
            count,
            &place,
        );
    }
    if selection.has_part("memory") {
        text += &idle::memory(|name| selection.has_subject(name), few_rounds, &place);
    }
    text += &report::absent(
        rows.iter()
            .chain(series.iter().flat_map(|series| &series.rows)),
    );

    print!("{text}");
    write(options.report.as_deref(), &text)?;
    write(options.plot.as_deref(), &plot::draw(&outcomes, &machine))
}

fn write(file: Option<&Path>, text: &str) -> Result<(), Box<dyn Error>> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}
