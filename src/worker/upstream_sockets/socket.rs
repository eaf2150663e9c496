//! One socket to an upstream, and its receive calls.

use super::super::send_socket::SendSocket;
use crate::dispatch::handler::{HandlerId, UpstreamId};
use crate::dispatch::id::UpstreamSocketId;
use crate::net::error_queue::{self, Origin};
use crate::net::option;
use crate::net::receive::Receiver;

/// The most trains that one socket may return in one turn.
const TRAINS_MAX: usize = 32;
/// The number of consecutive polls after which a socket counts as busy, and of trains in one read that confirm it.
pub(super) const STREAK: u8 = 8;

/// One socket to an upstream.
#[derive(Debug)]
pub(super) struct UpstreamSocket {
    pub(super) send_socket: SendSocket,
    pub(super) upstream: UpstreamId,
    /// Whether the socket belongs to a session and receives.
    pub(super) is_leased: bool,
    pub(super) is_ready: bool,
    /// The number of the last poll that reported the socket as readable.
    pub(super) last_report: u32,
    /// The number of consecutive polls that reported it.
    pub(super) streak: u8,
    /// The number of consecutive reports after which more than one train is read at once.
    pub(super) patience: u8,
    /// The kernel's drop counter when it was last read.
    pub(super) drops_seen: u32,
}

impl UpstreamSocket {
    pub(super) fn new(
        send_socket: SendSocket,
        upstream: UpstreamId,
        is_leased: bool,
    ) -> UpstreamSocket {
        UpstreamSocket {
            send_socket,
            upstream,
            is_leased,
            is_ready: false,
            last_report: 0,
            streak: 0,
            patience: STREAK,
            drops_seen: 0,
        }
    }

    /// Returns the most trains that the next read accepts.
    pub(super) fn trains_max(&self) -> usize {
        if self.streak >= self.patience || self.send_socket.gathers() {
            TRAINS_MAX
        } else {
            1
        }
    }

    /// Returns the number of datagrams that the kernel dropped since the last call. The kernel's counter has 32 bits
    /// and may wrap.
    pub(super) fn new_kernel_drops(&mut self) -> u64 {
        let drops = option::kernel_drops(self.send_socket.socket()).unwrap_or(self.drops_seen);
        u64::from(drops.wrapping_sub(std::mem::replace(&mut self.drops_seen, drops)))
    }
}

/// An upstream socket that may hold datagrams.
pub struct Ready<'a> {
    /// The id of the socket in this worker.
    pub id: UpstreamSocketId,
    /// The handler that the upstream belongs to.
    pub handler: HandlerId,
    /// The socket to read.
    pub send_socket: &'a SendSocket,
    /// The most trains to read: one, unless earlier reads show that the socket has a queue.
    pub trains_max: usize,
}

impl Ready<'_> {
    /// Makes one receive call, into the arena that other sockets of this turn share. Returns the number of trains.
    /// Returns `None` if there are none; ICMP errors of the upstream are then added to `reports`.
    pub fn receive(
        &self,
        receiver: &mut Receiver,
        reports: &mut Vec<(UpstreamSocketId, i32)>,
    ) -> Option<usize> {
        let socket = self.send_socket.socket();
        let received = match self.trains_max {
            1 => receiver.receive_one(socket),
            trains_max => receiver.receive_more(socket, trains_max),
        };
        if received.is_err() {
            // The error may come from the error queue. Level-triggered epoll would report it with every poll until it
            // is read.
            let _ = error_queue::drain(socket, |failure| {
                if failure.origin == Origin::Icmp {
                    reports.push((self.id, failure.errno));
                }
            });
        }
        received.ok()
    }
}
