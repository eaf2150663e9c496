//! Listeners' sockets that are open before a configuration is built: those that run now, that another process lends, or that
//! the service manager has given.

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::net::socket;
use crate::plan::Plan;
use crate::plan::identity::ListenerKey;
use crate::worker::command::{Command, Handle};
use crate::worker::worker_state::SocketSlot;

/// The sockets of each listener, in the order of their slots.
#[derive(Debug, Default)]
pub struct LentSockets {
    sockets: HashMap<ListenerKey, Vec<UdpSocket>>,
}

impl LentSockets {
    /// Adds one behind those that the listener has already.
    pub fn add(&mut self, key: ListenerKey, socket: UdpSocket) {
        self.sockets.entry(key).or_default().push(socket);
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether there is a socket on this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.sockets.keys().any(|key| key.address.port() == port)
    }

    /// Takes those of a listener.
    pub fn take(&mut self, key: &ListenerKey) -> Vec<UdpSocket> {
        self.sockets.remove(key).unwrap_or_default()
    }

    /// What nobody has taken.
    pub fn rest(self) -> impl Iterator<Item = (ListenerKey, Vec<UdpSocket>)> {
        self.sockets.into_iter()
    }

    /// Lets further sockets bind beside those on whose ports the plan has something new, until the answer is dropped.
    pub fn unlock(&self, plan: &Plan) -> io::Result<Unlocked> {
        let mut unlocked = Unlocked(Vec::new());
        for listener in plan
            .listeners
            .iter()
            .filter(|listener| !self.sockets.contains_key(&listener.key()))
        {
            let port = listener.address.port();
            for (_, sockets) in self
                .sockets
                .iter()
                .filter(|(key, _)| key.address.port() == port)
            {
                for socket in sockets {
                    if socket::is_locked(socket)? {
                        unlocked.0.push(socket.try_clone()?);
                        socket::unlock(socket)?;
                    }
                }
            }
        }
        Ok(unlocked)
    }
}

/// Sockets that others may bind over for as long as this lives.
#[derive(Debug)]
pub struct Unlocked(Vec<UdpSocket>);

impl Drop for Unlocked {
    fn drop(&mut self) {
        for socket in &self.0 {
            if let Err(error) = socket::lock(socket) {
                log::error!("cannot lock a listener's address again: {error}");
            }
        }
    }
}

/// Longest wait for a worker to lend its sockets; a turn takes far less than a thousandth of it.
const LEND_MAX: Duration = Duration::from_secs(1);

/// Why workers lend nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unlent {
    /// Descriptors have run out.
    #[error(
        "the workers cannot lend their sockets: this process may have no more files open. Raise the limit (`ulimit -n`, or \
         LimitNOFILE= in a unit)"
    )]
    NoFiles,
    /// They stand still, as they do between two turns of a takeover.
    #[error(
        "the workers do not answer: something else is under way, such as a takeover; try again"
    )]
    Silent,
}

/// Second descriptors of the sockets of all listeners that run, in the order of their slots.
pub fn lend(workers: &[Handle]) -> Result<Vec<(SocketSlot, UdpSocket)>, Unlent> {
    let mut lent = Vec::new();
    for worker in workers {
        let (reply, response) = bounded(1);
        worker.send(Command::Lend(reply));
        // A worker without descriptors gives no answer.
        lent.extend(
            response
                .recv_timeout(LEND_MAX)
                .map_err(|error| match error {
                    RecvTimeoutError::Disconnected => Unlent::NoFiles,
                    RecvTimeoutError::Timeout => Unlent::Silent,
                })?,
        );
    }
    lent.sort_by_key(|(slot, _)| (slot.listener, slot.index));
    Ok(lent)
}
