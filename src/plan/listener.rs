//! One listener of a plan: a socket in one worker, or in each.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::config::kind::Needs;
use crate::dispatch::dispatcher::{Claim, Lookup};

/// One listener: a socket in one worker, or in each.
pub struct ListenerPlan {
    /// The label of the listener in the ledger.
    pub label: String,
    /// The address that the sockets are bound to.
    pub address: SocketAddr,
    /// The kind of destination that the listener serves.
    pub role: Role,
    /// Whether other programs may bind the same address.
    pub share: bool,
    /// The facts about each datagram that the handlers and routes need from the kernel.
    pub needs: Needs,
    /// How the route of a datagram is found.
    pub lookup: Lookup,
    /// The byte range of the file that requires the listener.
    pub at: Range<usize>,
}

/// The kinds of destinations that a listener can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// An exact unicast address, with a socket in every worker.
    Unicast,
    /// An exact IPv4 address that this host does not have yet and that may become a broadcast address, with a socket
    /// in every worker.
    Absent,
    /// Every address of a family, with a socket in every worker. Broadcast addresses may have listeners of their own.
    Wildcard {
        /// Addresses with a listener of their own on this port that are broadcast addresses or may become one.
        claimed: Vec<IpAddr>,
    },
    /// A broadcast address, with one socket in one worker.
    Broadcast,
    /// A group that is joined on one interface, with one socket in one worker.
    Group {
        /// The index of the interface.
        interface: u32,
        /// The only sources of the group that are joined; empty for any source.
        sources: Vec<IpAddr>,
        /// Other interfaces on which the group has a listener of its own on this port.
        elsewhere: Vec<u32>,
    },
}

impl Role {
    /// Returns whether each worker has a socket of its own.
    pub fn is_spread(&self) -> bool {
        matches!(self, Role::Unicast | Role::Absent | Role::Wildcard { .. })
    }
}

impl ListenerPlan {
    /// Returns which copies of a multicast or broadcast datagram the socket with this number claims. The kernel gives
    /// each socket a copy, and one of them must be handled.
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

    /// Returns whether the kernel must pass the destination and interface of each datagram.
    pub fn receives_destination(&self) -> bool {
        self.needs.destination || self.needs.interface
    }
}
