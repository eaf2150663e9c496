//! Listeners' sockets that are open before a configuration is built: those that run now, that another process lends, or that
//! the service manager has given.

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::handover::outline::ListenerKey;
use super::plan::Plan;
use crate::net::socket;
use crate::worker::command::{Command, Handle};
use crate::worker::estate::Seat;

/// The sockets of each listener, in the order of their seats.
#[derive(Debug, Default)]
pub struct Held {
    sockets: HashMap<ListenerKey, Vec<UdpSocket>>,
}

impl Held {
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
        let is_new = |key: &ListenerKey, wanted: usize| self.sockets.get(key).is_none_or(|held| held.len() < wanted);
        for listener in &plan.listeners {
            let wanted = if listener.role.is_spread() { plan.workers } else { 1 };
            if !is_new(&listener.key(), wanted) {
                continue;
            }
            let port = listener.address.port();
            for (_, sockets) in self.sockets.iter().filter(|(key, _)| key.address.port() == port) {
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

/// Second descriptors of the sockets of all listeners that run, in the order of their seats. `None` where a worker has no
/// descriptors left, or does not answer.
pub fn lend(workers: &[Handle]) -> Option<Vec<(Seat, UdpSocket)>> {
    let mut lent = Vec::new();
    for worker in workers {
        let (reply, answer) = bounded(1);
        worker.send(Command::Lend(reply)).then_some(())?;
        lent.extend(answer.recv_timeout(LEND_MAX).ok()?);
    }
    lent.sort_by_key(|(seat, _)| (seat.listener, seat.index));
    Some(lent)
}
