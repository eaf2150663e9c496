//! The execution of the control plane's commands, between two turns.

use std::time::Instant;

use super::{DRAIN_MAX, Worker};
use crate::dispatch::id::{LocalListener, UpstreamId};
use crate::dispatch::ledger::Ledger;
use crate::dispatch::upstream_event::UpstreamEvent;
use crate::net::socket::block_new_datagrams;
use crate::worker::command::Command;
use crate::worker::listener::Listener;

impl Worker {
    pub(super) fn run_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Snapshot(reply) => {
                    // The requester may have stopped waiting.
                    let _ = reply.send(self.snapshot());
                }
                Command::Sessions(query, reply) => {
                    let _ = reply.send(self.dispatcher.sessions(&query, self.now()));
                }
                Command::Tap { tap, begun } => {
                    self.dispatcher.taps().add(*tap);
                    // The channel has room for one message from each worker.
                    let _ = begun.try_send(());
                }
                Command::Untap(id) => self.dispatcher.taps().remove(id),
                Command::UpstreamEvent(upstream, event) => self.apply_event(upstream, event),
                Command::Lend(reply) => {
                    // If no descriptors are left (EMFILE), the channel closes without a reply.
                    if let Ok(lent) = self.listeners.iter().map(Listener::lend).collect() {
                        let _ = reply.send(lent);
                    }
                }
                Command::Settle(reply) => {
                    let _ = reply.send(self.listeners.iter().try_for_each(Listener::settle));
                }
                Command::Park => self.is_parked = true,
                Command::Stop { has_successor } => self.stop(has_successor),
            }
        }
    }

    fn apply_event(&mut self, upstream: UpstreamId, event: UpstreamEvent) {
        if let UpstreamEvent::Moved(to) = event {
            self.upstream_sockets.moved(upstream, to);
        }
        let handler = self.upstream_sockets.owner(upstream);
        self.dispatcher.set_time(self.now());
        self.dispatcher
            .upstream_event(handler, upstream, event, &mut self.upstream_sockets);
        self.flush();
    }

    fn snapshot(&mut self) -> Ledger {
        self.read_kernel_drops();
        self.dispatcher.snapshot()
    }

    pub(super) fn read_kernel_drops(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let count = self.dispatcher.listener_count(LocalListener::new(index));
            count.counters.kernel_drops += listener.new_kernel_drops();
        }
        self.upstream_sockets
            .read_kernel_drops(self.dispatcher.sending().1);
    }

    /// Queues every listener, so that the datagrams in the sockets are handled before the end. No listener is queued
    /// afterwards: each is read until one receive call finds it empty, however much arrives.
    fn stop(&mut self, has_successor: bool) {
        for index in 0..self.listeners.len() {
            if !has_successor {
                // If the kernel refuses the filter, later datagrams are lost with the socket, uncounted.
                let _ = block_new_datagrams(self.listeners[index].send_socket.socket());
            }
            self.queue(LocalListener::new(index));
        }
        self.stop_at = self.stop_at.or(Some(Instant::now() + DRAIN_MAX));
    }
}
