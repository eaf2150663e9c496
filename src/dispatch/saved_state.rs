//! The state that a handler saves for its replacement when a configuration or a process is replaced. It is plain
//! data, so that it can be sent to another process. Sockets are numbers here, as everywhere in this room. The control
//! plane transfers the sockets, and replaces the old numbers by those of the new configuration.

use serde::{Deserialize, Serialize};

use super::passive_health::PassiveHealth;
use super::sessions::ports::ReleasedPort;
use super::sessions::{LegRecord, SessionRecord};

/// The saved state of one handler of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The position of the round robin among the upstreams.
    pub turn: u64,
    /// The state of each upstream, in the order of the file.
    pub upstreams: Vec<SavedUpstream>,
    /// The open sessions.
    pub sessions: Vec<SavedSession>,
    /// The source ports that no session leases.
    pub ports: Vec<SavedPort>,
}

/// The saved state of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedUpstream {
    /// The place of the upstream in the handler's list.
    pub place: u16,
    /// Whether the upstream is considered alive.
    pub is_alive: bool,
    /// The passive health of the upstream.
    #[serde(rename = "judge")]
    pub passive_health: PassiveHealth,
    /// The progress of the upstream's sample towards its next datagram.
    pub earned: u32,
}

/// The saved state of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// The record of the session.
    #[serde(flatten)]
    pub record: SessionRecord,
    /// The session's legs: one for each upstream that it uses.
    pub legs: Vec<LegRecord>,
}

/// A source port in quarantine or idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// The place of the upstream that the port leads to.
    pub place: u16,
    /// The port.
    #[serde(flatten)]
    pub port: ReleasedPort,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Processes of all versions write a session and a port with the same keys and values.
    #[test]
    fn the_keys_of_a_session_and_a_port_stay() {
        let mut session = json!({
            "client": "192.0.2.1:40000", "local": "192.0.2.9:53", "route": 3, "ear": 1, "interface": 2, "seen": 5,
            "ttl": 63, "requests": 7, "replies": 6, "winner": 0, "is_answered": true, "is_bound": true,
            "legs": [{"place": 0, "lane": 4, "asked": 7, "answered": 6, "is_spoilt": false}],
        });
        let port = json!({"place": 1, "lane": 8, "until": 9, "released": 8, "is_owed": true});
        let read: SavedSession = serde_json::from_value(session.clone()).expect("a session");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), session);
        let read: SavedPort = serde_json::from_value(port.clone()).expect("a port");
        assert_eq!(serde_json::to_value(read).expect("JSON"), port);
        session["route"] = json!(u32::MAX);
        let read: SavedSession = serde_json::from_value(session.clone()).expect("a session");
        assert_eq!(read.record.key.route, None);
        assert_eq!(serde_json::to_value(&read).expect("JSON"), session);
    }
}
