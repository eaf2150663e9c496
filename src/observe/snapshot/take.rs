//! Assembles a snapshot from the workers' ledgers, the state of the upstream monitor, and what the supervisor keeps.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{DaemonState, Reloads, Snapshot};
use crate::config::Config;
use crate::dispatch::counters::ErrnoCounts;
use crate::dispatch::ledger::{
    HandlerCount, Ledger, ListenerCount, ShadowCounts, Tally, UpstreamCount,
};
use crate::dispatch::time::Time;
use crate::handover::history::Rows;
use crate::handover::running::Part;
use crate::monitor;
use crate::observe::admin_stats::AdminRow;
use crate::observe::alarm::{Alarm, AlarmInput, ExpectedTraffic, Memory, Sockets};
use crate::observe::snapshot::flows::Flows;
use crate::observe::snapshot::host::HostCounts;
use crate::observe::snapshot::rows::{
    HandlerRow, ListenerRow, ProbeFailureRow, RouteRow, UpstreamRow, WorkerRow,
};
use crate::plan::{ListenerPlan, Plan};

/// The history of the process.
#[derive(Debug, Clone)]
pub struct Life {
    /// When the process started.
    pub started: Instant,
    /// When the process started, in unix seconds.
    pub started_unix: u64,
    /// Number of reloads and takeovers so far.
    pub generation: u64,
    /// When a reload was last applied, in unix seconds.
    pub reloaded: Option<u64>,
    /// The results of reloads.
    pub reloads: Reloads,
}

impl Life {
    /// Returns the history of a process that starts now.
    pub fn begin() -> Life {
        Life {
            started: Instant::now(),
            started_unix: unix_seconds(),
            generation: 0,
            reloaded: None,
            reloads: Reloads::default(),
        }
    }
}

/// Returns the current time in unix seconds.
pub fn unix_seconds() -> u64 {
    unix().as_secs()
}

fn unix() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The values that a snapshot is made from.
pub struct Facts<'a> {
    /// The configuration in effect.
    pub config: &'a Config,
    /// The plan of that configuration.
    pub plan: &'a Plan,
    /// The flow graph of that plan.
    pub flows: &'a Flows,
    /// The number of rows of the accounts.
    pub rows: Rows,
    /// The accounts of the workers, by index.
    pub parts: &'a [Part],
    /// The monitored state of the upstreams, by index.
    pub upstreams: &'a [monitor::UpstreamState],
    /// Returns whether an upstream was drained by command; takes the names of the handler and of the upstream.
    pub is_drained: &'a dyn Fn(&str, &str) -> bool,
    /// The history of the process.
    pub life: &'a Life,
    /// The accounts of the control socket.
    pub admin: AdminRow,
    /// The current conditions, one sentence each.
    pub conditions: Vec<String>,
    /// Whether the daemon is about to exit.
    pub is_stopping: bool,
    /// The smallest receive buffer of each listener's sockets, in bytes.
    pub receive_buffers: &'a [usize],
    /// Alarms that the host watch found.
    pub found: Vec<Alarm>,
    /// The moment from which the workers count time.
    pub epoch: Instant,
}

impl Snapshot {
    /// Returns the snapshot for these facts. `memory` keeps the state of alarms between snapshots.
    pub fn new(facts: Facts<'_>, memory: &mut Memory) -> Snapshot {
        let Facts {
            config, plan, life, ..
        } = facts;
        let sum = facts.sum();
        let now = Instant::now();
        let now_unix = unix();
        let reasons = facts.reasons();
        memory.host = HostCounts::now(memory.host);
        let listeners = facts.listeners(&sum);
        let upstreams = facts.upstreams(&sum);
        let routes = facts.routes(&sum);
        let handlers = facts.handlers(&sum);
        let input = AlarmInput {
            listeners: listeners
                .iter()
                .zip(&plan.listeners)
                .map(|(row, plan)| (row, facts.sockets(plan)))
                .collect(),
            upstreams: &upstreams,
            expected: facts.expected(&sum).collect(),
            now,
            now_unix: now_unix.as_secs(),
        };
        let mut alarms = memory.alarms(&input);
        alarms.extend(facts.found.iter().cloned());
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config_file: config.source.path().to_string_lossy().into_owned(),
            generation: life.generation,
            started: life.started_unix,
            reloaded: life.reloaded,
            reloads: life.reloads,
            taken_unix_ms: u64::try_from(now_unix.as_millis()).unwrap_or(u64::MAX),
            uptime_ms: u64::try_from(now.saturating_duration_since(life.started).as_millis())
                .unwrap_or(u64::MAX),
            state: facts.state(&reasons),
            reasons,
            alarms,
            workers: facts.workers(),
            drops: add_up(listeners.iter().map(|row| &row.account.drops)),
            send_errors: send_errors(&handlers),
            listeners,
            routes,
            handlers,
            upstreams,
            flows: facts.flows.clone(),
            latency: sum.latency.as_deref().map(Into::into),
            host: memory.host,
            admin: facts.admin,
            balances: sum.balances(),
        }
        .checked(plan)
    }

    /// Checks that the snapshot has as many rows as the plan.
    fn checked(self, plan: &Plan) -> Snapshot {
        debug_assert!(self.listeners.len() >= plan.listeners.len());
        debug_assert_eq!(self.upstreams.len(), plan.upstreams.count());
        self
    }
}

impl Facts<'_> {
    fn sum(&self) -> Ledger {
        let mut sum = self.rows.ledger();
        self.parts.iter().for_each(|part| sum.add(&part.ledger));
        sum
    }

    /// Returns the reasons for a degraded state, one sentence each.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = self.conditions.clone();
        let silent = self
            .parts
            .iter()
            .enumerate()
            .filter(|(_, part)| !part.responsive && !self.is_stopping);
        reasons.extend(silent.map(|(number, _)| {
            format!("worker {number} does not respond; its counters are those of its last response")
        }));
        reasons
    }

    fn state(&self, reasons: &[String]) -> DaemonState {
        match (self.is_stopping, reasons.is_empty()) {
            (true, _) => DaemonState::Stopping,
            (false, true) => DaemonState::Serving,
            (false, false) => DaemonState::Degraded,
        }
    }

    fn workers(&self) -> Vec<WorkerRow> {
        let parts = self.parts.iter().enumerate();
        parts
            .map(|(worker, part)| worker_row(worker, part))
            .collect()
    }

    fn listeners(&self, sum: &Ledger) -> Vec<ListenerRow> {
        let names = self
            .plan
            .listeners
            .iter()
            .map(|listener| listener.label.as_str());
        let granted = self.receive_buffers.iter().copied().chain([0]);
        let row = |((name, count), granted): ((&str, &ListenerCount), usize)| ListenerRow {
            listener: name.to_owned(),
            account: (&count.tally).into(),
            counters: count.counters,
            receive_buffer_bytes: granted as u64,
        };
        with_gone(names, &sum.listeners)
            .zip(granted)
            .map(row)
            .collect()
    }

    fn handlers(&self, sum: &Ledger) -> Vec<HandlerRow> {
        let names = self
            .config
            .handlers
            .iter()
            .map(|handler| handler.name.as_str());
        let kinds = self
            .config
            .handlers
            .iter()
            .map(|handler| handler.kind.name)
            .chain([""]);
        let row = |((name, count), kind): ((&str, &HandlerCount), &str)| HandlerRow {
            handler: name.to_owned(),
            kind: kind.to_owned(),
            account: (&count.tally).into(),
            counters: count.counters,
            failed: count.failed.clone(),
            reported: count.reported.clone(),
            replies: (&count.replies).into(),
            sessions: count.sessions,
        };
        with_gone(names, &sum.handlers)
            .zip(kinds)
            .map(row)
            .collect()
    }

    fn routes(&self, sum: &Ledger) -> Vec<RouteRow> {
        let names = self.config.routes.iter().map(|route| route.label.as_str());
        let row = |(name, tally): (&str, &Tally)| RouteRow {
            route: name.to_owned(),
            account: tally.into(),
        };
        with_gone(names, &sum.routes).map(row).collect()
    }

    fn sockets(&self, listener: &ListenerPlan) -> Sockets {
        let is_spread = listener.role.is_spread();
        Sockets {
            requested: self.config.daemon.receive_buffer as u64,
            readers: if is_spread { self.plan.workers } else { 1 },
            processors: thread::available_parallelism().map_or(1, NonZero::get),
            is_spread,
        }
    }

    /// Returns the expected traffic, in the order of the file.
    fn expected<'b>(&'b self, sum: &'b Ledger) -> impl Iterator<Item = ExpectedTraffic<'b>> {
        self.config
            .routes
            .iter()
            .enumerate()
            .flat_map(move |(number, route)| {
                let last_seen = sum.last_seen.get(number).map_or(&[][..], Vec::as_slice);
                route
                    .expectations
                    .iter()
                    .enumerate()
                    .map(move |(place, expectation)| ExpectedTraffic {
                        route: &route.label,
                        expectation,
                        received: sum.routes[number].received,
                        last_received: last_seen
                            .get(place)
                            .filter(|at| **at != Time::default())
                            .map(|at| self.epoch + at.since(Time::default())),
                    })
            })
    }

    fn upstreams(&self, sum: &Ledger) -> Vec<UpstreamRow> {
        let rows = self.plan.upstreams.iter().zip(&sum.upstreams);
        rows.map(|((id, located), count)| {
            let handler = &self.config.handler(located.handler).name;
            let upstream = located.upstream.to_string();
            self.upstream(handler, upstream, self.upstreams.get(id.index()), count)
        })
        .collect()
    }

    fn upstream(
        &self,
        handler: &str,
        upstream: String,
        state: Option<&monitor::UpstreamState>,
        count: &UpstreamCount,
    ) -> UpstreamRow {
        let workers = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        UpstreamRow {
            drained_by_hand: (self.is_drained)(handler, &upstream),
            handler: handler.to_owned(),
            upstream,
            address: state
                .and_then(|state| state.address)
                .map(|address| address.to_string()),
            alive: state.is_none_or(|state| state.alive)
                && (count.dead_in == 0 || count.dead_in < workers),
            dead_in_workers: count.dead_in,
            draining: count.draining_in > 0,
            last_failure: state
                .and_then(|state| state.failed.as_ref())
                .map(|(at, failure)| ProbeFailureRow {
                    at: unix_seconds().saturating_sub(at.elapsed().as_secs()),
                    text: failure.to_string(),
                    cure: failure.advice().to_owned(),
                }),
            counters: count.counters,
            failed: count.failed.clone(),
            reported: count.reported.clone(),
            shadow: Some(count.shadow).filter(|shadow| *shadow != ShadowCounts::default()),
        }
    }
}

/// The name of the row for everything that was removed.
const GONE: &str = "(removed)";

/// Pairs the accounts with their names. The last account, of everything that no file names any more, is included unless
/// it is empty.
fn with_gone<'a, T: Default + PartialEq>(
    names: impl Iterator<Item = &'a str>,
    accounts: &'a [T],
) -> impl Iterator<Item = (&'a str, &'a T)> {
    let last = accounts.len() - 1;
    let is_shown = move |(at, row): &(usize, (&str, &T))| *at < last || *row.1 != T::default();
    names
        .chain([GONE])
        .zip(accounts)
        .enumerate()
        .filter(is_shown)
        .map(|(_, row)| row)
}

fn worker_row(worker: usize, part: &Part) -> WorkerRow {
    let mut sum = Tally::default();
    for count in &part.ledger.listeners {
        sum.add(&count.tally);
    }
    WorkerRow {
        worker,
        responsive: part.responsive,
        account: (&sum).into(),
    }
}

fn send_errors(handlers: &[HandlerRow]) -> ErrnoCounts {
    let mut sum = ErrnoCounts::default();
    for row in handlers {
        sum.add(&row.failed);
    }
    sum
}

fn add_up<'a>(counts: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (name, count) in counts.flatten() {
        *sum.entry(name.clone()).or_default() += count;
    }
    sum
}
