//! Items that leave through one socket in one flush, addressed by index: parcels to an upstream, or replies to clients.

use std::net::{IpAddr, SocketAddr};

use crate::dispatch::outbox::{Parcel, Reply, Run, SegmentLimits, first_run};
use crate::net::control_message::Sending;

/// Items that leave through one socket in one flush.
#[derive(Clone, Copy)]
pub(super) enum Items<'a> {
    /// Parcels to the upstream that the socket is connected to.
    Parcels(&'a [Parcel]),
    /// Replies, each to its own client.
    Replies(&'a [Reply]),
    /// Single datagrams of a run of replies. All of them go to the client of this reply.
    Singles(&'a [Parcel], &'a Reply),
}

impl<'a> Items<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Items::Parcels(parcels) | Items::Singles(parcels, _) => parcels.len(),
            Items::Replies(replies) => replies.len(),
        }
    }

    /// Returns the items from index `first` on.
    pub(super) fn from(self, first: usize) -> Items<'a> {
        match self {
            Items::Parcels(parcels) => Items::Parcels(&parcels[first..]),
            Items::Replies(replies) => Items::Replies(&replies[first..]),
            Items::Singles(parcels, to) => Items::Singles(&parcels[first..], to),
        }
    }

    pub(super) fn parcel(self, index: usize) -> Parcel {
        match self {
            Items::Parcels(parcels) | Items::Singles(parcels, _) => parcels[index],
            Items::Replies(replies) => replies[index].parcel,
        }
    }

    /// Returns the reply that the first item belongs to; `None` on a connected socket.
    pub(super) fn reply(self) -> Option<&'a Reply> {
        match self {
            Items::Parcels(_) => None,
            Items::Replies(replies) => replies.first(),
            Items::Singles(_, to) => Some(to),
        }
    }

    /// Returns the destination of the first item (`None` on a connected socket), and the control data that it needs.
    pub(super) fn head(self) -> (Option<&'a SocketAddr>, Sending) {
        let reply = self.reply();
        let sending = Sending {
            ttl: self.parcel(0).ttl,
            ..reply.map(sending_of).unwrap_or_default()
        };
        (reply.map(|reply| &reply.to), sending)
    }

    /// Returns the longest run of items that can leave as one message.
    pub(super) fn longest_run(self, limits: SegmentLimits) -> Run {
        match self {
            Items::Parcels(parcels) | Items::Singles(parcels, _) => {
                first_run(parcels.iter().copied(), limits)
            }
            Items::Replies(replies) => {
                let together = replies
                    .iter()
                    .take_while(|reply| has_same_path(reply, &replies[0]));
                first_run(together.map(|reply| reply.parcel), limits)
            }
        }
    }
}

/// Returns whether two replies go from the same address to the same client for the same handler.
fn has_same_path(one: &Reply, other: &Reply) -> bool {
    (one.to, one.from, one.handler) == (other.to, other.from, other.handler)
}

/// Returns the control data of a reply, except the TTL.
fn sending_of(reply: &Reply) -> Sending {
    let from = reply.from.ip();
    // A link-local address is ambiguous without its interface. For an unspecified one, the kernel needs the interface
    // to choose a source.
    let on_interface = match from {
        IpAddr::V4(_) => false,
        IpAddr::V6(from) => from.is_unspecified() || from.is_unicast_link_local(),
    };
    Sending {
        from: Some(from),
        interface: if on_interface { reply.interface } else { 0 },
        ..Sending::default()
    }
}
