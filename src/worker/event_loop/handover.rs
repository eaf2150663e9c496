//! Exports the state of a parked worker, and imports it into a worker that does not run yet.

use std::io;
use std::net::UdpSocket;
use std::time::Instant;

use super::{After, DRAIN_MAX, Worker};
use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::{ListenerId, LocalListener, UpstreamId, UpstreamSocketId};
use crate::dispatch::saved_state::SavedState;
use crate::net::socket::{block_new_datagrams, divert_new_datagrams};
use crate::worker::listener::Listener;
use crate::worker::worker_state::{UpstreamSocketState, WorkerState};

impl Worker {
    /// Empties the listeners in `removed`, which the next configuration does not have. The worker must be parked. The
    /// datagrams that their sockets hold are handled as before. The kernel delivers later ones to another matching
    /// socket, if any.
    pub fn read_out(&mut self, removed: &[ListenerId]) {
        let until = Instant::now() + DRAIN_MAX;
        for local in (0..self.listeners.len()).map(LocalListener::new) {
            let listener = &self.listeners[local.index()];
            if !removed.contains(&listener.slot.listener) {
                continue;
            }
            let socket = listener.send_socket.socket();
            // This fails for some sockets, such as one whose address is not up. Their later datagrams are lost.
            if divert_new_datagrams(socket).is_err() {
                let _ = block_new_datagrams(socket);
            }
            while self.request_turn(local) == After::More && Instant::now() < until {}
            // The drops of the other listeners are counted by the worker that inherits them.
            let drops = self.listeners[local.index()].new_kernel_drops();
            self.dispatcher.listener_count(local).counters.kernel_drops += drops;
        }
        self.dispatcher.end();
    }

    /// Exports the worker's state, except the sockets to its upstreams.
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

    /// Returns the sockets to the worker's upstreams, in the order of its exported state.
    pub fn upstream_sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.upstream_sockets.sockets()
    }

    /// Takes out the sockets to the worker's upstreams, in the order of its exported state.
    pub fn into_upstream_sockets(self) -> Vec<UdpSocket> {
        self.upstream_sockets.into_sockets()
    }

    /// Returns the listeners of a worker that does not run yet.
    pub fn listeners(&mut self) -> &mut [Listener] {
        &mut self.listeners
    }

    /// Takes over an upstream socket before the worker runs. Returns `Ok(None)` if the socket does not belong to a
    /// session.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be registered with epoll; the socket is closed then.
    pub fn inherit_socket(
        &mut self,
        saved: &UpstreamSocketState,
        upstream: UpstreamId,
        socket: UdpSocket,
    ) -> io::Result<Option<UpstreamSocketId>> {
        self.upstream_sockets.inherit(saved, upstream, socket)
    }

    /// Gives a handler the state that its predecessor saved. The worker must not run yet.
    pub fn inherit(&mut self, handler: HandlerId, saved: SavedState) {
        self.dispatcher.set_time(self.now());
        self.dispatcher
            .inherit(handler, saved, &mut self.upstream_sockets);
        self.flush();
    }
}
