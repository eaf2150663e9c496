//! What the control plane may ask of a worker, and the handle it asks through.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use super::worker_state::SocketSlot;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::ledger::Ledger;
use crate::dispatch::sessions::page::{SessionPage, Wanted};
use crate::dispatch::tap::{Tap, TapId};
use crate::dispatch::upstream_event::UpstreamEvent;

/// A wish that the worker fulfils between two turns.
#[derive(Debug)]
pub enum Command {
    /// Send a copy of the accounts.
    Snapshot(Sender<Ledger>),
    /// Send a page of sessions.
    Sessions(Wanted, Sender<SessionPage>),
    /// Something is new about an upstream.
    UpstreamEvent(UpstreamId, UpstreamEvent),
    /// Copy datagrams for somebody who looks on.
    Tap {
        /// Where they go.
        tap: Box<Tap>,
        /// Is told when it has begun.
        begun: Sender<()>,
    },
    /// Nobody looks on by that tap any more.
    Untap(TapId),
    /// Send second descriptors of the listeners' sockets.
    Lend(Sender<Vec<(SocketSlot, UdpSocket)>>),
    /// Set everything on the listeners' sockets as it is meant to be: somebody who had them too may have changed it.
    Settle(Sender<io::Result<()>>),
    /// Finish the turn and end. The sockets stay open and hold what comes.
    Park,
    /// Handle what the listeners' sockets hold, and end.
    Stop {
        /// Whether somebody keeps these sockets for the next process: what comes from now on waits in them. Otherwise
        /// nothing new is let in.
        has_successor: bool,
    },
}

/// The control plane's end.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<Waker>,
}

impl Handle {
    /// Queues a command and wakes the worker. `false` if the worker has ended.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok() && self.waker.wake().is_ok()
    }
}
