//! Observes what a turn of a worker did, in the terms of the model: datagrams and their sockets, replies and their
//! clients, and sockets that were opened and closed.

use std::collections::{HashMap, HashSet};

use udispatch::datagram::Span;
use udispatch::dispatch::outbox::Parcel;

use crate::Simulation;
use crate::model::{Pass, Step, Talker, number_of};
use crate::stage::{Ways, Worker};

impl Simulation {
    /// Records what a turn did, and ends it.
    pub fn witness(&mut self, worker: usize, arena: &[u8]) -> (Step, Vec<Pass>) {
        let mut step = Step {
            now: self.now,
            worker,
            ..Step::default()
        };
        let Worker { dispatcher, ways } = &mut self.workers[worker];
        let owners = self.ground.borrow().owners.clone();
        let owner =
            |ways: &Ways, socket: u32| owners[ways.slot(socket).expect("it is open").upstream];
        let (outbox, _) = dispatcher.sending();
        for socket in outbox.touched() {
            let (handler, place) = owner(ways, socket.0);
            for parcel in outbox.parcels(*socket) {
                for span in cut(&parcel) {
                    let number = number_of(outbox.bytes(arena, span));
                    step.out
                        .entry((handler, number))
                        .or_default()
                        .push((socket.0, place, parcel.ttl));
                }
            }
        }
        let mut passed = Vec::new();
        for listener in outbox.replying() {
            for reply in outbox.replies(*listener) {
                for span in cut(&reply.parcel) {
                    let payload = outbox.bytes(arena, span).to_vec();
                    let to = reply.to;
                    let from = reply.from;
                    let interface = reply.interface;
                    passed.push(Pass {
                        listener: listener.index(),
                        to,
                        from,
                        interface,
                        ttl: reply.parcel.ttl,
                        payload,
                    });
                }
            }
        }
        assert!(outbox.kept().is_empty());
        outbox.clear();
        dispatcher.end_turn();
        for (upstream, result) in &ways.opened {
            match result {
                Ok(socket) => drop(step.fresh.insert(*socket, owners[*upstream])),
                Err(reason) => {
                    let before = step.failed.insert(owners[*upstream], *reason);
                    assert_eq!(before, None, "opening is tried again right after it failed");
                }
            }
        }
        step.closed = ways
            .closing
            .iter()
            .map(|socket| (*socket, owner(ways, *socket).0))
            .collect();
        ways.settle();
        (step, passed)
    }
}

/// The datagrams of a parcel.
fn cut(parcel: &Parcel) -> Vec<Span> {
    let Span { offset, len, .. } = parcel.span;
    let pace = if parcel.segment == 0 {
        len
    } else {
        u32::from(parcel.segment)
    };
    let starts = (0..len).step_by(pace as usize);
    starts
        .map(|start| Span {
            offset: offset + start,
            len: pace.min(len - start),
            ..parcel.span
        })
        .collect()
}

/// The open sockets are those without sessions, those that a session has, and those in quarantine. Each closed socket
/// is explained.
pub fn check_sockets(talkers: &[Talker], ways: &Ways, closed: &HashMap<u32, usize>) {
    if talkers.iter().any(Talker::is_unclear) {
        return;
    }
    assert!(
        closed.is_empty(),
        "closed, and nobody knows why: {closed:?}"
    );
    let open: HashSet<u32> = (0..ways.slots.len() as u32)
        .filter(|socket| ways.slot(*socket).is_some())
        .collect();
    let held = talkers.iter().flat_map(Talker::sockets);
    assert_eq!(
        open,
        held.collect(),
        "sockets that are open: found, expected"
    );
}
