//! The verdict on a datagram: handled, or dropped for one of a closed set of reasons.
//!
//! The reasons are labels of the ledger and of metrics. They are therefore few, named, and never made from received
//! data.

/// A handler's verdict on one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The handler has handled the datagram.
    Handled,
    /// The handler has dropped the datagram for this reason.
    Dropped(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal, $cure:literal;)+) => {
        /// The reason why a datagram was not handled.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of the ledger's columns.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)+];
            /// The number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns the name of the reason in the ledger and in metrics.
            pub fn label(self) -> &'static str {
                match self { $(DropReason::$variant => $label,)+ }
            }

            /// Returns a sentence on what the reason means for a user, or on what to do about it.
            pub fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => $cure,)+ }
            }
        }
    };
}

drop_reasons! {
    /// No route of the table matches the datagram's destination, interface and source.
    NoRoute = "no_route", "no route matches; `udispatch explain` shows why";
    /// The datagram is a further copy of a broadcast or multicast datagram that another listener handles.
    DuplicateCopy = "duplicate_copy", "the kernel delivers a copy to every matching socket; another copy is handled";
    /// The kernel set MSG_TRUNC: the datagram did not fit the receive slot.
    Truncated = "truncated", "larger than a receive slot of 64 KiB";
    /// The kernel set MSG_CTRUNC, or did not report a control message that the route needs.
    ControlLost = "control_lost", "the kernel did not report the destination address or another control message";
    /// The source is a listener of this daemon: a reply would close a loop.
    OwnSource = "own_source", "sent from one of this daemon's own listeners; a reply would close a loop";
    /// The source port is 0, which cannot be replied to.
    SourcePortZero = "source_port_zero", "the source port is 0, which cannot receive a reply";
    /// The source is a multicast, broadcast or unspecified address, so it is forged.
    SourceNotUnicast = "source_not_unicast", "the source is a group or broadcast address, so it is forged";
    /// The source port is below 1024. As a rule it belongs to a service, which would reply to the reply.
    LowSourcePort = "low_source_port", "source port below 1024; set `allow_low_ports = true` on the handler to reply";
    /// The datagram was sent to a group or a broadcast address, and the handler does not reply to those.
    GroupRequest = "group_request", "sent to a group or broadcast address; set `reply_to_groups = true` on the handler to reply";
    /// The datagram arrived with a TTL of 0 or 1, so what it causes must not travel further.
    TtlSpent = "ttl_spent", "the TTL is used up, as at the end of a loop; set `ttl = N` on the handler to override it";
    /// The reply would exceed the allowed multiple of the request's size.
    Amplification = "amplification", "the reply is too large for so small a request; raise `amplification_max` on the handler to allow it";
    /// The handler's sink is behind, and its bounded queue is full.
    SinkFull = "sink_full", "the consumer (a terminal, pipe or file) is slower than the traffic";
    /// The handler's sink has failed permanently.
    SinkClosed = "sink_closed", "the consumer is gone (a closed pipe, a full disk)";
    /// The limit of bytes that handlers may make in one turn is reached.
    OutboxFull = "outbox_full", "the handlers made too many bytes to send in one turn";
    /// The number of sessions is at its limit, and no unreplied session can make room.
    SessionLimit = "session_limit", "the number of sessions is at its limit, and all of them have had a reply; raise `session_max` on the handler";
    /// The client's network holds as many sessions as one network may.
    SessionShare = "session_share", "the client's network (/24 or /56) holds its share of the sessions; raise `session_share` on the handler";
    /// No source port or file descriptor is free for a new session.
    NoPort = "no_port", "no source port or file descriptor is free for a new session: shorten `session_idle`, set `replies_max`, widen net.ipv4.ip_local_port_range, or give upstreams a `source` each";
    /// No upstream is fit to be picked.
    NoUpstream = "no_upstream", "no upstream is alive and has an address; `udispatch upstreams` and the log show the state of each";
    /// An upstream replied after the session had ended.
    LateReply = "late_reply", "an upstream replied after the session had ended; `session_idle`, `session_unreplied` and `replies_max` decide when it ends";
    /// Another upstream had replied first.
    NotFirst = "not_first", "another upstream replied to the request first; set `replies = \"all\"` to pass on every reply";
    /// The reply comes from an upstream that only shadows.
    Shadow = "shadow", "the reply of a `shadow` upstream, which is compared and counted, and never passed on";
    /// No upstream's sample contains the datagram.
    SampledOut = "sampled_out", "no upstream's `sample` includes it, as configured";
    /// The datagram exceeds the rate of every upstream.
    RateLimit = "rate_limit", "above the `max_rate` of every upstream";
    /// The `drop` handler dropped the datagram, as configured.
    Discarded = "discarded", "dropped by a `drop` handler, as configured";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels appear in dashboards: each is one word, and no two are the same.
    #[test]
    fn labels_are_unique_words() {
        let mut labels: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| reason.label())
            .collect();
        assert!(labels.iter().all(|label| {
            label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        }));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::COUNT);
    }
}
