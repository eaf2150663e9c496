//! The messages of a takeover, as plain data. An older version ignores a field that it does not know. A newer version uses a
//! default for a field that is missing. The JSON keys and the bytes of [`MessageKind`] never change, whatever the Rust names are,
//! because each version takes over from the ones before it.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dispatch::id::ListenerId;
use crate::dispatch::ledger::Ledger;
use crate::monitor::UpstreamState;
use crate::plan::identity::Identity;
use crate::worker::worker_state::{SocketSlot, WorkerState};

/// The version of the protocol. It must change when an older process would misinterpret the messages of a newer one.
pub const VERSION: u32 = 1;
/// Largest number of bytes of JSON in one message, which is room for some million sessions.
pub const BYTES_MAX: u64 = 1 << 30;
/// Largest number of descriptors with one message.
pub const FDS_MAX: u32 = 1 << 20;

/// The kind of a message; its number is the first byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// [`Hello`], from the client.
    Hello = b'H',
    /// [`Refused`], from the server.
    Refused = b'N',
    /// [`Manifest`], from the server.
    Manifest = b'M',
    /// The client is prepared and could start its workers now. It has no data.
    Ready = b'R',
    /// [`Released`], from the server.
    Released = b'L',
    /// [`Started`], from the client.
    Started = b'S',
    /// [`FinalCounts`], from the server.
    FinalCounts = b'F',
}

impl MessageKind {
    /// All kinds.
    const ALL: [MessageKind; 7] = [
        MessageKind::Hello,
        MessageKind::Refused,
        MessageKind::Manifest,
        MessageKind::Ready,
        MessageKind::Released,
        MessageKind::Started,
        MessageKind::FinalCounts,
    ];

    /// Returns the kind with this first byte, if there is one.
    pub fn of(byte: u8) -> Option<MessageKind> {
        MessageKind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The client's first message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that the client uses.
    pub version: u32,
    /// The client's process id.
    pub pid: u32,
}

/// The refusal of a server that does not hand over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The reason, as a sentence for the client's log.
    #[serde(rename = "why")]
    pub reason: String,
}

/// The description of what the server serves. The message carries duplicates of descriptors: the listeners' sockets in the order
/// of `slots`, then those of `admin_listeners`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The server's process id.
    pub pid: u32,
    /// The path of its configuration file.
    pub file: String,
    /// Number of configurations that were served so far, this one included.
    pub generation: u64,
    /// The identity of each row of its configuration.
    #[serde(rename = "outline")]
    pub identity: Identity,
    /// Number of open sessions of each handler.
    pub sessions: Vec<u64>,
    /// Last known address of each upstream that is given by name.
    pub addresses: HashMap<String, SocketAddr>,
    /// The listener of each socket.
    #[serde(rename = "seats")]
    pub slots: Vec<SocketSlot>,
    /// The listening sockets for administration.
    #[serde(rename = "doors")]
    pub admin_listeners: Vec<PassedListener>,
    /// The moment from which the daemon counts time, in nanoseconds of CLOCK_MONOTONIC, which all processes of a boot share.
    pub epoch_ns: u64,
}

impl Manifest {
    /// Returns whether `fds` descriptors are enough for the sockets that the manifest announces, and whether each socket belongs to
    /// a listener of the identity.
    pub fn is_sound(&self, fds: usize) -> bool {
        let listeners = self.identity.listeners.len();
        let is_complete = fds >= self.slots.len() + self.admin_listeners.len();
        is_complete
            && self
                .slots
                .iter()
                .all(|slot| slot.listener.index() < listeners)
    }
}

/// A listening socket for administration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassedListener {
    /// The control socket.
    Control,
    /// HTTP over TCP.
    Http,
    /// The takeover socket.
    Takeover,
}

/// The state of everything that the server has served. The message carries the sockets of all upstreams, in the order of the
/// worker states.
#[derive(Debug, Serialize, Deserialize)]
pub struct Released {
    /// The state of each worker.
    #[serde(rename = "estates")]
    pub workers: Vec<WorkerState>,
    /// Counts of workers that ended before, by worker.
    pub history: Vec<Ledger>,
    /// The state of each upstream, by number.
    pub upstreams: Vec<UpstreamState>,
    /// Upstreams that an operator has drained: handler and upstream.
    pub drained: Vec<(String, String)>,
}

/// The report that the client's workers run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// The server's numbers of the listeners that the client does not have.
    pub removed: Vec<ListenerId>,
}

/// The counts of the server after it exported its state, by the server's own row numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct FinalCounts {
    /// The counts of each worker.
    pub ledgers: Vec<Ledger>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys and the first bytes are those of version 1, so that versions with other Rust names can parse the messages.
    #[test]
    fn names_on_the_wire_are_those_of_version_1() {
        let manifest = Manifest {
            pid: 1,
            file: String::new(),
            generation: 1,
            identity: Identity::default(),
            sessions: Vec::new(),
            addresses: HashMap::new(),
            slots: Vec::new(),
            admin_listeners: vec![
                PassedListener::Control,
                PassedListener::Http,
                PassedListener::Takeover,
            ],
            epoch_ns: 0,
        };
        let manifest = serde_json::to_value(manifest).expect("plain data");
        assert_eq!(
            manifest["doors"],
            serde_json::json!(["control", "http", "takeover"])
        );
        let refused = Refused {
            reason: "no".to_owned(),
        };
        let refused = serde_json::to_string(&refused).expect("plain data");
        assert_eq!(refused, r#"{"why":"no"}"#);
        assert_eq!(MessageKind::ALL.map(|kind| kind as u8), *b"HNMRLSF");
    }
}
