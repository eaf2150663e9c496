//! Sockets from the service manager: assigns each of them to a listener, and selects the sockets that it stores.
//!
//! The joined interface and sources of a group cannot be read back from a socket. The name of a stored socket therefore
//! stands for the whole key of its listener. A socket from a socket unit has a name that the administrator chose, and
//! is identified by its address.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::build::inherited_sockets::LentSockets;
use crate::build::service_manager::{ServiceManager, passed_sockets};
use crate::dispatch::maglev::hash_bytes;
use crate::net::inherited::{Identified, identify, share_port};
use crate::plan::ListenerPlan;
use crate::plan::identity::ListenerKey;

/// The prefix of the names of stored sockets.
const PREFIX: &str = "udispatch-";

/// Returns the name under which a listener's sockets are stored. It is equal in every process and version in which the
/// key has the same meaning.
pub fn name(key: &ListenerKey) -> String {
    // A key of addresses and numbers can always be serialized.
    let text = serde_json::to_vec(key).unwrap_or_default();
    format!("{PREFIX}{:016x}", hash_bytes(&text))
}

/// Returns the passed sockets that fit a listener of the plan, and a message about each that fits none. Those are
/// closed and removed from the store, since they would otherwise receive datagrams that no worker reads.
pub fn take(listeners: &[ListenerPlan]) -> (LentSockets, Vec<String>) {
    let passed = passed_sockets();
    let names: HashSet<String> = passed
        .iter()
        .map(|(_, name)| name.clone())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    let (lent_sockets, mut messages) = assign(passed, listeners);
    let known: HashSet<String> = listeners
        .iter()
        .map(|listener| name(&listener.key()))
        .collect();
    let forgotten = ServiceManager::this().and_then(|manager| {
        names
            .difference(&known)
            .try_for_each(|name| manager.forget(name))
    });
    if let Err(error) = forgotten {
        messages.push(format!(
            "cannot notify the service manager of sockets that are no longer needed: {error}"
        ));
    }
    (lent_sockets, messages)
}

/// Assigns each socket to the listener that it fits.
pub fn assign(
    passed: Vec<(OwnedFd, String)>,
    listeners: &[ListenerPlan],
) -> (LentSockets, Vec<String>) {
    let mut listeners = ListenerMatcher::new(listeners);
    let (mut lent_sockets, mut messages) = (LentSockets::default(), Vec::new());
    for (fd, name) in passed {
        let fitted = identify(fd)
            .map_err(|unfit| unfit.to_string())
            .and_then(|found| listeners.fit(found, &name));
        match fitted {
            Ok(Some((key, found))) => lent_sockets.add(key, found.socket),
            Ok(None) => {}
            Err(why) => messages.push(format!(
                "the socket `{name}` from the service manager is not used: {why}"
            )),
        }
    }
    (lent_sockets, messages)
}

/// The listeners that sockets are assigned to.
struct ListenerMatcher {
    by_name: HashMap<String, ListenerKey>,
    /// The listeners whose sockets are bound and have no other property.
    by_address: HashMap<std::net::SocketAddr, ListenerKey>,
    /// The listeners with a single socket that already have it.
    taken: HashSet<ListenerKey>,
    /// The socket cookies seen so far. A socket from a socket unit that was stored
    /// as well is passed twice.
    seen: HashSet<u64>,
}

impl ListenerMatcher {
    fn new(listeners: &[ListenerPlan]) -> ListenerMatcher {
        let keys = || listeners.iter().map(ListenerPlan::key);
        ListenerMatcher {
            by_name: keys().map(|key| (name(&key), key)).collect(),
            by_address: keys()
                .filter(|key| key.group.is_none())
                .map(|key| (key.address, key))
                .collect(),
            taken: HashSet::new(),
            seen: HashSet::new(),
        }
    }

    /// Returns the listener that a socket fits; `None` if the socket was passed before.
    fn fit(
        &mut self,
        found: Identified,
        name: &str,
    ) -> Result<Option<(ListenerKey, Identified)>, String> {
        let address = found.address;
        let key = self
            .by_name
            .get(name)
            .filter(|key| key.address == address)
            .or_else(|| {
                // A stored socket may have joined a group that is no longer configured.
                self.by_address
                    .get(&address)
                    .filter(|_| !name.starts_with(PREFIX))
            });
        let Some(key) = key.cloned() else {
            return Err(if address.ip().is_multicast() {
                format!(
                    "{address} is a multicast group; udispatch binds and joins groups itself, so remove it from the socket unit"
                )
            } else {
                format!("no route has the destination {address}")
            });
        };
        if !self.seen.insert(found.cookie) {
            return Ok(None);
        }
        if key.is_spread {
            // The workers' sockets share the address if they belong to the same user, and are bound beside it
            // otherwise.
            if !found.reuse_port {
                share_port(&found.socket)
                    .map_err(|error| format!("{address} cannot be shared by workers: {error}"))?;
            }
        } else if !self.taken.insert(key.clone()) {
            return Err(format!(
                "there is already a socket for {address}, which needs only one"
            ));
        }
        Ok(Some((key, found)))
    }
}

/// The sockets that the service manager stores for the next process, in case this one crashes.
#[derive(Debug, Default)]
pub struct Store {
    manager: ServiceManager,
    /// The number of stored sockets of each name.
    kept: HashMap<String, usize>,
}

impl Store {
    /// Returns a store that holds nothing yet.
    pub fn new(manager: ServiceManager) -> Store {
        Store {
            manager,
            kept: HashMap::new(),
        }
    }

    /// Continues with the sockets that the previous process stored: for each listener, their number.
    pub fn inherit(&mut self, listeners: impl Iterator<Item = (ListenerKey, usize)>) {
        self.kept
            .extend(listeners.map(|(key, count)| (name(&key), count)));
    }

    /// Stores exactly the sockets of these listeners from now on.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if a notification cannot be sent. Some of the changes may have been made then.
    pub fn keep(&mut self, sockets: &[(ListenerKey, Vec<BorrowedFd<'_>>)]) -> io::Result<()> {
        if !self.manager.is_there() {
            return Ok(());
        }
        let current: HashMap<String, &[BorrowedFd<'_>]> = sockets
            .iter()
            .map(|(key, fds)| (name(key), fds.as_slice()))
            .collect();
        // Remove old sockets first, since the store has a limit (`FileDescriptorStoreMax=`).
        let gone = |name: &str, count: usize| current.get(name).is_none_or(|fds| fds.len() < count);
        for (name, _) in self.kept.extract_if(|name, count| gone(name, *count)) {
            self.manager.forget(&name)?;
        }
        for (name, fds) in current {
            self.manager.store(&name, fds)?;
            self.kept.insert(name, fds.len());
        }
        Ok(())
    }
}
