//! What `[handler.NAME]` with `kind = "forward"` may say, and how it is read.

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

/// A forwarder as the file describes it. It holds no contradiction.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to; at least one.
    pub upstreams: Vec<Upstream>,
    /// What else is said of each of them.
    pub upstream_options: Vec<UpstreamOptions>,
    /// Which of them get a datagram.
    pub choice: Choice,
    /// What decides under `pick = "hash"`.
    pub hash_on: HashOn,
    /// How long a choice holds.
    pub spread: Spread,
    /// Which answers go back to the client.
    pub replies: Replies,
    /// What a session may take.
    pub limits: Limits,
    /// Who is answered, and the TTL that requests are sent with.
    pub reply_policy: ReplyPolicy,
    /// How the upstreams are looked after.
    pub monitor: MonitorSettings,
    /// Whether all upstreams are used when none seems alive.
    pub fail_open: bool,
}

/// Settings of one upstream beside how datagrams leave to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// How much it is picked, compared with the others: 1 to 1,000.
    pub weight: u32,
    /// Gets so many of so many datagrams; `None`: all.
    pub sample: Option<Sample>,
    /// Puts a PROXY protocol v2 header before each datagram.
    pub proxy: bool,
    /// At most so many datagrams, over all workers.
    pub max_rate: Option<Rate>,
    /// Gets no new sessions.
    pub drain: bool,
    /// Gets something only while no other upstream is alive.
    pub backup: bool,
    /// Gets the traffic beside the others; its replies are compared and counted, and never sent to the client.
    pub shadow: bool,
}

/// `taken` of every `each` datagrams: `"1/100"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many are taken; at least 1, less than `each`.
    pub taken: u32,
    /// Of how many.
    pub each: u32,
}

/// Which upstreams get a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// All of them.
    All,
    /// One.
    One(Pick),
}

/// What decides under `pick = "hash"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOn {
    /// The sender's address and port.
    Source,
    /// The sender's address.
    SourceAddress,
    /// The address and port that it was sent to.
    Destination,
    /// Bytes of the payload. Shorter payloads are hashed as far as they go.
    Payload {
        /// First byte.
        offset: u16,
        /// How many.
        length: u16,
    },
}

/// How long a choice holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// As long as the session.
    Session,
    /// For one datagram.
    Datagram,
}

/// Which answers go back to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// None: one way, without sessions' sockets.
    None,
    /// After each request, those of the upstream that answers first. Only where all upstreams are asked.
    First,
    /// All; where one upstream is asked, that is its own.
    All,
}

/// What sessions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// An answered session without traffic ends after this.
    pub idle: Duration,
    /// One that never got an answer after this.
    pub unreplied: Duration,
    /// Sessions over all workers.
    pub max: u32,
    /// Of these, at most so many by one source prefix, /24 or /56.
    pub share: u32,
    /// A session ends when each of its requests has so many answers.
    pub replies_max: Option<u32>,
    /// After so many requests the client's next one begins a new session.
    pub requests_max: Option<u32>,
}

impl Settings {
    /// Whether a request goes to several and the answers of one are enough.
    pub fn is_first_alone(&self) -> bool {
        self.choice == Choice::All && self.replies == Replies::First
    }

    /// Whether requests get a way back.
    pub fn has_replies(&self) -> bool {
        self.replies != Replies::None
    }

    /// Whether it remembers whom a client talks to.
    pub fn has_sessions(&self) -> bool {
        self.has_replies() || (self.spread == Spread::Session && self.choice != Choice::All)
    }
}

/// What `replies` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// `false`
    No,
    /// `true`
    Yes,
    /// `"first"`
    First,
    /// `"all"`
    All,
}
