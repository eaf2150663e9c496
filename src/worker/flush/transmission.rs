//! Sends one batch of messages. Each refusal is classified and counted, and does not stop the batch.

use std::io;

use crate::dispatch::ledger::Sent;
use crate::dispatch::outbox::Run;
use crate::net::errno::{self, SendError};
use crate::net::send::SendBatch;
use crate::worker::send_socket::SendSocket;

/// The step that follows a failed send call.
enum Step {
    /// Send the same message again.
    Retry,
    /// The error concerns an earlier datagram: count it, and send the same message again.
    Report,
    /// The datagrams of the message are finally refused.
    Refuse,
    /// The kernel refuses the segments of the message: send its datagrams one by one.
    Split,
}

/// The recovery steps that one batch has already taken after failed send calls.
#[derive(Default)]
struct Recovery {
    /// Whether the message at the front was sent again after a pending error.
    is_retried: bool,
    /// Whether the socket was replaced by a new one.
    is_renewed: bool,
}

impl Recovery {
    /// Classifies a failed send call of a message with `segment` bytes per datagram.
    fn classify(&mut self, error: &io::Error, segment: u16, send_socket: &mut SendSocket) -> Step {
        match errno::of_send(error) {
            SendError::Again => return Step::Retry,
            SendError::Pending if !std::mem::replace(&mut self.is_retried, true) => {
                let is_report = errno::is_report(error);
                return if is_report { Step::Report } else { Step::Retry };
            }
            SendError::Pending | SendError::Full | SendError::Refused => {}
        }
        if segment != 0 && errno::refuses_segments(error) {
            return Step::Split;
        }
        // A new socket is tried once for each batch. While the network is down, the rest is refused without another
        // attempt.
        let may_renew =
            errno::may_lack_source(error) && !std::mem::replace(&mut self.is_renewed, true);
        if may_renew && send_socket.renew() {
            return Step::Retry;
        }
        Step::Refuse
    }
}

/// The results of one batch so far.
struct Transmission<'a> {
    /// The messages of the batch, as runs of items.
    runs: &'a [Run],
    /// The number of runs that are settled.
    settled: usize,
    /// The number of items of the settled runs.
    items: usize,
    recovery: Recovery,
    settle: &'a mut dyn FnMut(usize, Sent),
}

impl Transmission<'_> {
    /// Settles the next `count` runs.
    fn settle_next(&mut self, count: usize, sent: impl Fn(&Run) -> Sent) {
        for run in &self.runs[self.settled..self.settled + count] {
            (self.settle)(self.items, sent(run));
            self.items += run.parcels;
        }
        self.settled += count;
        self.recovery.is_retried = false;
    }

    /// Acts on a failed send call of the next run. Returns whether its datagrams are to be sent one by one.
    fn fail_next(&mut self, error: &io::Error, send_socket: &mut SendSocket) -> bool {
        let errno = error.raw_os_error().unwrap_or(0);
        let segment = self.runs[self.settled].segment;
        match self.recovery.classify(error, segment, send_socket) {
            Step::Retry => {}
            Step::Report => (self.settle)(self.items, Sent::Reported(errno)),
            Step::Refuse => self.settle_next(1, |run| Sent::Refused(errno, run.datagrams)),
            Step::Split => return true,
        }
        false
    }
}

/// Sends a whole batch. Each refusal is classified. The message is then retried or counted as refused. If the kernel
/// refused its segments, the error is returned. `settle` gets the index of the first item of the run that a result
/// concerns. Returns the number of settled items.
pub(super) fn transmit(
    batch: &mut SendBatch<'_, '_>,
    send_socket: &mut SendSocket,
    runs: &[Run],
    settle: &mut dyn FnMut(usize, Sent),
) -> (usize, Option<io::Error>) {
    let recovery = Recovery {
        is_renewed: send_socket.renew_if_doubted(),
        ..Recovery::default()
    };
    let mut transmission = Transmission {
        runs,
        settled: 0,
        items: 0,
        recovery,
        settle,
    };
    if let Some(errno) = send_socket.unreachable() {
        transmission.settle_next(runs.len(), |run| Sent::Refused(errno, run.datagrams));
    }
    while transmission.settled < runs.len() {
        match batch.send(send_socket.socket(), transmission.settled) {
            Ok(sent) => transmission.settle_next(sent, |run| Sent::Taken(run.datagrams)),
            Err(error) if transmission.fail_next(&error, send_socket) => {
                return (transmission.items, Some(error));
            }
            Err(_) => {}
        }
    }
    (transmission.items, None)
}
