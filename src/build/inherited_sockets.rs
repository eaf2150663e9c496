//! Sockets of listeners that are open before a configuration is built: those of the running workers, those that another
//! process lends, and those that the service manager passes.

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
    /// Adds a socket after those that the listener already has.
    pub fn add(&mut self, key: ListenerKey, socket: UdpSocket) {
        self.sockets.entry(key).or_default().push(socket);
    }

    /// Returns whether there is no socket at all.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Returns whether there is a socket on this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.sockets.keys().any(|key| key.address.port() == port)
    }

    /// Removes the sockets of a listener and returns them.
    pub fn take(&mut self, key: &ListenerKey) -> Vec<UdpSocket> {
        self.sockets.remove(key).unwrap_or_default()
    }

    /// Returns the sockets that no listener has taken.
    #[cfg(any(test, feature = "internals"))]
    pub fn rest(self) -> impl Iterator<Item = (ListenerKey, Vec<UdpSocket>)> {
        self.sockets.into_iter()
    }

    /// Lets additional sockets bind beside the existing ones, on each port for which the plan has a new listener. The
    /// sockets are locked again when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if a socket's lock cannot be read or changed, or if a descriptor cannot be
    /// duplicated. Sockets unlocked until then are locked again.
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

/// Unlocked sockets. Other sockets may be bound to their addresses until this value is dropped.
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

/// Longest wait for a worker to lend its sockets. A turn takes far less than a thousandth of it.
const LEND_MAX: Duration = Duration::from_secs(1);

/// The reason why the workers cannot lend their sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unlent {
    /// The process has no file descriptor left.
    #[error(
        "the workers cannot lend their sockets: this process may have no more files open. Raise the limit (`ulimit -n`, or \
         LimitNOFILE= in a unit)"
    )]
    NoFiles,
    /// The workers do not respond. They are parked, for example during a takeover.
    #[error("the workers are busy with something else, such as a takeover; try again")]
    Silent,
}

/// Returns duplicated descriptors of the sockets of all running listeners, in the order of their slots.
///
/// # Errors
///
/// Returns [`Unlent::NoFiles`] if a worker cannot duplicate its descriptors, and [`Unlent::Silent`] if a worker does
/// not respond within one second.
pub fn lend(workers: &[Handle]) -> Result<Vec<(SocketSlot, UdpSocket)>, Unlent> {
    let mut lent = Vec::new();
    for worker in workers {
        let (reply, response) = bounded(1);
        worker.send(Command::Lend(reply));
        // A worker without free descriptors drops the channel instead of sending a reply.
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
