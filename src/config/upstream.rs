//! An upstream as the file names it: where it is, how datagrams leave to it, and how it is looked after.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

/// An address that a handler forwards to, as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// An IP address, or a name for the resolver.
    pub host: UpstreamHost,
    /// UDP port, never 0.
    pub port: u16,
    /// Bytes of the file where it is written, for messages.
    pub at: std::ops::Range<usize>,
    /// How datagrams leave to it.
    pub egress: Egress,
}

/// The host part of an [`Upstream`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamHost {
    /// An address, with its scope where that was written as a number: `[fe80::1%2]:53`.
    Address(SocketAddr),
    /// A link-local address with the name of its interface, which has an index only at run time:
    /// `[fe80::1%eth0]:53`.
    Scoped {
        /// The address without its zone.
        address: Ipv6Addr,
        /// The zone.
        interface: String,
    },
    /// A name for the resolver.
    Name(String),
}

impl Upstream {
    /// Whether both are the same host, as the file names it, and the same port.
    pub fn is_same_place(&self, other: &Upstream) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// Whether it is a multicast group, which only an address can be.
    pub fn is_group(&self) -> bool {
        match &self.host {
            UpstreamHost::Address(address) => address.ip().is_multicast(),
            UpstreamHost::Scoped { address, .. } => address.is_multicast(),
            UpstreamHost::Name(_) => false,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            UpstreamHost::Address(address) => write!(f, "{address}"),
            UpstreamHost::Scoped { address, interface } => {
                write!(f, "[{address}%{interface}]:{}", self.port)
            }
            UpstreamHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// How datagrams leave to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Egress {
    /// TTL or hop limit; `None`: the received one less one. To a group, the most that it may be.
    pub ttl: Option<u8>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: Option<u8>,
    /// The address that they leave from.
    pub from: SendFrom,
    /// Name or address of the interface that they leave through.
    pub interface: Option<String>,
    /// Whether receivers on this host hear what is sent to a group (IP_MULTICAST_LOOP in ip(7)).
    pub loop_back: bool,
}

impl Default for Egress {
    /// As the kernel has it for a socket of which nothing is said.
    fn default() -> Egress {
        Egress {
            ttl: None,
            dscp: None,
            from: SendFrom::Own,
            interface: None,
            loop_back: true,
        }
    }
}

/// The source address of what is forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SendFrom {
    /// This host's, as the kernel chooses.
    #[default]
    Own,
    /// The sender's address and port, as if the datagram had come straight from it.
    Keep,
    /// This one; port 0 leaves the port to the kernel.
    Address(SocketAddr),
}

/// How the upstreams of a handler are looked after while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonitorSettings {
    /// How each is asked whether it lives; `None`: judged by what comes back.
    pub probe: Option<ProbeSettings>,
    /// How often names are resolved again; zero: never.
    pub resolve_interval: Duration,
    /// Whether the daemon may start although a name does not resolve.
    pub resolve_optional: bool,
}

/// A question that an upstream must answer to count as alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// What carries it.
    pub over: ProbeOver,
    /// Its bytes. Over TCP nothing is sent if it is empty: that the connection opens is the answer.
    pub send: Vec<u8>,
    /// Bytes that the answer must contain; empty: any answer will do.
    pub expect: Vec<u8>,
    /// Time between two probes of one upstream.
    pub interval: Duration,
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Answers in a row that make a dead upstream alive.
    pub rise: u32,
    /// Failures in a row that make it dead.
    pub fall: u32,
}

/// Protocols of probes, both to the upstream's own address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOver {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
}
