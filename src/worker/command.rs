//! Commands from the control plane to a worker, and the handle that sends them.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use super::worker_state::SocketSlot;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::sessions::page::{PageQuery, SessionPage};
use crate::dispatch::tap::{Tap, TapId};
use crate::dispatch::upstream_event::UpstreamEvent;

/// A request that a worker executes between two turns.
#[derive(Debug)]
pub enum Command {
    /// Sends back a copy of the worker's ledger.
    Snapshot(Sender<Ledger>),
    /// Sends back one page of sessions.
    Sessions(PageQuery, Sender<SessionPage>),
    /// The address, health or drain state of an upstream has changed.
    UpstreamEvent(UpstreamId, UpstreamEvent),
    /// Starts a tap, which copies datagrams for a reader.
    Tap {
        /// The filter and the destination of the copies.
        tap: Box<Tap>,
        /// Receives a message when the tap has started.
        begun: Sender<()>,
    },
    /// Removes a tap whose reader has disconnected.
    Untap(TapId),
    /// Sends back duplicated descriptors of the listeners' sockets.
    Lend(Sender<Vec<(SocketSlot, UdpSocket)>>),
    /// Restores all options of the listeners' sockets. Another process that had the same sockets may have changed some.
    Settle(Sender<io::Result<()>>),
    /// Finishes the turn and ends. The sockets stay open, and the kernel queues the datagrams that arrive.
    Park,
    /// Handles the datagrams that the listeners' sockets hold, then ends.
    Stop {
        /// Whether these sockets stay open for the next process, so that later datagrams wait in them. Otherwise the
        /// kernel filter rejects new datagrams.
        has_successor: bool,
    },
}

/// The control plane's end of a worker's command queue.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<Waker>,
}

impl Handle {
    /// Queues a command and wakes the worker. Returns `false` if the worker has ended.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok() && self.waker.wake().is_ok()
    }
}
