//! The snapshot: all accounts and states at one moment, with their names. Every view is derived from it. `GET /status`
//! returns it as JSON, and the commands parse that JSON. Metrics, the live page and the final table are rendered from
//! it.
//!
//! `docs/status.md` documents each key. Keys are stable. `rows.rs` holds the accounts, `flows.rs` the flow graph and
//! `host.rs` the counters of the host. `take.rs` assembles the snapshot, and `table.rs` renders it as a table.

pub mod errnos;
mod flows;
pub mod host;
mod latency;
pub mod rows;
mod table;
mod take;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::flows::{Edge, Flows};
pub use self::host::HostCounts;
pub use self::latency::Latency;
pub use self::rows::{Account, HandlerRow, ListenerRow, RouteRow, UpstreamRow, WorkerRow};
pub use self::table::{counter_notes, session_lines, upstream_columns};
pub use self::take::{Facts, Life, unix_seconds};
use crate::dispatch::counters::ErrnoCounts;
pub use crate::observe::admin_stats::AdminRow;
pub use crate::observe::alarm::{Alarm, Journal, Memory};

/// All accounts and states at one moment. `Display` renders the ledger's table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the running program.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Path of the configuration file, as given at the start.
    pub config_file: String,
    /// Number of reloads and takeovers so far.
    pub generation: u64,
    /// When the process started, in unix seconds.
    pub started: u64,
    /// When a reload was last applied, in unix seconds. A takeover counts as a start.
    pub reloaded: Option<u64>,
    /// Numbers of applied and refused reloads since the start.
    pub reloads: Reloads,
    /// When this snapshot was taken, in unix milliseconds.
    pub taken_unix_ms: u64,
    /// How long the process had run when the snapshot was taken, in milliseconds. Rates are differences of counters
    /// divided by differences of this value.
    pub uptime_ms: u64,
    /// The state of the daemon.
    pub state: DaemonState,
    /// The reasons for a degraded state, one sentence each.
    pub reasons: Vec<String>,
    /// The current alarms, with what to do about each.
    pub alarms: Vec<Alarm>,
    /// The worker threads.
    pub workers: Vec<WorkerRow>,
    /// The addresses that the daemon receives on.
    pub listeners: Vec<ListenerRow>,
    /// The routes in the order of the file.
    pub routes: Vec<RouteRow>,
    /// The handlers in the order of the file.
    pub handlers: Vec<HandlerRow>,
    /// The upstreams, ordered by handler as in the file, and then as the handler lists them.
    pub upstreams: Vec<UpstreamRow>,
    /// The flow graph between listeners, routes, handlers and upstreams.
    pub flows: Flows,
    /// Received datagrams that no handler handled, by reason. Reasons with a count of 0 are left out.
    pub drops: BTreeMap<String, u64>,
    /// Datagrams that the kernel refused to send, by errno, for all handlers.
    #[serde(with = "errnos")]
    pub send_errors: ErrnoCounts,
    /// The latency of datagrams; present if `daemon.latency` is set.
    pub latency: Option<Latency>,
    /// The UDP counters of the host, for all programs.
    pub host: HostCounts,
    /// The accounts of the control socket.
    pub admin: AdminRow,
    /// Whether received = handled + dropped + in flight holds in all rows and between them.
    pub balances: bool,
}

/// The state of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonState {
    /// Everything works.
    Serving,
    /// Datagrams flow, but something else does not work.
    Degraded,
    /// The daemon handles what the sockets still hold, and then exits.
    Stopping,
}

impl DaemonState {
    /// Returns the state's name, as in JSON.
    pub fn label(self) -> &'static str {
        match self {
            DaemonState::Serving => "serving",
            DaemonState::Degraded => "degraded",
            DaemonState::Stopping => "stopping",
        }
    }
}

/// The results of reloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Number of reloads that were applied.
    pub applied: u64,
    /// Number of reloads that were refused: the file was invalid or could not be applied. The previous configuration
    /// stayed in effect.
    pub refused: u64,
    /// When a reload was last refused, in unix seconds.
    pub last_refused: Option<u64>,
}
