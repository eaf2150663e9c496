//! The ledgers of workers that no longer run, with the row numbers of the running configuration. Counts that belong to
//! none of its rows are kept in an extra last row, so that no received datagram is missing from the accounts.

use crate::dispatch::id::{HandlerId, ListenerId, RouteId, UpstreamId};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::sink::SinkCounts;
use crate::dispatch::verdict::DropReason;
use crate::plan::row_map::{HandlerMap, RowMaps};

/// The counts of workers that no longer run.
#[derive(Debug, Default)]
pub struct History {
    /// Ledgers by worker number.
    workers: Vec<Ledger>,
    pending: Vec<Pending>,
}

/// Datagrams that a former handler passed to a sink, and that the sink has not written yet.
#[derive(Debug)]
struct Pending {
    worker: usize,
    handler: usize,
    sink_counts: SinkCounts,
    /// Number of datagrams passed to the sink.
    passed: u64,
    /// Numbers of written and lost datagrams that the ledger already contains.
    seen: (u64, u64),
}

/// Number of rows in the ledgers of a configuration, including the last row for counts without a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows of listeners.
    pub listeners: usize,
    /// Rows of routes.
    pub routes: usize,
    /// Rows of handlers.
    pub handlers: usize,
    /// Rows of upstreams.
    pub upstreams: usize,
}

impl Rows {
    /// Computes the rows for a number of listeners, routes, handlers and upstreams.
    pub fn new(listeners: usize, routes: usize, handlers: usize, upstreams: usize) -> Rows {
        Rows {
            listeners: listeners + 1,
            routes: routes + 1,
            handlers: handlers + 1,
            upstreams: upstreams + 1,
        }
    }

    /// Makes an empty ledger.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.listeners, self.routes, self.handlers, self.upstreams)
    }
}

impl History {
    /// Wraps the ledgers of another process's workers. That process counts the datagrams that its sinks still hold.
    pub fn of(workers: Vec<Ledger>) -> History {
        History {
            workers,
            pending: Vec::new(),
        }
    }

    /// Adds the ledger of a worker that has ended. It has the current row numbers, and counts everything that sinks
    /// received as handled.
    pub fn add(
        &mut self,
        worker: usize,
        rows: Rows,
        ledger: &Ledger,
        sink_counts: Vec<(usize, SinkCounts)>,
    ) {
        while self.workers.len() <= worker {
            self.workers.push(rows.ledger());
        }
        self.workers[worker].add(ledger);
        for (handler, sink_counts) in sink_counts {
            // The sink received all that the handler handled. From now on, the sink's counts decide how these datagrams
            // end.
            let passed = ledger.handlers[handler].tally.handled;
            let tally = &mut self.workers[worker].handlers[handler].tally;
            tally.handled -= passed;
            tally.in_flight += passed;
            self.pending.push(Pending {
                worker,
                handler,
                sink_counts,
                passed,
                seen: (0, 0),
            });
        }
    }

    /// Adds the counts that another process made after it exported its ledgers, by worker.
    pub fn add_late(&mut self, ledgers: &[Ledger]) {
        self.workers
            .iter_mut()
            .zip(ledgers)
            .for_each(|(sum, late)| sum.add(late));
    }

    /// Returns the ledgers, without the datagrams that sinks still hold.
    pub fn into_ledgers(self) -> Vec<Ledger> {
        self.workers
    }

    /// Updates the ledgers with the datagrams that sinks have written and lost since the last call. Returns them by
    /// worker.
    pub fn ledgers(&mut self) -> &[Ledger] {
        for pending in &mut self.pending {
            let (written, lost) = pending.sink_counts.so_far();
            let tally = &mut self.workers[pending.worker].handlers[pending.handler].tally;
            let more = written.saturating_sub(pending.seen.0);
            let gone = lost.saturating_sub(pending.seen.1);
            tally.in_flight = tally.in_flight.saturating_sub(more + gone);
            tally.handled += more;
            tally.dropped[DropReason::SinkClosed as usize] += gone;
            pending.seen = (written, lost);
        }
        self.pending
            .retain(|pending| pending.seen.0 + pending.seen.1 < pending.passed);
        &self.workers
    }

    /// Converts the history to the row numbers of another configuration. Gauges (open sessions, dead upstreams) are
    /// omitted: the workers that take over the state count them.
    pub fn carry(mut self, row_maps: &RowMaps, rows: Rows) -> History {
        self.ledgers();
        let listener = |old| row_maps.listeners.get(ListenerId::new(old));
        let route = |old| row_maps.routes.get(RouteId::new(old));
        let handler = |old| {
            let map = row_maps.handlers.get(HandlerId::new(old));
            map.and_then(HandlerMap::row)
                .map_or(rows.handlers - 1, HandlerId::index)
        };
        let upstream = |old| row_maps.upstreams.get(UpstreamId::new(old));
        let carry = |ledger: &Ledger| {
            let mut sum = rows.ledger();
            sum.latency.clone_from(&ledger.latency);
            for (index, count) in ledger.listeners.iter().enumerate() {
                let row = listener(index).map_or(rows.listeners - 1, |row| row.index());
                sum.listeners[row].add(count);
            }
            for (index, tally) in ledger.routes.iter().enumerate() {
                let row = route(index).map_or(rows.routes - 1, |row| row.index());
                sum.routes[row].add(tally);
            }
            for (index, last_seen) in ledger.last_seen.iter().enumerate() {
                // A route that continues has the same text, and so the same `expect_every`.
                if let Some(row) = route(index) {
                    sum.note_seen(row.index(), last_seen);
                }
            }
            for (index, count) in ledger.handlers.iter().enumerate() {
                sum.handlers[handler(index)].add(&count.without_gauges());
            }
            for (index, count) in ledger.upstreams.iter().enumerate() {
                let row = upstream(index).map_or(rows.upstreams - 1, |row| row.index());
                sum.upstreams[row].add(&count.without_gauges());
            }
            sum
        };
        let workers = self.workers.iter().map(carry).collect();
        let renumber = |pending: Pending| Pending {
            handler: handler(pending.handler),
            ..pending
        };
        History {
            workers,
            pending: self.pending.into_iter().map(renumber).collect(),
        }
    }

    /// Counts sessions that moved from one handler's row to another.
    pub fn move_sessions(&mut self, from: usize, to: usize, sessions: u64) {
        if let Some(ledger) = self.workers.first_mut()
            && from != to
        {
            ledger.handlers[from].sessions.left += sessions;
            ledger.handlers[to].sessions.inherited += sessions;
        }
    }

    /// Counts sessions that moved to a handler's row and whose former handler has no row any more.
    pub fn move_gone_sessions(&mut self, to: usize, sessions: u64) {
        self.move_sessions(self.gone(), to, sessions);
    }

    /// Counts sessions that no handler could take over. `row` is `None` if their former handler has no row any more.
    pub fn end_sessions(&mut self, row: Option<usize>, sessions: u64) {
        let row = row.unwrap_or(self.gone());
        if let Some(ledger) = self.workers.first_mut() {
            ledger.handlers[row].sessions.broken += sessions;
        }
    }

    /// Returns the index of the last handler row, which holds counts without a handler.
    fn gone(&self) -> usize {
        self.workers
            .first()
            .map_or(0, |ledger| ledger.handlers.len().saturating_sub(1))
    }
}

/// Returns the ledger as another process counts it. This process still writes the datagrams that its sinks hold, so
/// they count as handled there.
pub fn as_written(ledger: &Ledger) -> Ledger {
    let mut written = ledger.clone();
    for count in &mut written.handlers {
        count.tally.handled += std::mem::take(&mut count.tally.in_flight);
    }
    written
}

/// Returns the counts between two copies of one worker's ledger, the earlier of which was exported. Gauges and
/// histograms are omitted.
pub fn difference(late: &Ledger, exported: &Ledger) -> Ledger {
    let mut difference = Ledger {
        last_seen: Vec::new(),
        latency: None,
        ..late.clone()
    };
    for (late, exported) in difference.listeners.iter_mut().zip(&exported.listeners) {
        *late = late.since(exported);
    }
    for (late, exported) in difference.routes.iter_mut().zip(&exported.routes) {
        *late = late.since(exported);
    }
    for (late, exported) in difference.handlers.iter_mut().zip(&exported.handlers) {
        *late = late.since_export(exported);
    }
    for (late, exported) in difference.upstreams.iter_mut().zip(&exported.upstreams) {
        *late = late.since_export(exported);
    }
    difference
}
