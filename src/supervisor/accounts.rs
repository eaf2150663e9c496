//! The accounts of the running daemon, and the state that is kept between two snapshots.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::config::Config;
use crate::handover::running::{Part, Running, Stopped};
use crate::observe::snapshot::{
    Alarm, Facts, Flows, Journal, Life, Memory, Snapshot, unix_seconds,
};
use crate::plan::Plan;
use crate::supervisor::requests::Requests;

/// The state that the supervisor keeps for its snapshots.
pub(crate) struct Accounts {
    /// The history of the process.
    pub(crate) life: Life,
    /// The accounts of each worker, as last received.
    parts: Vec<Part>,
    flows: Flows,
    memory: Memory,
    journal: Journal,
    /// The moment from which the workers count time.
    epoch: Instant,
}

/// The values that a snapshot shows besides the accounts.
pub(crate) struct SnapshotContext<'a> {
    /// The accounts of the control socket, and the current conditions.
    pub(crate) requests: &'a Requests,
    /// The upstreams that were drained by command, by handler and text.
    pub(crate) drained: &'a BTreeSet<(String, String)>,
    /// Alarms that the host watch found.
    pub(crate) found: Vec<Alarm>,
}

impl Accounts {
    /// Returns the state for a configuration that is about to be served.
    pub(crate) fn new(config: &Config, plan: &Plan, epoch: Instant) -> Accounts {
        Accounts {
            life: Life::begin(),
            parts: Vec::new(),
            flows: Flows::of(config, plan),
            memory: Memory::default(),
            journal: Journal::default(),
            epoch,
        }
    }

    /// Continues from this generation, which another process has served.
    pub(crate) fn inherit(&mut self, generation: u64) {
        self.life.generation = generation + 1;
        self.memory = Memory::inherited();
    }

    /// Counts a reload: other workers serve another configuration from now on.
    pub(crate) fn on_reload(&mut self, config: &Config, plan: &Plan) {
        self.life.generation += 1;
        self.life.reloads.applied += 1;
        self.life.reloaded = Some(unix_seconds());
        self.flows = Flows::of(config, plan);
        self.parts.clear();
    }

    /// Counts a reload that was refused.
    pub(crate) fn on_refused_reload(&mut self) {
        self.life.reloads.refused += 1;
        self.life.reloads.last_refused = Some(unix_seconds());
    }

    /// Returns the accounts of all workers, each as of the end of one of its turns, and logs new alarms. A worker that
    /// is not responsive is shown with its last accounts.
    pub(crate) fn snapshot(
        &mut self,
        running: &mut Running,
        context: SnapshotContext<'_>,
    ) -> Snapshot {
        let ledgers = running.ledgers();
        self.parts.resize_with(ledgers.len(), Part::default);
        for (part, ledger) in self.parts.iter_mut().zip(ledgers) {
            part.responsive = ledger.is_some();
            part.ledger = ledger.unwrap_or_else(|| std::mem::take(&mut part.ledger));
        }
        let snapshot = self.make_snapshot(running, context, false);
        self.journal
            .write(&snapshot.alarms, Instant::now(), unix_seconds());
        snapshot
    }

    /// Returns the final accounts, when the workers have returned their ledgers.
    pub(crate) fn last_snapshot(
        &mut self,
        running: &mut Running,
        stopped: &Stopped,
        context: SnapshotContext<'_>,
    ) -> Snapshot {
        let ledgers = stopped.ledgers().map(|ledger| Part {
            ledger,
            responsive: false,
        });
        self.parts = ledgers.collect();
        self.make_snapshot(running, context, true)
    }

    fn make_snapshot(
        &mut self,
        running: &mut Running,
        context: SnapshotContext<'_>,
        is_stopping: bool,
    ) -> Snapshot {
        let SnapshotContext {
            requests,
            drained,
            found,
        } = context;
        // Include the counts of workers that have ended.
        let parts = running.with_history(&self.parts);
        let facts = Facts {
            config: &running.config,
            plan: &running.plan,
            flows: &self.flows,
            rows: running.rows(),
            parts: &parts,
            upstreams: &running.upstream_states(),
            is_drained: &|handler, upstream| {
                drained.contains(&(handler.to_owned(), upstream.to_owned()))
            },
            life: &self.life,
            admin: requests.admin_stats.row(),
            conditions: requests.conditions.sentences(),
            is_stopping,
            receive_buffers: running.receive_buffers(),
            found,
            epoch: self.epoch,
        };
        Snapshot::new(facts, &mut self.memory)
    }
}
