//! The definition of a kind of handler: its name, its settings, and how the settings become a handler spec.
//!
//! This room defines what a kind consists of. The kinds themselves are in `handlers/`, one file each, and are passed
//! in as a slice, so that another program can add its own.

use std::fmt;
use std::net::SocketAddr;

pub use super::definition::{AnySetting, DefaultText, Form, SettingTable};
pub use super::interface::InterfaceRef;
use super::section::Section;
pub use super::setting::{Capped, Fixed, ListSetting, Optional, Required, Setting};
pub use super::upstream::{MonitorSettings, Upstream};
use crate::datagram::Datagram;
use crate::dispatch::handler::Handler;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::outbox::UpstreamSocketId;

/// A kind of handler: everything that the parser, the help, `explain` and the README's table need.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name of the kind in the file.
    pub name: &'static str,
    /// What handlers of this kind do, in one line.
    pub summary: &'static str,
    /// The keys of a `[handler.NAME]` table of this kind besides `kind`.
    pub settings: SettingTable,
    /// A complete example configuration that uses the kind. Tests parse it.
    pub example: &'static str,
    /// Reads the settings. Reports problems to the section, and returns `None` if no handler can be built.
    pub read: fn(&mut Section<'_>) -> Option<Box<dyn HandlerSpec>>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.name)
    }
}

impl Kind {
    /// Returns the keys that a handler of this kind must have.
    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        let required = self.settings.iter().filter(|setting| setting.is_required());
        required.map(|setting| setting.key())
    }
}

/// The checked settings of a handler. Each worker has a [`Handler`] of its own that is built from them.
pub trait HandlerSpec: Send + Sync + fmt::Debug {
    /// Returns which facts about a datagram the handler reads. Each of them costs 30 to 45 ns a datagram.
    fn needs(&self) -> Needs;

    /// Returns the upstreams that the handler sends to, for the loop search and for `explain`.
    fn upstreams(&self) -> &[Upstream] {
        &[]
    }

    /// Returns the data that was read in addition to the settings, such as the contents of another file. Two handler
    /// specs with equal settings are the same only if this data is equal too.
    fn beside(&self) -> &[u8] {
        &[]
    }

    /// Returns whether the handler keeps sessions with clients for the replies of its upstreams. If it does, its
    /// saved state is worth a handover.
    fn has_sessions(&self) -> bool {
        false
    }

    /// Returns the places in [`HandlerSpec::upstreams`] of those that may receive this datagram. The handler is
    /// assumed to be new, and all upstreams to be alive with a known address. Shadow upstreams, which receive only
    /// copies, are not included.
    fn would_reach(&self, _: &Datagram<'_>) -> Vec<usize> {
        (0..self.upstreams().len()).collect()
    }

    /// Returns how the upstreams are monitored while the daemon runs.
    fn monitor_settings(&self) -> MonitorSettings {
        MonitorSettings::default()
    }

    /// Returns a description of what the handler will do, in one line, for `explain`.
    fn describe(&self) -> String;

    /// Builds the handler of one worker. Everything that can block or fail happens here, never in the handler.
    ///
    /// # Errors
    ///
    /// Returns a sentence for the user if something that the handler needs cannot be opened.
    fn build(&self, context: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError>;
}

/// Which facts about a datagram a handler reads besides its payload. A fact that was not requested may be present all
/// the same, because another handler needs it. Otherwise an address is unspecified, an interface is 0, and a TTL or a
/// time is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The source address. Handlers that reply need it.
    pub source: bool,
    /// The destination address, and the local address that a reply is sent from.
    pub destination: bool,
    /// The interface that the datagram arrived on.
    pub interface: bool,
    /// The TTL or hop limit on arrival.
    pub ttl: bool,
    /// The kernel's receive timestamp.
    pub time: bool,
}

impl Needs {
    /// No fact besides the payload.
    pub const NOTHING: Needs = Needs {
        source: false,
        destination: false,
        interface: false,
        ttl: false,
        time: false,
    };

    /// Returns the facts that at least one of the two needs.
    pub fn or(self, other: Needs) -> Needs {
        Needs {
            source: self.source || other.source,
            destination: self.destination || other.destination,
            interface: self.interface || other.interface,
            ttl: self.ttl || other.ttl,
            time: self.time || other.time,
        }
    }
}

/// What a handler spec may use while it builds the handler of one worker.
pub trait BuildContext {
    /// Returns a socket that sends to an upstream. `place` is its index in [`HandlerSpec::upstreams`].
    ///
    /// # Errors
    ///
    /// Returns a sentence for the user if the socket cannot be provided.
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError>;

    /// Returns the line sink of standard output, which all handlers that print share.
    ///
    /// # Errors
    ///
    /// Returns a sentence for the user if the sink cannot be provided.
    fn standard_output(&mut self) -> Result<crate::dispatch::sink::LineSink, BuildError>;

    /// Returns a number that differs between workers and between runs, for handlers that choose at random.
    fn seed(&mut self) -> u64;
}

/// An upstream and its socket, which exists from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedUpstream {
    /// The number of the upstream.
    pub upstream: UpstreamId,
    /// The socket that sends to the upstream and receives nothing. The worker opens, connects and owns it.
    pub socket: UpstreamSocketId,
    /// The address of the upstream, if it is known.
    pub address: Option<SocketAddr>,
}

/// The reason why a handler could not be built, as a sentence for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);
