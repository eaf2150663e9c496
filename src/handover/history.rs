//! The accounts of workers that no longer run, by the numbers of the configuration that runs now. What belongs to no row of it
//! stands in a last row, so that everything ever received stays accounted for.

use crate::dispatch::ledger::{HandlerCount, Ledger, SessionCount, Tally, UpstreamCount};
use crate::dispatch::sink::SinkCounts;
use crate::dispatch::verdict::DropReason;
use crate::plan::diff::RowMap;

/// All that was counted before.
#[derive(Debug, Default)]
pub struct History {
    /// By worker number.
    workers: Vec<Ledger>,
    pending: Vec<Pending>,
}

/// What a sink has not yet written of what a handler that is gone has given it.
#[derive(Debug)]
struct Pending {
    worker: usize,
    handler: usize,
    sink_counts: SinkCounts,
    /// How much it was given.
    given: u64,
    /// What it had written and lost when that was last written down.
    seen: (u64, u64),
}

/// How many rows a configuration has, the last one for what is gone included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Listeners.
    pub listeners: usize,
    /// Routes.
    pub routes: usize,
    /// Handlers.
    pub handlers: usize,
    /// Upstreams.
    pub upstreams: usize,
}

impl Rows {
    /// For so many of each.
    pub fn new(listeners: usize, routes: usize, handlers: usize, upstreams: usize) -> Rows {
        Rows {
            listeners: listeners + 1,
            routes: routes + 1,
            handlers: handlers + 1,
            upstreams: upstreams + 1,
        }
    }

    /// Accounts with nothing in them.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.listeners, self.routes, self.handlers, self.upstreams)
    }
}

impl History {
    /// Of workers of another process, whose sinks are its own business.
    pub fn of(workers: Vec<Ledger>) -> History {
        History {
            workers,
            pending: Vec::new(),
        }
    }

    /// A worker has ended, with these accounts in the present numbering, in which what sinks have got is handled.
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
            // Its sink has got all that it handled, and says now what became of it.
            let given = ledger.handlers[handler].tally.handled;
            let tally = &mut self.workers[worker].handlers[handler].tally;
            tally.handled -= given;
            tally.in_flight += given;
            self.pending.push(Pending {
                worker,
                handler,
                sink_counts,
                given,
                seen: (0, 0),
            });
        }
    }

    /// Something that another process has counted after it gave its accounts, by worker.
    pub fn add_late(&mut self, ledgers: &[Ledger]) {
        self.workers
            .iter_mut()
            .zip(ledgers)
            .for_each(|(sum, late)| sum.add(late));
    }

    /// The accounts alone.
    pub fn into_ledgers(self) -> Vec<Ledger> {
        self.workers
    }

    /// Writes down what sinks have done meanwhile. The accounts of each worker.
    pub fn ledgers(&mut self) -> &[Ledger] {
        for pending in &mut self.pending {
            let (written, lost) = pending.sink_counts.so_far();
            let tally = &mut self.workers[pending.worker].handlers[pending.handler].tally;
            let (more, gone) = (
                written.saturating_sub(pending.seen.0),
                lost.saturating_sub(pending.seen.1),
            );
            tally.in_flight = tally.in_flight.saturating_sub(more + gone);
            tally.handled += more;
            tally.dropped[DropReason::SinkClosed as usize] += gone;
            pending.seen = (written, lost);
        }
        self.pending
            .retain(|pending| pending.seen.0 + pending.seen.1 < pending.given);
        &self.workers
    }

    /// The same in the numbers of another configuration. What is a state and no sum is counted by whoever goes on with it.
    pub fn carry(mut self, row_map: &RowMap, rows: Rows) -> History {
        self.ledgers();
        let handlers: Vec<usize> = row_map
            .handlers
            .iter()
            .map(|handler_map| {
                handler_map
                    .row()
                    .map_or(rows.handlers - 1, |row| row.index())
            })
            .collect();
        let carry = |ledger: &Ledger| {
            let mut sum = rows.ledger();
            sum.latency.clone_from(&ledger.latency);
            for (index, count) in ledger.listeners.iter().enumerate() {
                let row = row_map
                    .listeners
                    .get(index)
                    .copied()
                    .flatten()
                    .unwrap_or(rows.listeners - 1);
                sum.listeners[row].add(count);
            }
            for (index, tally) in ledger.routes.iter().enumerate() {
                let row = row_map.routes.get(index).copied().flatten();
                sum.routes[row.map_or(rows.routes - 1, |row| row.0 as usize)].add(tally);
            }
            for (index, last_seen) in ledger.last_seen.iter().enumerate() {
                // One that goes on has the same text, so it expects the same.
                let row = row_map.routes.get(index).copied().flatten();
                row.into_iter()
                    .for_each(|row| sum.note_seen(row.0 as usize, last_seen));
            }
            for (index, count) in ledger.handlers.iter().enumerate() {
                sum.handlers[handlers.get(index).copied().unwrap_or(rows.handlers - 1)]
                    .add(&past(count));
            }
            for (index, count) in ledger.upstreams.iter().enumerate() {
                let row = row_map
                    .upstreams
                    .get(index)
                    .copied()
                    .flatten()
                    .unwrap_or(rows.upstreams - 1);
                sum.upstreams[row].add(&UpstreamCount {
                    sessions: 0,
                    dead_in: 0,
                    ..count.clone()
                });
            }
            sum
        };
        let workers = self.workers.iter().map(carry).collect();
        let renumber = |pending: Pending| Pending {
            handler: handlers
                .get(pending.handler)
                .copied()
                .unwrap_or(rows.handlers - 1),
            ..pending
        };
        History {
            workers,
            pending: self.pending.into_iter().map(renumber).collect(),
        }
    }

    /// So many sessions of a row go on in another.
    pub fn move_sessions(&mut self, from: usize, to: usize, sessions: u64) {
        if let Some(ledger) = self.workers.first_mut()
            && from != to
        {
            ledger.handlers[from].sessions.left += sessions;
            ledger.handlers[to].sessions.inherited += sessions;
        }
    }

    /// The same where their row is gone.
    pub fn move_gone_sessions(&mut self, to: usize, sessions: u64) {
        self.move_sessions(self.gone(), to, sessions);
    }

    /// So many sessions of a row, or of one that is gone, had nobody to go on with them.
    pub fn end_sessions(&mut self, row: Option<usize>, sessions: u64) {
        let row = row.unwrap_or(self.gone());
        if let Some(ledger) = self.workers.first_mut() {
            ledger.handlers[row].sessions.broken += sessions;
        }
    }

    /// The number of the last handler's row.
    fn gone(&self) -> usize {
        self.workers
            .first()
            .map_or(0, |ledger| ledger.handlers.len().saturating_sub(1))
    }
}

/// For another process: what sinks still hold is this one's to write, and counts as handled there.
pub fn as_written(ledger: &Ledger) -> Ledger {
    let mut written = ledger.clone();
    for count in &mut written.handlers {
        count.tally.handled += std::mem::take(&mut count.tally.in_flight);
    }
    written
}

/// What was counted between two copies of one worker's accounts. States, and what sinks hold, are left out.
pub fn difference(late: &Ledger, early: &Ledger) -> Ledger {
    let mut difference = Ledger {
        last_seen: Vec::new(),
        latency: None,
        ..late.clone()
    };
    let minus = |late: &mut Tally, early: &Tally| {
        late.received = since(late.received, early.received);
        late.handled = since(late.handled, early.handled);
        late.dropped
            .iter_mut()
            .zip(early.dropped)
            .for_each(|(late, early)| *late = since(*late, early));
    };
    for (late, early) in difference.listeners.iter_mut().zip(&early.listeners) {
        minus(&mut late.tally, &early.tally);
        late.kernel_drops = since(late.kernel_drops, early.kernel_drops);
        late.receive_errors = since(late.receive_errors, early.receive_errors);
    }
    difference
        .routes
        .iter_mut()
        .zip(&early.routes)
        .for_each(|(late, early)| minus(late, early));
    for (late, early) in difference.handlers.iter_mut().zip(&early.handlers) {
        minus(&mut late.tally, &early.tally);
        minus(&mut late.replies, &early.replies);
        late.sent = since(late.sent, early.sent);
        less(&mut late.failed, &early.failed);
        less(&mut late.reported, &early.reported);
        // Those that are open went with the others; what ends here had begun there.
        late.sessions = SessionCount {
            one_way: since(late.sessions.one_way, early.sessions.one_way),
            ..SessionCount::default()
        };
    }
    for (late, early) in difference.upstreams.iter_mut().zip(&early.upstreams) {
        less(&mut late.failed, &early.failed);
        less(&mut late.reported, &early.reported);
        *late = UpstreamCount {
            sent: since(late.sent, early.sent),
            skipped: since(late.skipped, early.skipped),
            failed: std::mem::take(&mut late.failed),
            reported: std::mem::take(&mut late.reported),
            ..UpstreamCount::default()
        };
    }
    difference
}

/// Returns by how much a counter has grown. Counters only grow while a worker runs; one that did not is a defect, after which
/// the growth counts as none instead of as nearly 2⁶⁴.
fn since(late: u64, early: u64) -> u64 {
    debug_assert!(late >= early, "a counter went back from {early} to {late}");
    late.saturating_sub(early)
}

/// Counts by errno, less those of before.
fn less(late: &mut Vec<(i32, u64)>, early: &[(i32, u64)]) {
    for (errno, count) in late.iter_mut() {
        let before = early.iter().find(|early| early.0 == *errno);
        *count = since(*count, before.map_or(0, |early| early.1));
    }
    late.retain(|(_, count)| *count > 0);
}

/// Without what is a state.
fn past(count: &HandlerCount) -> HandlerCount {
    let sessions = SessionCount {
        open: 0,
        unreplied: 0,
        ports: 0,
        ..count.sessions
    };
    HandlerCount {
        sessions,
        ..count.clone()
    }
}
