//! The protocol of takeovers without processes and sockets. The state machines of a server and of a client use a
//! modelled connection. Meanwhile processes are killed or stopped, messages are late, lost or garbled, and system calls
//! fail. After each event, the test checks which process serves and which has the sockets (`world.rs`).
//!
//! A failure prints its seed and the events: `UDISPATCH_SEED=N cargo test --test takeover_protocol` repeats it.
//! `UDISPATCH_SEEDS=N` sets the number of seeds.

mod client;
mod connection;
mod covered;
#[path = "../it/common/seeds.rs"]
mod seeds;
mod server;
mod world;

use std::time::{Duration, Instant};

use udispatch::takeover::error::WireError;
use udispatch::takeover::protocol::Message;
use udispatch::takeover::protocol::server::{
    Peer, ServerHandshake, ServerHandshakeAction, ServerHandshakeEvent, ServerSwitchover,
    ServerSwitchoverAction, ServerSwitchoverEvent, SwitchoverConditions,
};

use covered::Covered;
use seeds::seeds;
use world::World;

/// Number of seeds of an ordinary run, which takes about two seconds in a debug build.
const SEEDS: u64 = 20_000;

/// Two processes never serve at once. The time without a process that serves is bounded, and the sockets are never
/// closed by both, whatever happens.
#[test]
fn one_process_serves() {
    let seeds = seeds(SEEDS);
    let mut covered = Covered::default();
    for seed in seeds.clone() {
        World::new(seed).run(&mut covered);
    }
    if seeds.end - seeds.start >= SEEDS {
        covered.check();
    }
}

/// A client that connects during another takeover is refused at once, and nothing else happens.
#[test]
fn one_takeover_at_a_time() {
    let peer = Peer { pid: 2, user: 0 };
    let accepted = ServerHandshakeEvent::Accepted { is_alone: false };
    let actions = ServerHandshake::new(peer, 0).step(accepted, Instant::now());
    assert!(
        matches!(&actions[..], [ServerHandshakeAction::Refuse(reason)] if reason.contains("already taking over")),
        "{actions:?}"
    );
}

/// The service manager is notified of the new main process before the old one closes anything. The sockets are closed
/// before the final counts are sent, which include what was read from them.
#[test]
fn the_order_after_started() {
    use ServerSwitchoverAction as Action;
    use ServerSwitchoverEvent as Event;
    let mut switchover = ServerSwitchover::default();
    let conditions = SwitchoverConditions {
        prepared_for: 7,
        generation: 7,
        is_reloading: false,
        awaits_final_counts: false,
    };
    let events = [
        Event::Begun(conditions),
        Event::Prepared(Ok(())),
        Event::Parked { sessions: 10_000 },
        Event::Sent(Ok(())),
        Event::Received(Ok(Message::Started)),
    ];
    let begun = Instant::now();
    let steps = events
        .into_iter()
        .map(|event| switchover.step(event, begun));
    let actions: Vec<Action> = steps.flatten().collect();
    let two_seconds = begun + Duration::from_secs(2);
    match &actions[..] {
        [
            Action::PrepareThreads,
            Action::ParkWorkers,
            Action::SendState { deadline: sending },
            Action::Receive { deadline: started },
            Action::ReportTakenOver,
            Action::AnnounceMainPid,
            Action::CloseSockets,
            Action::SendFinalCounts { .. },
        ] => assert_eq!((*sending, *started), (two_seconds, two_seconds)),
        other => panic!("{other:?}"),
    }
    assert!(switchover.is_taken_over());
    let lost = switchover.step(Event::Sent(Err(WireError::Closed)), begun);
    assert!(
        matches!(lost[..], [Action::ReportLostCounts(_)]),
        "{lost:?}"
    );
    assert!(switchover.is_taken_over(), "the client serves all the same");
}

/// A driver that reports another outcome than that of the action has a defect. Parked workers then serve again, and a
/// client that may serve is killed first.
#[test]
fn events_out_of_place() {
    use ServerSwitchoverAction as Action;
    use ServerSwitchoverEvent as Event;
    let now = Instant::now();
    let conditions = SwitchoverConditions {
        prepared_for: 0,
        generation: 0,
        is_reloading: false,
        awaits_final_counts: false,
    };
    let events = || {
        [
            Event::Begun(conditions),
            Event::Prepared(Ok(())),
            Event::Parked { sessions: 0 },
            Event::Sent(Ok(())),
        ]
    };
    for count in 0..=events().len() {
        let mut switchover = ServerSwitchover::default();
        for event in events().into_iter().take(count) {
            switchover.step(event, now);
        }
        let actions = switchover.step(Event::Killed(Ok(())), now);
        match count {
            0 | 1 => assert!(
                matches!(actions[0], Action::RestoreListeners),
                "{actions:?}"
            ),
            2 | 3 => assert!(matches!(actions[0], Action::ResumeServing), "{actions:?}"),
            _ => assert!(
                matches!(actions[..], [Action::KillPeer { .. }]),
                "{actions:?}"
            ),
        }
        assert!(!switchover.is_taken_over());
    }
}
