//! Messages of a takeover, and the exported worker states in them.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stage::{SocketNumbers, dispatcher};
use crate::config::handlers::one;
use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::LocalListener;
use crate::dispatch::saved_state::SavedState;
use crate::dispatch::time::Time;
use crate::handlers::KINDS;
use crate::handover::history::History;
use crate::plan::diff::Diff;
use crate::plan::identity::Identity;
use crate::plan::row_map::{HandlerMap, RowMaps};
use crate::takeover::client::rows;
use crate::takeover::messages::{FinalCounts, Hello, Manifest, Refused, Released, Started};

/// The handlers that continue with the received state: one with sessions, one without.
const CONFIG: &str = r#"
[[route]]
destination = "192.0.2.9:53"
handler = ["ports", "stateless"]
[handler.ports]
kind = "forward"
upstreams = ["203.0.113.1:53", "203.0.113.2:53"]
replies = true
session_max = 4
[handler.stateless]
kind = "forward"
replies = false
upstreams = ["203.0.113.1:53"]
"#;

/// Checks the messages of a takeover. The input is the JSON of one message, or of two on a line each: a manifest, and
/// the released state. Each message is the same after it is written and read again. A manifest can be compared with
/// another configuration. The released state is carried over to that: the numbers of rows fit, handlers continue with
/// their sessions, and each socket is either kept or closed once.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let second = lines.next().unwrap_or(first);
    round_trip::<Hello>(first);
    round_trip::<Refused>(first);
    round_trip::<Started>(first);
    let manifest: Option<Manifest> = round_trip(first);
    let ours = identity();
    let theirs = manifest.map_or_else(identity, |manifest| manifest.identity);
    check_identity(&theirs, &ours);
    let row_maps = row_maps(&theirs, &ours);
    if let Some(final_counts) = round_trip::<FinalCounts>(second) {
        carry(History::of(final_counts.ledgers), &row_maps);
    }
    if let Some(released) = round_trip::<Released>(second) {
        continue_with(released, &theirs, &row_maps);
    }
}

/// Returns the maps from one configuration to another, without retired handlers.
fn row_maps(old: &Identity, new: &Identity) -> RowMaps {
    let handlers = old.handlers.iter();
    let maps = handlers.map(|handler| HandlerMap::new(handler, &new.handlers));
    RowMaps::new(old, new, maps.collect())
}

/// Returns the message if the bytes are one of this type. Checks that it is the same after it is written and read
/// again.
fn round_trip<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&message).expect("a message is JSON");
    let read: T = serde_json::from_slice(&written).expect("a written message can be read");
    assert_eq!(
        serde_json::to_vec(&read).expect("JSON"),
        written,
        "{message:?}"
    );
    Some(read)
}

/// Returns the identity of `CONFIG`.
fn identity() -> Identity {
    let text = r#"{"listeners":[{"label":"192.0.2.9:53","key":{"address":"192.0.2.9:53","group":null,"is_spread":false}}],
        "routes":[{"label":"192.0.2.9:53","text":""}],"handlers":[
        {"name":"ports","kind":"forward","text":"","upstreams":["203.0.113.1:53","203.0.113.2:53"],
         "has_sessions":true,"is_retired":false},
        {"name":"stateless","kind":"forward","text":"","upstreams":["203.0.113.1:53"],
         "has_sessions":false,"is_retired":false}]}"#;
    serde_json::from_str(text).expect("an identity")
}

fn check_identity(theirs: &Identity, ours: &Identity) {
    assert!(Diff::new(theirs, theirs).is_empty() || has_twins(theirs));
    for (old, new) in [(theirs, ours), (ours, theirs)] {
        assert!(!Diff::new(old, new).lines().is_empty());
        let row_maps = row_maps(old, new);
        assert_eq!(row_maps.listeners.iter().count(), old.listeners.len());
        assert_eq!(row_maps.handlers.iter().count(), old.handlers.len());
        assert_eq!(row_maps.upstreams.iter().count(), old.upstreams());
        let mut upstreams = row_maps.upstreams.iter().flatten();
        assert!(upstreams.all(|upstream| upstream.index() < new.upstreams()));
        let mut listeners = row_maps.listeners.iter().flatten();
        assert!(listeners.all(|listener| listener.index() < new.listeners.len()));
    }
    for handler in &theirs.handlers {
        if let Ok(read) = one("again", &handler.text, KINDS) {
            assert!(
                one("again", &read.contents(), KINDS).is_ok(),
                "{}",
                read.text
            );
        }
    }
}

/// Returns whether two rows of a list have the same name, which happens in no configuration.
fn has_twins(identity: &Identity) -> bool {
    let has_twins = |names: Vec<&String>| {
        let set: std::collections::HashSet<_> = names.iter().collect();
        set.len() < names.len()
    };
    has_twins(
        identity
            .listeners
            .iter()
            .map(|listener| &listener.label)
            .collect(),
    ) || has_twins(identity.routes.iter().map(|route| &route.label).collect())
        || has_twins(
            identity
                .handlers
                .iter()
                .map(|handler| &handler.name)
                .collect(),
        )
}

fn carry(history: History, row_maps: &RowMaps) {
    let rows = rows(&identity());
    for ledger in history.carry(row_maps, rows).into_ledgers() {
        assert_eq!(
            (ledger.listeners.len(), ledger.routes.len()),
            (rows.listeners, rows.routes)
        );
        assert_eq!(
            (ledger.handlers.len(), ledger.upstreams.len()),
            (rows.handlers, rows.upstreams)
        );
    }
}

fn continue_with(released: Released, theirs: &Identity, row_maps: &RowMaps) {
    let old = rows(theirs);
    let mut history = History::of(released.history);
    for (worker, worker_state) in released.workers.iter().enumerate() {
        history.add(worker, old, &worker_state.ledger, Vec::new());
    }
    carry(history, row_maps);
    let upstreams = identity().upstreams();
    let carried = row_maps.upstreams.carry(released.upstreams, upstreams);
    assert_eq!(carried.len(), upstreams);
    let mut numbers = SocketNumbers::default();
    let (mut dispatcher, _) = dispatcher(CONFIG, &mut numbers);
    let mut now = Time(1_000_000_000);
    for state in released.workers {
        for (handler, saved) in state.saved_states.into_iter().enumerate() {
            let saved = moved(saved, &mut numbers);
            dispatcher.set_time(now);
            dispatcher.inherit(HandlerId::new(handler % 2), saved, &mut numbers);
        }
    }
    // Timers fire, the idle timers last.
    for _ in 0..64 {
        let left = dispatcher.save();
        let kept = left
            .iter()
            .flat_map(sockets)
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(kept, numbers.open, "each socket is kept or closed");
        round_trip::<Vec<SavedState>>(&serde_json::to_vec(&left).expect("JSON"));
        let Some(deadline) = dispatcher.deadline() else {
            break;
        };
        now = now.max(deadline);
        dispatcher.set_time(now);
        dispatcher.run_timers(&mut numbers);
        dispatcher.sending().0.clear();
        dispatcher.end_turn();
    }
}

/// Returns the state as a handler receives it: sockets have numbers of this worker, and listeners exist
/// (`handover/transfer.rs`).
fn moved(mut saved: SavedState, numbers: &mut SocketNumbers) -> SavedState {
    for session in &mut saved.sessions {
        session.record.listener = LocalListener::new(0);
        for leg in &mut session.legs {
            leg.socket = leg.socket.map(|_| numbers.lease());
        }
    }
    for port in &mut saved.ports {
        port.port.socket = numbers.lease();
    }
    saved
}

fn sockets(saved: &SavedState) -> impl Iterator<Item = u32> {
    let legs = saved.sessions.iter().flat_map(|session| &session.legs);
    let ports = saved.ports.iter().map(|saved| saved.port.socket);
    legs.filter_map(|leg| leg.socket)
        .chain(ports)
        .map(|socket| socket.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::stage::local;
    use super::*;
    use crate::datagram::{Envelope, Region, Span, Train};
    use crate::dispatch::handler::Batch;

    /// Returns a manifest and the released state of a dispatcher that has forwarded requests of four clients.
    fn messages() -> (Value, Value) {
        let mut numbers = SocketNumbers::default();
        let (mut dispatcher, _) = dispatcher(CONFIG, &mut numbers);
        for client in 1..=4 {
            let envelope = Envelope {
                src: ([192, 0, client, 1], 40_000).into(),
                dst: local(),
                local: local(),
                interface: 2,
                ttl: Some(64),
                time_ns: None,
            };
            let span = Span {
                region: Region::Arena,
                offset: 0,
                len: 4,
            };
            let train = Train {
                envelope,
                span,
                segment: 0,
            };
            let now = Time(u64::from(client) * 1_000_000_000);
            dispatcher.set_time(now);
            dispatcher.dispatch(
                LocalListener::new(0),
                &Batch::new(&[train], b"ping"),
                &mut numbers,
            );
            dispatcher.sending().0.clear();
            dispatcher.end_turn();
        }
        let (seat, ledger) = (json!({"listener": 0, "index": 0}), dispatcher.accounts());
        let sticky = json!({"ttl": 64, "gathers": true, "v6": false});
        let ear = json!({"seat": seat, "drops_seen": 7, "sticky": sticky});
        let estate = json!({
            "ears": [ear], "lanes": [], "legacies": dispatcher.save(), "ledger": ledger,
        });
        let upstream = json!({"address": "203.0.113.1:53", "is_alive": true});
        let released = json!({
            "estates": [estate], "history": [ledger], "upstreams": [upstream, upstream],
            "drained": [["ports", "203.0.113.2:53"]],
        });
        let manifest = json!({
            "pid": 1, "file": "udispatch.toml", "generation": 3, "outline": identity(),
            "sessions": [4, 0], "addresses": {"dns.example:53": "192.0.2.53:53"}, "seats": [seat],
            "doors": ["control", "http", "takeover"], "epoch_ns": 5,
        });
        (manifest, released)
    }

    /// A real state is continued: sessions and their sockets are kept. The corpus has such a state, which can still be
    /// read. `UPDATE_CORPUS=1` writes it anew.
    #[test]
    fn a_real_state_is_continued() {
        let (manifest, released) = messages();
        let sessions = released["estates"][0]["legacies"][0]["sessions"].as_array();
        assert_eq!(sessions.map(Vec::len), Some(4), "{released}");
        let both = format!("{manifest}\n{released}");
        run(both.as_bytes());
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus/worker_state/manifest_and_released");
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            std::fs::write(&file, both).expect("written");
        }
        let corpus = std::fs::read_to_string(file).expect("a file of the corpus");
        let (manifest, released) = corpus.split_once('\n').expect("two lines");
        assert!(round_trip::<Manifest>(manifest.as_bytes()).is_some());
        assert!(round_trip::<Released>(released.as_bytes()).is_some());
    }
}
