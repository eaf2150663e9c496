//! The routing of one listener: the lookup of routes, and the copies of a broadcast or multicast datagram that the
//! listener handles.

use std::sync::Arc;

use super::id::ListenerId;
use super::route_table::{PortTable, RouteId};
use super::verdict::DropReason;
use crate::datagram::Envelope;

/// The way in which the route of a listener's datagrams is found.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// All datagrams take this route, which was found when the listener was planned.
    Fixed(RouteId),
    /// The route of each datagram is looked up.
    Table(Arc<PortTable>),
}

/// The copies of a broadcast or multicast datagram that a listener handles. The kernel may deliver such a datagram to
/// several sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The listener handles everything that it receives. This holds for an exact address and for a broadcast address.
    All,
    /// The listener is a wildcard, or an exact address that may become a broadcast address. The socket of every
    /// worker receives a copy of each broadcast. One of them handles broadcasts, unless the address has a listener of
    /// its own.
    Wildcard {
        /// Whether this socket handles broadcasts.
        owner: bool,
        /// The addresses that have a listener of their own on this port.
        claimed: Vec<std::net::IpAddr>,
    },
    /// The listener is a group, joined on one interface. IPv6 also delivers datagrams from other interfaces on which
    /// any socket of the host has joined the group (inet6_mc_check in net/ipv6/mcast.c compares no interface).
    Group {
        /// The index of the interface on which the group was joined.
        interface: u32,
        /// The other interfaces on which the group has a listener of its own on this port.
        elsewhere: Vec<u32>,
    },
}

/// The routing of one listener.
#[derive(Debug, Clone)]
pub struct ListenerRouting {
    /// The number of the listener in the plan, which is also the number of its row in the ledger.
    pub id: ListenerId,
    /// The way in which the route of a datagram is found.
    pub lookup: Lookup,
    /// The copies of a datagram that the listener handles.
    pub claim: Claim,
}

impl ListenerRouting {
    /// Returns the route of a datagram.
    ///
    /// # Errors
    ///
    /// Returns the reason to drop a datagram without a route: another socket handles this copy of it, or no route
    /// matches.
    pub fn resolve(&self, envelope: &Envelope) -> Result<RouteId, DropReason> {
        match &self.claim {
            Claim::All => {}
            Claim::Wildcard { owner, claimed } => {
                if envelope.is_to_many() && (!owner || claimed.contains(&envelope.dst.ip())) {
                    return Err(DropReason::DuplicateCopy);
                }
            }
            Claim::Group { interface, .. } if envelope.interface == *interface => {}
            Claim::Group { elsewhere, .. } if elsewhere.contains(&envelope.interface) => {
                return Err(DropReason::DuplicateCopy);
            }
            // Another socket on this host joined the group there: the datagram is not meant for any route.
            Claim::Group { .. } => return Err(DropReason::NoRoute),
        }
        match &self.lookup {
            Lookup::Fixed(route) => Ok(*route),
            Lookup::Table(table) => table.find(envelope).ok_or(DropReason::NoRoute),
        }
    }
}
