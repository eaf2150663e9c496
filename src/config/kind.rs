//! What a kind of handler is: a name, its settings, and how the file's words become a handler spec.
//!
//! This room knows the shape of a kind; the kinds themselves live in `handlers/`, one file each, and are passed in as a
//! slice, so that a program of one's own can add to them.

use std::fmt;
use std::net::SocketAddr;

use super::section::Section;
pub use super::setting::{Form, Setting};
pub use super::upstream::{MonitorSettings, Upstream};
use crate::datagram::Datagram;
use crate::dispatch::handler::Handler;
use crate::dispatch::id::UpstreamId;
use crate::dispatch::outbox::UpstreamSocketId;

/// One kind of handler: everything that the parser, the help, `explain` and the README's table need to know of it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What the file calls it.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The keys of its `[handler.NAME]` table besides `kind`.
    pub settings: &'static [Setting],
    /// A complete piece of configuration that uses it; tests parse it.
    pub example: &'static str,
    /// Reads its settings. Reports what is wrong to the section and returns `None` where nothing can be built.
    pub read: fn(&mut Section<'_>) -> Option<Box<dyn HandlerSpec>>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.name)
    }
}

impl Kind {
    /// The keys without which there is no such handler.
    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        let required = self.settings.iter().filter(|setting| setting.is_required());
        required.map(|setting| setting.key)
    }
}

/// A handler as the file describes it, already checked. Each worker gets a [`Handler`] of its own made from it.
pub trait HandlerSpec: Send + Sync + fmt::Debug {
    /// Which facts about a datagram the kernel must tell; each costs 30 to 45 ns a datagram.
    fn needs(&self) -> Needs;

    /// Where it sends what it receives, for the search for loops and for `explain`.
    fn upstreams(&self) -> &[Upstream] {
        &[]
    }

    /// What it has read beside its settings, such as another file: two handler specs of equal settings are the same only where this
    /// is equal too.
    fn beside(&self) -> &[u8] {
        &[]
    }

    /// Whether answers come back to clients that it keeps in mind: what it leaves is then worth going on with.
    fn has_sessions(&self) -> bool {
        false
    }

    /// Places among [`HandlerSpec::upstreams`] of those that may get this datagram from a handler that has just begun, while all
    /// of them live and are known. One that only gets copies on trial is none of them.
    fn would_reach(&self, _: &Datagram<'_>) -> Vec<usize> {
        (0..self.upstreams().len()).collect()
    }

    /// How these are looked after while the daemon runs.
    fn monitor_settings(&self) -> MonitorSettings {
        MonitorSettings::default()
    }

    /// One line for `explain`: what it will do, in words.
    fn describe(&self) -> String;

    /// Makes the handler of one worker. Everything that can block or fail happens here, never in the handler.
    fn build(&self, context: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError>;
}

/// Which facts about a datagram a handler reads besides its payload. What it does not ask for may be told all the same, for
/// another handler's sake; otherwise an address is unspecified, an interface 0, a TTL or a time absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Who sent it. Handlers that answer need it.
    pub source: bool,
    /// The destination address, and the local address for an answer.
    pub destination: bool,
    /// The interface it arrived on.
    pub interface: bool,
    /// The TTL or hop limit left on arrival.
    pub ttl: bool,
    /// The kernel's receive time.
    pub time: bool,
}

impl Needs {
    /// Needs nothing but the payload.
    pub const NOTHING: Needs = Needs {
        source: false,
        destination: false,
        interface: false,
        ttl: false,
        time: false,
    };

    /// What either needs.
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

/// What the control plane offers a handler spec that builds the handler of one worker.
pub trait BuildContext {
    /// The way to an upstream of the handler spec. `place` is its place in [`HandlerSpec::upstreams`].
    fn upstream(&mut self, place: usize) -> Result<OpenedUpstream, BuildError>;

    /// The line sink on standard output, shared by all that print.
    fn standard_output(&mut self) -> Result<crate::dispatch::sink::LineSink, BuildError>;

    /// A number that differs between workers and between runs, for handlers that pick at random.
    fn seed(&mut self) -> u64;
}

/// A way to an upstream that is there from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedUpstream {
    /// The upstream's number.
    pub upstream: UpstreamId,
    /// The socket that leads there, one way. The worker opens, connects and owns it.
    pub socket: UpstreamSocketId,
    /// Where the upstream is, if that is known.
    pub address: Option<SocketAddr>,
}

/// Why a handler could not be built, as a sentence for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);
