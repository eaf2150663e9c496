//! What a parked worker leaves to another, and how a worker that does not run yet goes on with it.

use std::io;
use std::net::UdpSocket;
use std::time::Instant;

use super::{After, DRAIN_MAX, Worker};
use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::outbox::UpstreamSocketId;
use crate::dispatch::saved_state::SavedState;
use crate::net::socket::{close_door, turn_away};
use crate::worker::listener::Listener;
use crate::worker::worker_state::{UpstreamSocketState, WorkerState};

impl Worker {
    /// Parked: reads listeners that nobody goes on with to their end, so that what they hold is handled as it always was;
    /// what comes from now on goes to whom the kernel finds instead.
    pub fn read_out(&mut self, removed: &[usize]) {
        let until = Instant::now() + DRAIN_MAX;
        for index in 0..self.listeners.len() {
            let listener = &self.listeners[index];
            if !removed.contains(&listener.slot.listener) {
                continue;
            }
            let socket = listener.send_socket.socket();
            // Where it cannot be turned away, such as one whose address is not up, what comes later is lost with it.
            if turn_away(socket).is_err() {
                let _ = close_door(socket);
            }
            while self.turn(index) == After::More && Instant::now() < until {}
            // What the others drop is counted by whoever goes on with them.
            self.dispatcher.listener_count(index).kernel_drops +=
                self.listeners[index].new_kernel_drops();
        }
        self.dispatcher.end();
    }

    /// What it leaves; the sockets to its upstreams apart.
    pub fn save(&self) -> WorkerState {
        WorkerState {
            listeners: self.listeners.iter().map(Listener::save).collect(),
            upstream_sockets: self.upstream_sockets.save(),
            saved_states: self.dispatcher.save(),
            ledger: self.dispatcher.accounts(),
            sink_counts: self.dispatcher.sink_counts(),
            sockets: Vec::new(),
        }
    }

    /// The sockets to its upstreams, in the order of its worker state.
    pub fn upstream_sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.upstream_sockets.sockets()
    }

    /// The same, for good.
    pub fn into_upstream_sockets(self) -> Vec<UdpSocket> {
        self.upstream_sockets.into_sockets()
    }

    /// Before it runs: its listeners.
    pub fn listeners(&mut self) -> &mut [Listener] {
        &mut self.listeners
    }

    /// Before it runs: goes on with a socket. `Ok(None)` where it is no socket of a session.
    pub fn inherit_socket(
        &mut self,
        left: &UpstreamSocketState,
        upstream: UpstreamId,
        socket: UdpSocket,
    ) -> io::Result<Option<UpstreamSocketId>> {
        self.upstream_sockets.inherit(left, upstream, socket)
    }

    /// Before it runs: gives a handler what its predecessor has left.
    pub fn inherit(&mut self, handler: HandlerId, saved: SavedState) {
        self.dispatcher.set_time(self.now());
        self.dispatcher
            .inherit(handler, saved, &mut self.upstream_sockets);
        self.flush();
    }
}
