//! What does forwarding cost? udispatch against forwarders written by hand, socat, nginx, Envoy and Sōzu, as whole processes.
//!
//!     cargo bench --bench forward                       # about twenty minutes
//!     cargo bench --bench forward -- --quick            # about two minutes
//!     cargo bench --bench forward -- --only udispatch --report FILE.md --plot docs/forward.svg
//!
//! Envoy and Sōzu are looked for in $ENVOY and $SOZU, then in PATH. $UDISPATCH names another udispatch to be measured.
//!
//! The result is the **processor time of the whole forwarder for each datagram that a receiver got**, in nanoseconds.
//! For request and reply, it is the time for each exchange of the two. These rules make it fair, and stable to a few
//! per cent on a machine that does other work as well:
//!
//! - The clock of the forwarder is the kernel's own sum over all its threads (CLOCK_PROCESS_CPUTIME_ID of another
//!   process). It is exact to the nanosecond, unlike the 4 to 10 ms ticks of /proc/PID/stat. It does not contain the
//!   time in which other processes or the hypervisor ran.
//! - The forwarder is alone on its processor as far as the benchmark is concerned. The sender and the receivers share
//!   the other one, in a single thread that takes turns. There are no time slices between them, and the receivers never
//!   sleep, so no forwarder pays for waking them.
//! - On loopback the receiving half of a send runs in the sender's context. The time of the forwarder thus contains the
//!   receivers' half of the network stack, and not its own, which the sender of the benchmark paid. This holds for all
//!   subjects. (A kernel with CONFIG_IRQ_TIME_ACCOUNTING removes that half from the clock, for all subjects alike.)
//! - Delivered is what the receivers took. Their buffers are far larger than what is under way, and a run in which
//!   their drop counters moved is an error. They check every length: datagrams must come as they were sent, not joined.
//!   Their copying is cut short (MSG_TRUNC), because it only costs the processor of the benchmark, which has enough to
//!   do. With three upstreams one datagram received is three delivered.
//! - **Backlog** is the result to compare. The forwarder is stopped (SIGSTOP) while the sender fills its receive buffer
//!   to three quarters of what any process may ask for, then continued, and so on. It is saturated by construction,
//!   however fast it is and however slow the sender. Nothing is dropped, and the number of datagrams in a batch is not
//!   left to chance. The forwarder is woken once in thousands of datagrams. The sender fills from the forwarder's own
//!   processor, like the queue of a network card that is steered to the processor of its reader. From another one, the
//!   kernel sends a datagram's memory back there after use, with an interrupt every 32 datagrams. In a virtual machine
//!   that costs more than all else, and has nothing to do with forwarders.
//! - **Flood** is the least reliable result, and the one that users will try: sender against forwarder at full speed.
//!   What the kernel drops before the forwarder only costs the sender. A forwarder that is *not* busy all the time here
//!   is faster than the sender. It then sleeps, wakes, and gets small batches, so that its cost for each datagram rises
//!   with its speed. `busy` shows that.
//! - **Paced** is the cost of being woken for every single datagram.
//! - **Another host** is a network namespace behind a veth pair. The work of its kernel on receiving is steered to the
//!   processor of the load (RPS). The time of the forwarder ends with the hand-over, and contains the interrupt that is
//!   sent to the other processor.
//! - **Request and reply** is a closed loop: each client sends one request, and the next one as soon as the reply has
//!   come. At most 256 are under way, so that nothing needs to be lost. A client is an address and a port. All clients
//!   share a socket of the benchmark, which makes the load cheaper than any forwarder. `busy` shows whether the
//!   forwarder was saturated, and on a quiet machine it is 95 to 100 %. Every reply is checked: its client, its source
//!   and its length. If one does not come, the request is sent again and counted as not delivered.
//! - **One-shot** has a client for each request that never returns. The forwarder has warmed up for a second first, so
//!   that one that keeps ports for the next session has all that it will have. Envoy has no setting that ends a session
//!   after one reply, so its timeouts are waited for and are in its time.
//! - As root, all of it happens in a network namespace of its own, without the host's firewall and with more ports.
//! - A round measures every subject in a cell one after the other, each in a fresh process. A ratio is taken within its
//!   round, and the table shows the median of the rounds.
//!
//! Every run ends by itself. All traffic stays on loopback and between namespaces that are removed with the benchmark.

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
    /// Measure for a quarter of a second, in three rounds, and only what the targets and the ends of the series need
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

/// Measures all that was selected, and writes the report.
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
    // Curves need no more rounds than this.
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
