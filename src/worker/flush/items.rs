//! What leaves through one socket in one flush, seen by index: parcels to an upstream, or replies to clients.

use std::net::{IpAddr, SocketAddr};

use crate::dispatch::outbox::{Parcel, Reply, Run, SegmentLimits, first_run};
use crate::net::control_message::Sending;

/// What leaves through one socket in one flush.
#[derive(Clone, Copy)]
pub(super) enum Items<'a> {
    /// Parcels to the upstream that the socket is connected to.
    Parcels(&'a [Parcel]),
    /// Replies, each to a client of its own.
    Replies(&'a [Reply]),
    /// The single datagrams of a run of replies. All of them go where this reply goes.
    Singles(&'a [Parcel], &'a Reply),
}

impl<'a> Items<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Items::Parcels(parcels) | Items::Singles(parcels, _) => parcels.len(),
            Items::Replies(replies) => replies.len(),
        }
    }

    /// The items from this one on.
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

    /// The reply that the first item belongs to; `None` on a connected socket.
    pub(super) fn reply(self) -> Option<&'a Reply> {
        match self {
            Items::Parcels(_) => None,
            Items::Replies(replies) => replies.first(),
            Items::Singles(_, to) => Some(to),
        }
    }

    /// Where the first item goes, `None` on a connected socket, and what the kernel must be told beside its payload.
    pub(super) fn head(self) -> (Option<&'a SocketAddr>, Sending) {
        let reply = self.reply();
        let sending = Sending {
            ttl: self.parcel(0).ttl,
            ..reply.map(sending_of).unwrap_or_default()
        };
        (reply.map(|reply| &reply.to), sending)
    }

    /// The longest run of items that can leave as one message.
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

/// Whether two replies go from the same address to the same client for the same handler.
fn has_same_path(one: &Reply, other: &Reply) -> bool {
    (one.to, one.from, one.handler) == (other.to, other.from, other.handler)
}

/// What the kernel must be told beside the payload and the TTL of a reply.
fn sending_of(reply: &Reply) -> Sending {
    let from = reply.from.ip();
    // A link-local address means nothing without its interface, and an unspecified one needs it for the choice.
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
