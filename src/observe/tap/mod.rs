//! Taps, from the query to the lines. Each worker has its part of a tap, and the reader's thread formats its pages as
//! JSON (`line.rs`). A tap ends when its reader drops it, when it has shown the requested number of datagrams, or when
//! the daemon stops.

mod line;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

pub(crate) use self::line::write_datagram;
pub use self::line::{TapCount, TapLine, TappedDatagram};
use crate::build::error::Refusal;
use crate::config::Config;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::dispatch::handler::HandlerId;
use crate::dispatch::limit::Limit;
use crate::dispatch::tap::{Filter, TAPS_MAX, Tap, TapCounts, TapId, TapPage};
use crate::handover::running::Running;
use crate::number;
use crate::worker::command::{Command, Handle};

/// Largest number of payload bytes that a tap shows, which is also the default: the largest payload of a datagram.
pub const SNAP_MAX: usize = 65_535;
/// Longest wait for the workers to begin the tap. A turn takes far less than a thousandth of it.
const BEGIN_MAX: Duration = Duration::from_secs(1);
/// Shortest time between two reports of missed datagrams.
const REPORT: Duration = Duration::from_secs(1);

/// The query of a tap: which datagrams to show, and how much of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapQuery {
    /// The destination: `ADDR:PORT`, or only one of the two.
    pub to: Option<String>,
    /// The source address or prefix.
    pub from: Option<String>,
    /// The name of a handler of the datagram's route.
    pub handler: Option<String>,
    /// Number of datagrams after which the tap ends.
    pub limit: Option<u64>,
    /// Number of payload bytes to show of each datagram.
    pub snap: Option<usize>,
}

impl TapQuery {
    fn filter(&self, config: &Config) -> Result<Filter, Refusal> {
        let unreadable =
            |text: &str, how| Refusal::Unknown(format!("cannot parse {}; {how}", quoted(text)));
        let to = self
            .to
            .as_deref()
            .map(|text| text.parse().map_err(|how| unreadable(text, how)))
            .transpose()?;
        let from = self
            .from
            .as_deref()
            .map(|text| Filter::source(text).map_err(|how| unreadable(text, how)))
            .transpose()?;
        let handler = self
            .handler
            .as_deref()
            .map(|name| handler_named(name, config))
            .transpose()?;
        Ok(Filter {
            to: to.unwrap_or_default(),
            from,
            handler,
        })
    }
}

fn handler_named(name: &str, config: &Config) -> Result<HandlerId, Refusal> {
    let names = config.handlers.iter().map(|handler| handler.name.as_str());
    if let Some(place) = names.clone().position(|known| known == name) {
        Ok(HandlerId::new(place))
    } else {
        let list = || {
            format!(
                "the handlers are {}",
                names.clone().collect::<Vec<_>>().join(", ")
            )
        };
        let hint = did_you_mean(name, names.clone()).unwrap_or_else(list);
        Err(Refusal::Unknown(format!(
            "there is no handler {}; {hint}",
            quoted(name)
        )))
    }
}

/// All taps of the supervisor.
#[derive(Debug)]
pub(crate) struct TapReaders {
    places: Arc<Limit>,
    next: u64,
    taps: Vec<TapReader>,
}

/// What is needed to begin a tap again in other workers.
#[derive(Debug)]
struct TapReader {
    query: TapQuery,
    reader: Sender<TapPage>,
    counts: Arc<TapCounts>,
    live: Weak<Live>,
}

/// Exists as long as the reader does. Its drop ends the tap in the workers and frees its place.
#[derive(Debug)]
struct Live {
    id: TapId,
    workers: Mutex<Vec<Handle>>,
    places: Arc<Limit>,
}

impl Drop for Live {
    fn drop(&mut self) {
        for worker in self
            .workers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
        {
            // A worker that has ended has no taps.
            worker.send(Command::Untap(self.id));
        }
        self.places.give_back();
    }
}

impl Default for TapReaders {
    fn default() -> Self {
        TapReaders {
            places: Arc::new(Limit::new(number::to_u32(TAPS_MAX))),
            next: 0,
            taps: Vec::new(),
        }
    }
}

impl TapReader {
    /// Begins the tap in these workers. Each worker sends a message to `begun` when it has begun.
    fn begin(&self, live: &Live, filter: Filter, workers: Vec<Handle>, begun: &Sender<()>) {
        let filter = Arc::new(filter);
        let snap = self.query.snap.unwrap_or(SNAP_MAX).min(SNAP_MAX);
        for worker in &workers {
            let reader = self.reader.clone();
            let counts = Arc::clone(&self.counts);
            let tap = Box::new(Tap::new(live.id, Arc::clone(&filter), snap, reader, counts));
            // The supervisor detects a worker that has ended.
            worker.send(Command::Tap {
                tap,
                begun: begun.clone(),
            });
        }
        *live.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
    }
}

/// A tap, as its reader uses it.
#[derive(Debug)]
pub struct Tapped {
    pages: Receiver<TapPage>,
    counts: Arc<TapCounts>,
    /// Each worker sends a message here when it has begun.
    begun: Option<Receiver<()>>,
    limit: Option<u64>,
    shown: u64,
    /// The last reported number of missed datagrams, and when it was reported.
    last_report: (u64, Instant),
    _live: Arc<Live>,
}

/// Whether further lines may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapProgress {
    /// Further lines may follow.
    More,
    /// No line follows; the tap has ended.
    End,
}

impl TapReaders {
    /// Begins a tap in each worker.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the query names something that does not exist, [`Refusal::Unable`] if there are
    /// [`TAPS_MAX`] taps already.
    pub(crate) fn begin(&mut self, query: TapQuery, running: &Running) -> Result<Tapped, Refusal> {
        let filter = query.filter(&running.config)?;
        self.taps
            .retain(|tap_reader| tap_reader.live.strong_count() > 0);
        if !self.places.take() {
            let reason = format!(
                "{TAPS_MAX} taps are open already, which is the maximum; end one of them first"
            );
            return Err(Refusal::Unable(reason));
        }
        self.next += 1;
        let id = TapId(self.next);
        let places = Arc::clone(&self.places);
        let live = Arc::new(Live {
            id,
            workers: Mutex::default(),
            places,
        });
        let workers: Vec<Handle> = running.handles().cloned().collect();
        let (reader, pages) = unbounded();
        let (begins, begun) = bounded(workers.len());
        let counts = Arc::default();
        let limit = query.limit;
        let tap_reader = TapReader {
            query,
            reader,
            counts: Arc::clone(&counts),
            live: Arc::downgrade(&live),
        };
        tap_reader.begin(&live, filter, workers, &begins);
        self.taps.push(tap_reader);
        let last_report = (0, Instant::now());
        Ok(Tapped {
            pages,
            counts,
            begun: Some(begun),
            limit,
            shown: 0,
            last_report,
            _live: live,
        })
    }

    /// Begins all taps again in the workers of another configuration. A tap on a handler that was removed ends.
    pub(crate) fn begin_again(&mut self, running: &Running) {
        let workers: Vec<Handle> = running.handles().cloned().collect();
        let (begins, _) = bounded(workers.len());
        self.taps.retain(|tap_reader| {
            let Some(live) = tap_reader.live.upgrade() else {
                return false;
            };
            let Ok(filter) = tap_reader.query.filter(&running.config) else {
                return false;
            };
            tap_reader.begin(&live, filter, workers.clone(), &begins);
            true
        });
    }

    /// Closes all taps. Readers still receive what the workers hold.
    pub(crate) fn close(&mut self) {
        self.taps.clear();
    }
}

impl Tapped {
    /// Appends the next lines to `lines`, and waits at most `timeout` for them. The first line has counts and comes
    /// when every worker has begun: each datagram sent after it is seen.
    pub fn lines(&mut self, timeout: Duration, lines: &mut Vec<u8>) -> TapProgress {
        if let Some(begun) = self.begun.take() {
            wait_for_all(&begun);
            self.count(lines, None);
            return TapProgress::More;
        }
        let after = match self.pages.recv_timeout(timeout) {
            Ok(page) => self.page(page, lines),
            Err(RecvTimeoutError::Timeout) => TapProgress::More,
            Err(RecvTimeoutError::Disconnected) => {
                self.count(lines, Some("stopped"));
                return TapProgress::End;
            }
        };
        if after == TapProgress::End {
            self.count(lines, Some("limit"));
        } else if self.last_report.0 != self.counts.get().1
            && self.last_report.1.elapsed() >= REPORT
        {
            self.count(lines, None);
        }
        after
    }

    fn page(&mut self, page: TapPage, lines: &mut Vec<u8>) -> TapProgress {
        let mut after = TapProgress::More;
        for view in page.views() {
            // Writing to a Vec cannot fail.
            let _ = write_datagram(lines, &view);
            self.shown += 1;
            if self.limit.is_some_and(|limit| self.shown >= limit) {
                after = TapProgress::End;
                break;
            }
        }
        page.done();
        after
    }

    fn count(&mut self, lines: &mut Vec<u8>, end: Option<&str>) {
        let (matched, missed) = self.counts.get();
        self.last_report = (missed, Instant::now());
        let count = TapCount {
            matched,
            shown: self.shown,
            missed,
            end: end.map(str::to_owned),
        };
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(&mut *lines, &count);
        lines.push(b'\n');
    }
}

/// Waits until the channel holds as many messages as it can.
fn wait_for_all(begun: &Receiver<()>) {
    let deadline = Instant::now() + BEGIN_MAX;
    for _ in 0..begun.capacity().unwrap_or(0) {
        // A worker that has ended sends nothing more.
        let Ok(()) = begun.recv_deadline(deadline) else {
            return;
        };
    }
}
