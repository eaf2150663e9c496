//! What the two processes of a takeover tell each other. Names and plain data; what is not known to an older version is left
//! out, what a newer one does not find has a default.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dispatch::ledger::Ledger;
use crate::monitor::State;
use crate::plan::identity::Outline;
use crate::worker::estate::{Estate, Seat};

/// The version of this conversation. Changed when an older process would misunderstand.
pub const VERSION: u32 = 1;

/// Who asks for the sockets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The version that it speaks.
    pub version: u32,
    /// Its process.
    pub pid: u32,
}

/// Why they are not given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// A sentence.
    pub why: String,
}

/// What runs, and with it second descriptors: the listeners' sockets in the order of `seats`, then those of `doors`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The process that runs it.
    pub pid: u32,
    /// Its file.
    pub file: String,
    /// How many configurations there were, this one included.
    pub generation: u64,
    /// What it amounts to.
    pub outline: Outline,
    /// How many sessions each handler has.
    pub sessions: Vec<u64>,
    /// Where upstreams with names are.
    pub addresses: HashMap<String, SocketAddr>,
    /// Which listener each socket is of.
    pub seats: Vec<Seat>,
    /// What else is listened on, for control.
    pub doors: Vec<AdminListener>,
    /// When time began to be counted, in nanoseconds of CLOCK_MONOTONIC, which all processes share.
    pub epoch_ns: u64,
}

/// A socket that control connections come in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminListener {
    /// The control socket.
    Control,
    /// HTTP over TCP.
    Http,
    /// The next process that takes over.
    Takeover,
}

/// Everything is the other's now, and with it come the sockets of all lanes, in the order of the estates.
#[derive(Debug, Serialize, Deserialize)]
pub struct Released {
    /// What each worker leaves.
    pub estates: Vec<Estate>,
    /// What was counted before them, by worker.
    pub history: Vec<Ledger>,
    /// What is known of each upstream, by number.
    pub upstreams: Vec<UpstreamStatus>,
    /// What people have drained by hand: handler and upstream.
    pub drained: Vec<(String, String)>,
}

/// The new one runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// Numbers of the listeners that it does not go on with.
    pub removed: Vec<usize>,
}

/// What is known of an upstream.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Whether it is thought to answer.
    pub is_alive: bool,
}

impl From<&State> for UpstreamStatus {
    fn from(state: &State) -> UpstreamStatus {
        UpstreamStatus {
            address: state.address,
            is_alive: state.alive,
        }
    }
}

impl From<&UpstreamStatus> for State {
    fn from(word: &UpstreamStatus) -> State {
        State {
            address: word.address,
            alive: word.is_alive,
            changed: None,
            failed: None,
        }
    }
}

/// The last words of the one that leaves: what it has still counted, by worker, in its own numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct FinalCounts {
    /// By worker.
    pub ledgers: Vec<Ledger>,
}
