//! The settings of `[handler.NAME]` with `kind = "forward"`, and their parser.

mod health;
pub(super) mod parse;
pub(super) mod schema;
mod upstream_entry;
mod validate;

use std::time::Duration;

use crate::config::upstream::{MonitorSettings, Upstream};
use crate::config::value::Rate;
use crate::dispatch::pool::Pick;
use crate::dispatch::reply_policy::ReplyPolicy;

/// The checked settings of a forwarder, without contradictions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The upstreams; at least one.
    pub upstreams: Vec<Upstream>,
    /// The further options of each upstream, in the same order.
    pub upstream_options: Vec<UpstreamOptions>,
    /// Whether a datagram goes to all upstreams or to a picked one.
    pub choice: Choice,
    /// The part of the datagram that is hashed under `pick = "hash"`.
    pub hash_on: HashOn,
    /// The time for which a pick holds.
    pub spread: Spread,
    /// The replies that are sent back to the client.
    pub replies: Replies,
    /// The limits of sessions.
    pub limits: Limits,
    /// The rules for replies, and the TTL of requests.
    pub reply_policy: ReplyPolicy,
    /// The probes of the upstreams, and the resolution of their names.
    pub monitor: MonitorSettings,
    /// Whether all upstreams are used when none is alive.
    pub fail_open: bool,
}

/// The options of one upstream, except those that concern its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// The weight relative to the other upstreams: 1 to 1,000.
    pub weight: u32,
    /// The fraction of the datagrams that the upstream gets; `None` means all.
    pub sample: Option<Sample>,
    /// Whether a PROXY protocol v2 header precedes each datagram.
    pub proxy: bool,
    /// The maximum rate of datagrams, over all workers.
    pub max_rate: Option<Rate>,
    /// Whether the upstream gets nothing new. Existing sessions continue.
    pub drain: bool,
    /// Whether the upstream gets datagrams only while no other one is alive.
    pub backup: bool,
    /// Whether the upstream gets copies. Its replies are compared and counted, and never sent to the client.
    pub shadow: bool,
}

/// A fraction such as `"1/100"`: `taken` of every `each` datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The number of datagrams that are taken; at least 1 and less than `each`.
    pub taken: u32,
    /// The number of datagrams of which `taken` are taken.
    pub each: u32,
}

/// The choice of the upstreams that a datagram goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// All upstreams.
    All,
    /// One upstream, picked by the given rule.
    One(Pick),
}

/// The part of the datagram that is hashed under `pick = "hash"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOn {
    /// The address and port of the sender.
    Source,
    /// The address of the sender.
    SourceAddress,
    /// The address and port that the datagram was sent to.
    Destination,
    /// Bytes of the payload. If the payload is shorter, the bytes that exist are hashed.
    Payload {
        /// The index of the first byte.
        offset: u16,
        /// The number of bytes.
        length: u16,
    },
}

/// The time for which a pick holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// A pick holds until the session ends.
    Session,
    /// A pick holds for a single datagram.
    Datagram,
}

/// The replies that are sent back to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// No replies: forwarding is one-way, and sessions lease no sockets.
    None,
    /// After each request, only replies of the upstream that replies first. Only with `pick = "all"`.
    First,
    /// All replies. With a single picked upstream, these are its own.
    All,
}

/// The limits of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The idle time after which a session that had a reply ends.
    pub idle: Duration,
    /// The idle time after which a session without a reply ends.
    pub unreplied: Duration,
    /// The maximum number of sessions, over all workers.
    pub max: u32,
    /// The maximum number of sessions of one source prefix, /24 or /56, over all workers.
    pub share: u32,
    /// A session ends when each of its requests has this many replies.
    pub replies_max: Option<u32>,
    /// After this many requests, the client's next request begins a new session.
    pub requests_max: Option<u32>,
}

impl Settings {
    /// Returns whether a request goes to several upstreams and only the replies of the first one are passed on.
    pub fn is_first_alone(&self) -> bool {
        self.choice == Choice::All && self.replies == Replies::First
    }

    /// Returns whether replies are sent back.
    pub fn has_replies(&self) -> bool {
        self.replies != Replies::None
    }

    /// Returns whether the handler keeps a session for each client.
    pub fn has_sessions(&self) -> bool {
        self.has_replies() || (self.spread == Spread::Session && self.choice != Choice::All)
    }
}

/// The values of the key `replies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepliesSetting {
    /// The value `false`.
    No,
    /// The value `true`.
    Yes,
    /// The value `"first"`.
    First,
    /// The value `"all"`.
    All,
}
