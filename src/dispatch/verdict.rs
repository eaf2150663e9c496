//! What became of a datagram: handled, or dropped for one of a closed set of reasons.
//!
//! The reasons are labels of the ledger and of metrics, so they are few, named, and never made from what a sender wrote.

/// A handler's word on one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The handler did its work with it.
    Handled,
    /// It did not, and this is why.
    Dropped(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal, $cure:literal;)+) => {
        /// Why a datagram was not handled.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of the ledger's columns.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in the ledger and in metrics.
            pub fn label(self) -> &'static str {
                match self { $(DropReason::$variant => $label,)+ }
            }

            /// What a user should know or do about it, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => $cure,)+ }
            }
        }
    };
}

drop_reasons! {
    /// No route of the table matches its destination, interface and source.
    NoRoute = "no_route", "no route matches; `udispatch explain` tells why not";
    /// A further copy of a broadcast or multicast datagram that another listener handles.
    DuplicateCopy = "duplicate_copy", "the kernel gives every matching socket a copy; one is handled, this was another";
    /// The kernel said MSG_TRUNC: it did not fit the receive slot.
    Truncated = "truncated", "larger than a receive slot of 64 KiB";
    /// The kernel said MSG_CTRUNC, or left out a control message that the route needs.
    ControlLost = "control_lost", "the kernel left out the destination address or another control message";
    /// Its source is one of our own listeners: answering would close a loop.
    OwnSource = "own_source", "sent from one of this daemon's own listeners; answering would close a loop";
    /// Source port 0 cannot be answered.
    SourcePortZero = "source_port_zero", "source port 0 cannot be answered";
    /// The source is a multicast, broadcast or unspecified address: forged.
    SourceNotUnicast = "source_not_unicast", "a group or broadcast address as source is forged";
    /// The source port is below 1024: as a rule a service, which would answer the answer.
    LowSourcePort = "low_source_port", "source port below 1024; `allow_low_ports = true` on the handler answers them";
    /// Sent to a group or a broadcast address, and the handler does not answer those.
    GroupRequest = "group_request", "sent to a group or broadcast address; `answer_groups = true` on the handler answers them";
    /// It arrived with a TTL of 1: whatever it causes must not travel further.
    TtlSpent = "ttl_spent", "its TTL is used up, as at the end of a loop; `ttl = N` on the handler overrides";
    /// The answer would be more than so many times the request.
    Amplification = "amplification", "the answer is too large for so small a request; `amplification_max` on the handler";
    /// The handler's sink is behind and its bounded queue is full.
    SinkFull = "sink_full", "the consumer (a terminal, pipe or file) is slower than the traffic";
    /// The handler's sink has failed for good.
    SinkClosed = "sink_closed", "the consumer is gone (a closed pipe, a full disk)";
    /// The outbox's limit of made bytes for one turn is reached.
    OutboxFull = "outbox_full", "too many answers in one turn";
    /// There are as many sessions as there may be, and none unreplied that could make room.
    SessionLimit = "session_limit", "as many sessions as there may be, all of them answered; `session_max` on the handler";
    /// The client's network holds as many sessions as one may.
    SessionShare = "session_share", "the client's network (/24 or /56) has its share of the sessions; `session_share` on the handler";
    /// No source port or file descriptor is free for a new session.
    NoPort = "no_port", "no source port or file is free for a new session: shorten `session_idle`, set `replies_max`, widen net.ipv4.ip_local_port_range, or give upstreams a `source` each";
    /// No upstream may get it.
    NoUpstream = "no_upstream", "no upstream is alive (or has an address yet); `udispatch check` and the log tell of each";
    /// An upstream answered after the session had ended.
    LateReply = "late_reply", "an upstream answered when the session was over; `session_idle`, `session_unreplied` and `replies_max` say when that is";
    /// Another upstream had answered first.
    NotFirst = "not_first", "another upstream answered the request first; `replies = \"all\"` passes every answer on";
    /// The answer of an upstream that only shadows.
    Shadow = "shadow", "the answer of a `shadow` upstream: compared, counted, never passed on";
    /// Not among those that the receivers get.
    SampledOut = "sampled_out", "no receiver's `sample` took it, as configured";
    /// Above the rate that the receivers get.
    RateLimit = "rate_limit", "above the receivers' `max_rate`";
    /// The `drop` handler: as configured.
    Discarded = "discarded", "dropped by a `drop` handler, as configured";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels are written into dashboards: each is one word and no two are the same.
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
