//! One listener of a plan: a socket in one worker, or in each.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::config::kind::Needs;
use crate::dispatch::dispatcher::{Claim, Lookup};

/// One listener: a socket in one worker, or in each.
pub struct ListenerPlan {
    /// What it is called in the ledger.
    pub label: String,
    /// What it is bound to.
    pub address: SocketAddr,
    /// What kind of destination that is.
    pub role: Role,
    /// Other programs may bind the same address.
    pub share: bool,
    /// What the kernel must tell about each datagram.
    pub needs: Needs,
    /// How its datagrams find their route.
    pub lookup: Lookup,
    /// Where the file asks for it.
    pub at: Range<usize>,
}

/// Kinds of listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// An exact unicast address; a socket in every worker.
    Unicast,
    /// An exact IPv4 address that this host does not have yet, and that may turn out to be a broadcast address; a socket in
    /// every worker.
    Absent,
    /// Every address of a family; a socket in every worker. The addresses have broadcast listeners of their own.
    Wildcard {
        /// Addresses of this port that are or may become broadcast addresses and have a listener of their own.
        claimed: Vec<IpAddr>,
    },
    /// A broadcast address; one socket in one worker.
    Broadcast,
    /// A group, joined on one interface, from the sources or, if there are none, from any; one socket in one worker.
    Group {
        /// The interface's index.
        interface: u32,
        /// The only sources, if not any.
        sources: Vec<IpAddr>,
        /// Other interfaces on which the group has a listener of its own on this port.
        elsewhere: Vec<u32>,
    },
}

impl Role {
    /// Whether each worker has a socket of its own.
    pub fn is_spread(&self) -> bool {
        matches!(self, Role::Unicast | Role::Absent | Role::Wildcard { .. })
    }
}

impl ListenerPlan {
    /// Which copies of a datagram to many are this listener's, in the given one of its sockets.
    pub fn claim(&self, socket: usize) -> Claim {
        match &self.role {
            Role::Unicast | Role::Broadcast => Claim::All,
            Role::Absent => Claim::Wildcard {
                owner: socket == 0,
                claimed: Vec::new(),
            },
            Role::Wildcard { claimed } => Claim::Wildcard {
                owner: socket == 0,
                claimed: claimed.clone(),
            },
            Role::Group {
                interface,
                elsewhere,
                ..
            } => Claim::Group {
                interface: *interface,
                elsewhere: elsewhere.clone(),
            },
        }
    }

    /// Whether the kernel must tell each datagram's destination and interface.
    pub fn receives_destination(&self) -> bool {
        self.needs.destination || self.needs.interface
    }
}
