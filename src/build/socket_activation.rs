//! Sockets from the service manager: which listener each of them fits, and which of ours it is to keep.
//!
//! A group's joined interface and sources cannot be read back from a socket, so what is kept has a name that stands for all
//! of its listener's key. What comes from a socket unit has a name of somebody else's and is known by its address.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::build::inherited_sockets::LentSockets;
use crate::build::service_manager::{ServiceManager, passed_sockets};
use crate::dispatch::maglev::hash_bytes;
use crate::net::inherited::{Identified, identify, share_port};
use crate::plan::ListenerPlan;
use crate::plan::identity::ListenerKey;

/// What the names of kept sockets begin with.
const PREFIX: &str = "udispatch-";

/// The name by which a listener's sockets are kept: the same in every process and version that means the same by the key.
pub fn name(key: &ListenerKey) -> String {
    // Addresses and numbers: it always can be written.
    let text = serde_json::to_vec(key).unwrap_or_default();
    format!("{PREFIX}{:016x}", hash_bytes(&text))
}

/// The sockets that the service manager gives to this process and that fit a listener of the plan, and words about those that
/// fit none. These are closed, and kept no longer: otherwise they would go on to take datagrams that nobody reads.
pub fn take(listeners: &[ListenerPlan]) -> (LentSockets, Vec<String>) {
    let passed = passed_sockets();
    let names: HashSet<String> = passed
        .iter()
        .map(|(_, name)| name.clone())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    let (lent_sockets, mut words) = assign(passed, listeners);
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
        words.push(format!(
            "cannot tell the service manager which sockets are of no use any more: {error}"
        ));
    }
    (lent_sockets, words)
}

/// Gives each socket to the listener that it fits.
pub fn assign(
    passed: Vec<(OwnedFd, String)>,
    listeners: &[ListenerPlan],
) -> (LentSockets, Vec<String>) {
    let mut listeners = ListenerMatcher::new(listeners);
    let (mut lent_sockets, mut words) = (LentSockets::default(), Vec::new());
    for (fd, name) in passed {
        let fitted = identify(fd)
            .map_err(|unfit| unfit.to_string())
            .and_then(|found| listeners.fit(found, &name));
        match fitted {
            Ok(Some((key, found))) => lent_sockets.add(key, found.socket),
            Ok(None) => {}
            Err(why) => words.push(format!(
                "the socket `{name}` that the service manager gives is not used: {why}"
            )),
        }
    }
    (lent_sockets, words)
}

/// The listeners that look for sockets.
struct ListenerMatcher {
    by_name: HashMap<String, ListenerKey>,
    /// Those whose sockets are bound and nothing else.
    by_address: HashMap<std::net::SocketAddr, ListenerKey>,
    /// Of those that have one socket alone: who has it.
    taken: HashSet<ListenerKey>,
    /// Sockets that have come, by the kernel's number: one that a socket unit gives and that was kept too comes twice.
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

    /// Whose a socket is; nothing if it has come before.
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
                // A kept one may have joined what nobody wants any more.
                self.by_address
                    .get(&address)
                    .filter(|_| !name.starts_with(PREFIX))
            });
        let Some(key) = key.cloned() else {
            return Err(match address.ip().is_multicast() {
                true => format!(
                    "{address} is a group, which udispatch binds and joins itself: leave it to that"
                ),
                false => format!("no route has the destination {address}"),
            });
        };
        if !self.seen.insert(found.cookie) {
            return Ok(None);
        }
        if key.is_spread {
            // Workers' sockets share it where they are the same user's, and lie beside it otherwise.
            if !found.reuse_port {
                share_port(&found.socket)
                    .map_err(|error| format!("{address} cannot be shared by workers: {error}"))?;
            }
        } else if !self.taken.insert(key.clone()) {
            return Err(format!(
                "another one has been given for {address}, which has one socket alone"
            ));
        }
        Ok(Some((key, found)))
    }
}

/// What the service manager keeps for the next process, should this one end without a word.
#[derive(Debug, Default)]
pub struct Store {
    manager: ServiceManager,
    /// How many are kept by each name.
    kept: HashMap<String, usize>,
}

impl Store {
    /// An empty one.
    pub fn new(manager: ServiceManager) -> Store {
        Store {
            manager,
            kept: HashMap::new(),
        }
    }

    /// Goes on with what the process before has had kept: so many sockets of each listener.
    pub fn inherit(&mut self, listeners: impl Iterator<Item = (ListenerKey, usize)>) {
        self.kept
            .extend(listeners.map(|(key, count)| (name(&key), count)));
    }

    /// Has exactly these listeners' sockets kept from now on.
    pub fn keep(&mut self, sockets: &[(ListenerKey, Vec<BorrowedFd<'_>>)]) -> io::Result<()> {
        if !self.manager.is_there() {
            return Ok(());
        }
        let wanted: HashMap<String, &[BorrowedFd<'_>]> = sockets
            .iter()
            .map(|(key, fds)| (name(key), fds.as_slice()))
            .collect();
        // First what goes: there is room for so many only (`FileDescriptorStoreMax=`).
        let gone = |name: &str, count: usize| wanted.get(name).is_none_or(|fds| fds.len() < count);
        for (name, _) in self.kept.extract_if(|name, count| gone(name, *count)) {
            self.manager.forget(&name)?;
        }
        for (name, fds) in wanted {
            self.manager.store(&name, fds)?;
            self.kept.insert(name, fds.len());
        }
        Ok(())
    }
}
