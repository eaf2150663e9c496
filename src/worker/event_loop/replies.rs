//! The turns of upstream sockets. Their replies are received, dispatched and flushed like the requests of listeners.

use super::{SOCKETS_PER_TURN, Worker, time_of_day_ns};
use crate::dispatch::handler::Batch;
use crate::net::receive::LONG_BYTES;
use crate::worker::listener;
use crate::worker::upstream_sockets::Ready;

impl Worker {
    /// Runs turns for the upstream sockets that were ready at the call.
    pub(super) fn take_replies(&mut self) {
        let mut sockets = self.upstream_sockets.ready();
        // Some may have been closed since they were queued. Closed sockets are skipped.
        while sockets > 0 && self.upstream_sockets.ready() > 0 && !self.is_over() {
            sockets = sockets.saturating_sub(self.reply_turn(sockets.min(SOCKETS_PER_TURN)));
            if !self.commands.is_empty() {
                self.run_commands();
            }
        }
    }

    /// Reads at most `sockets_max` upstream sockets, dispatches the replies, and flushes once. Returns the number of
    /// sockets read.
    fn reply_turn(&mut self, sockets_max: usize) -> usize {
        if !self.dispatcher.taps().is_empty() {
            self.dispatcher.taps().begin_turn(time_of_day_ns());
        }
        let sockets_read = self.receive_replies(sockets_max);
        self.report_errors();
        let was_long = self.gather_replies();
        self.dispatcher.set_time(self.now());
        self.dispatch_replies();
        self.flush();
        if was_long {
            self.receiver.release();
        }
        sockets_read
    }

    /// Reads at most `sockets_max` upstream sockets into one arena. Returns the number of sockets read.
    fn receive_replies(&mut self, sockets_max: usize) -> usize {
        self.receiver.begin(false);
        self.replies.clear();
        let mut sockets_read = 0;
        while sockets_read < sockets_max && self.receiver.room() > 0 {
            let Some(ready) = self.upstream_sockets.next_ready() else {
                break;
            };
            sockets_read += 1;
            let Ready {
                id: socket,
                handler,
                ..
            } = ready;
            if let Some(count) = ready.receive(&mut self.receiver, &mut self.reports) {
                self.replies.push((socket, handler, count));
                self.upstream_sockets.adapt(socket, count);
            }
        }
        sockets_read
    }

    /// Counts the ICMP errors that the reads found, and records them for the handlers.
    fn report_errors(&mut self) {
        for (socket, errno) in self.reports.drain(..) {
            self.upstream_sockets
                .report(socket, errno, self.dispatcher.sending().1);
        }
    }

    /// Makes trains of the slots that the upstream sockets received. Returns whether one of them was long.
    fn gather_replies(&mut self) -> bool {
        self.trains.clear();
        let mut was_long = false;
        for slot in self.receiver.slots() {
            was_long |= slot.len >= LONG_BYTES;
            self.trains.push(listener::reply_train(&slot));
        }
        was_long
    }

    /// Gives each handler the replies of its sockets.
    fn dispatch_replies(&mut self) {
        let mut rest = &self.trains[..];
        for (socket, handler, count) in &self.replies {
            let (trains, after) = rest.split_at(*count);
            let batch = &Batch::new(trains, self.receiver.arena());
            self.dispatcher
                .reply(*handler, *socket, batch, &mut self.upstream_sockets);
            rest = after;
        }
    }
}
