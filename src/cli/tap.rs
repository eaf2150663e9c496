//! `udispatch tap`: shows datagrams as they pass through the running daemon, with the route and verdict of each.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::pcapng::{Capture, Packet};
use super::remote::{Remote, target};
use super::{Exit, output};
use crate::admin::client::{NextChunk, ResponseStream};
use crate::handlers::escape;
use crate::observe::tap::{SNAP_MAX, TapCount, TapLine, TappedDatagram};

/// Number of payload bytes that a text line shows.
const SHOWN_BYTES: usize = 256;
/// Time between two checks for a request to stop, while no datagram arrives.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Largest line in bytes that is accepted from the daemon: the largest payload with every byte escaped, and its names.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Show datagrams as they pass through the daemon
///
/// Prints one line for each datagram that arrives: time, source, destination, what its handlers did with it, and its
/// payload. Replies of upstreams with sessions are shown, too. A datagram that is dropped before it has a route is shown
/// with the reason. The data path never waits for this command. Under heavy traffic some datagrams are only
/// counted, and their number is printed. Press Ctrl-C to stop. Payloads are available only on the control socket.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    // Not a doc comment, in which the brackets would be a link.
    #[arg(long, value_name = "ADDR:PORT")]
    #[arg(
        help = "Only datagrams to this destination: 127.0.0.1:1234, 192.0.2.0/24, [::1]:53 or :1234"
    )]
    to: Option<String>,
    /// Only datagrams from this source: 192.0.2.1 or 10.0.0.0/8
    #[arg(long, value_name = "PREFIX")]
    from: Option<String>,
    /// Only datagrams for this handler
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Stop after this number of datagrams
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Write pcapng to this file instead, for tshark and Wireshark; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pcap: Option<PathBuf>,
    /// Print one JSON object per line; docs/tap.md documents each key
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    let is_stop_requested = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // If the handler cannot be installed, the signal ends the process at once, which still leaves whole lines or
        // blocks.
        let _ = signal_hook::flag::register(signal, Arc::clone(&is_stop_requested));
    }
    let snap = if arguments.json || arguments.pcap.is_some() {
        SNAP_MAX
    } else {
        SHOWN_BYTES
    };
    let limit = arguments.limit.map(|limit| limit.to_string());
    let parameters = [
        ("to", arguments.to.as_deref()),
        ("from", arguments.from.as_deref()),
        ("handler", arguments.handler.as_deref()),
        ("limit", limit.as_deref()),
        ("snap", Some(&*snap.to_string())),
    ];
    let stream = match arguments.remote.stream(&target("/tap", &parameters)) {
        Ok(stream) => stream,
        Err(exit) => return exit,
    };
    // Open the file only now: if the daemon refuses or does not run, the previous content of the file must stay.
    let mut show = match Show::new(arguments) {
        Ok(show) => show,
        Err(exit) => return exit,
    };
    let mut last = TapCount::default();
    let ended =
        follow(stream, &mut show, &is_stop_requested, &mut last).and_then(|()| show.end(&last));
    if last.missed > 0 {
        // If the tap was ended by this command, the last counts are a moment old.
        last.matched = last.matched.max(last.shown + last.missed);
        output::print_error(&format!(
            "{} were missed, since the data path does not wait for this command",
            sampled(&last)
        ));
    }
    match ended {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            output::print_error(&format!("error: {error}"));
            Exit::Failure
        }
    }
}

/// Returns how much of the matching traffic is shown.
fn sampled(count: &TapCount) -> String {
    format!(
        "sampled: {} of {} shown; {}",
        count.shown, count.matched, count.missed
    )
}

/// Shows datagrams until the tap ends, or until the user stops it.
fn follow(
    mut stream: ResponseStream,
    show: &mut Show,
    is_stop_requested: &AtomicBool,
    last: &mut TapCount,
) -> io::Result<()> {
    let mut rest: Vec<u8> = Vec::new();
    let mut has_begun = false;
    while !is_stop_requested.load(Ordering::Relaxed) {
        match stream.next(CHECK_INTERVAL)? {
            // While nothing is written, no write can detect that the reader has closed the pipe.
            NextChunk::Nothing if show.is_unread() => return Err(ErrorKind::BrokenPipe.into()),
            NextChunk::Nothing => continue,
            NextChunk::End => break,
            NextChunk::Bytes(bytes) => rest.extend_from_slice(&bytes),
        }
        let end = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |place| place + 1);
        for line in rest[..end].split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice(line).map_err(io::Error::other)? {
                TapLine::Datagram(datagram) => {
                    show.datagram(line, &datagram)?;
                    last.shown += 1;
                }
                TapLine::Count(count) => {
                    if !std::mem::replace(&mut has_begun, true) {
                        output::print_error("tapping; press Ctrl-C to stop");
                    } else if count.missed > last.missed && count.end.is_none() {
                        output::print_error(&format!("{} missed so far", sampled(&count)));
                    }
                    show.count(line)?;
                    *last = count;
                }
            }
        }
        show.flush()?;
        rest.drain(..end);
        if rest.len() > LINE_BYTES_MAX {
            return Err(io::Error::other(
                "the daemon sends a line that does not end; it may be of another version",
            ));
        }
    }
    if last.end.is_some() || is_stop_requested.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(io::Error::other(
        "the daemon closed the connection: it has ended, or this command read too slowly",
    ))
}

/// The output for datagrams, by its format.
enum Show {
    Text {
        out: BufWriter<io::Stdout>,
        colours: bool,
    },
    Json(BufWriter<io::Stdout>),
    Pcap {
        capture: Capture<BufWriter<Box<dyn Write>>>,
        is_file: bool,
    },
}

impl Show {
    fn new(arguments: &Arguments) -> Result<Show, Exit> {
        let Some(path) = &arguments.pcap else {
            let out = BufWriter::new(io::stdout());
            let colours = output::stdout_colours();
            return Ok(if arguments.json {
                Show::Json(out)
            } else {
                Show::Text { out, colours }
            });
        };
        let begin = || -> io::Result<Show> {
            let is_file = path.as_os_str() != "-";
            let file: Box<dyn Write> = if is_file {
                Box::new(File::create(path)?)
            } else {
                Box::new(io::stdout())
            };
            let mut capture = Capture::begin(BufWriter::new(file))?;
            capture.flush()?;
            Ok(Show::Pcap { capture, is_file })
        };
        begin().map_err(|error| {
            output::print_error(&format!("error: cannot write {}: {error}", path.display()));
            Exit::Failure
        })
    }

    fn datagram(&mut self, line: &[u8], datagram: &TappedDatagram) -> io::Result<()> {
        match self {
            Show::Json(out) => out.write_all(line),
            Show::Text { out, colours } => out.write_all(&text(datagram, *colours)?),
            Show::Pcap { capture, .. } => capture.packet(&Packet {
                time_ns: datagram.time_ns,
                ends: datagram.src.zip(datagram.dst),
                ttl: datagram.ttl,
                leaves: datagram.is_reply(),
                len: datagram.length,
                payload: &payload(datagram)?,
                comment: &summary(datagram),
            }),
        }
    }

    fn count(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Show::Json(out) => out.write_all(line),
            Show::Text { .. } | Show::Pcap { .. } => Ok(()),
        }
    }

    /// Returns whether the reader has closed the pipe.
    fn is_unread(&self) -> bool {
        !matches!(self, Show::Pcap { is_file: true, .. }) && output::is_unread()
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Show::Text { out, .. } | Show::Json(out) => out.flush(),
            Show::Pcap { capture, .. } => capture.flush(),
        }
    }

    fn end(&mut self, last: &TapCount) -> io::Result<()> {
        if let Show::Pcap { capture, .. } = self {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            capture.statistics(
                u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
                last.matched,
                last.missed,
            )?;
        }
        self.flush()
    }
}

fn payload(datagram: &TappedDatagram) -> io::Result<Vec<u8>> {
    STANDARD
        .decode(&datagram.payload_base64)
        .map_err(io::Error::other)
}

/// Returns what the daemon did with the datagram: `route dns, forward handled`.
fn summary(datagram: &TappedDatagram) -> String {
    let mut parts = Vec::new();
    if datagram.is_reply() {
        parts.push(format!(
            "reply of {}",
            datagram.upstream.as_deref().unwrap_or("an upstream")
        ));
    }
    if let Some(route) = &datagram.route {
        parts.push(format!("route {route}"));
    }
    parts.extend(
        datagram
            .handlers
            .iter()
            .map(|row| format!("{} {}", row.handler, row.verdict)),
    );
    if datagram.handlers.is_empty() {
        parts.push(datagram.verdict.clone());
    }
    parts.join(", ")
}

/// Returns one line of text for a datagram.
fn text(datagram: &TappedDatagram, colours: bool) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let end = |address: Option<std::net::SocketAddr>| {
        address.map_or("?".to_owned(), |address| address.to_string())
    };
    let time = UNIX_EPOCH + Duration::from_nanos(datagram.time_ns);
    write!(line, "{} ", humantime::format_rfc3339_micros(time))?;
    write!(line, "{} > {} (", end(datagram.src), end(datagram.dst))?;
    let colour = match (colours, datagram.verdict == "handled") {
        (false, _) => None,
        (true, true) => Some(b"\x1b[32m"),
        (true, false) => Some(b"\x1b[31m"),
    };
    line.extend_from_slice(colour.map_or(&[], |colour| &colour[..]));
    escape::text(&mut line, summary(datagram).as_bytes())?;
    line.extend_from_slice(colour.map_or(&[], |_| b"\x1b[0m"));
    write!(line, ") {} B: ", datagram.length)?;
    let payload = payload(datagram)?;
    escape::text(&mut line, &payload)?;
    if payload.len() < datagram.length {
        line.extend_from_slice("…".as_bytes());
    }
    line.push(b'\n');
    Ok(line)
}
