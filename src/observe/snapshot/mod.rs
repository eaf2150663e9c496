//! The one value that every view shows: all accounts and states at one instant, with their names. `GET /status` is this value
//! as JSON, so the commands get it back as it is; metrics, the page and the final table are made from it.
//!
//! `docs/status.md` tells what each key means; keys are promises. `rows.rs` has the accounts, `alarm.rs` what stands out,
//! `flows.rs` who leads to whom, `host.rs` what the host counts, `take.rs` puts it together, `table.rs` shows it.

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
pub use self::latency::{Latency, LatencyBucket};
pub use self::rows::{
    Account, AdminRow, HandlerRow, ListenerRow, ProbeFailureRow, RouteRow, SessionsRow, ShadowRow,
    UpstreamRow, WorkerRow,
};
pub use self::take::{Facts, Life, unix_seconds};
pub use crate::observe::alarm::{Alarm, Journal, Memory};

/// All accounts and states at one instant. Displayed, it is the ledger's table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the program that runs.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The configuration file, as it was named at the start.
    pub config_file: String,
    /// Reloads and takeovers so far.
    pub generation: u64,
    /// When the process started, in unix seconds.
    pub started: u64,
    /// When a reload was last applied, in unix seconds; a takeover is a start.
    pub reloaded: Option<u64>,
    /// Reloads that were applied, and that were refused, since the start.
    pub reloads: Reloads,
    /// When this was taken, in unix milliseconds.
    pub taken_unix_ms: u64,
    /// How long the process had run then. Rates are differences of counters over differences of this.
    pub uptime_ms: u64,
    /// How it is.
    pub state: DaemonState,
    /// Why it is degraded, a sentence each.
    pub reasons: Vec<String>,
    /// What stands out now, and what to do about it.
    pub alarms: Vec<Alarm>,
    /// The threads that receive.
    pub workers: Vec<WorkerRow>,
    /// The sockets' destinations.
    pub listeners: Vec<ListenerRow>,
    /// The routes in the order of the file.
    pub routes: Vec<RouteRow>,
    /// The handlers in the order of the file.
    pub handlers: Vec<HandlerRow>,
    /// The upstreams: handlers in the order of the file, and in each its upstreams.
    pub upstreams: Vec<UpstreamRow>,
    /// Who leads to whom.
    pub flows: Flows,
    /// What the listeners received and nobody handled, by reason; those that did not happen are left out.
    pub drops: BTreeMap<String, u64>,
    /// What the kernel refused to send, by errno, of all handlers.
    pub send_errors: BTreeMap<String, u64>,
    /// How long datagrams stay, where `daemon.latency` asks for it.
    pub latency: Option<Latency>,
    /// What the host counts of UDP, whoever caused it.
    pub host: HostCounts,
    /// The control socket's own accounts.
    pub admin: AdminRow,
    /// Whether law 3 holds in and between all rows.
    pub balances: bool,
}

/// How the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonState {
    /// All is well.
    Serving,
    /// Datagrams flow, and something beside them does not work.
    Degraded,
    /// It handles what the sockets still hold, and ends.
    Stopping,
}

impl DaemonState {
    /// Its name, as in JSON.
    pub fn label(self) -> &'static str {
        match self {
            DaemonState::Serving => "serving",
            DaemonState::Degraded => "degraded",
            DaemonState::Stopping => "stopping",
        }
    }
}

/// How reloads went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Applied.
    pub applied: u64,
    /// Refused: the file was wrong, or could not be applied. What ran before went on.
    pub refused: u64,
    /// When one was last refused, in unix seconds.
    pub last_refused: Option<u64>,
}
