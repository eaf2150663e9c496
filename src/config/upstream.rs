//! An upstream as the file defines it: its address, the properties of datagrams sent to it, and how it is monitored.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

/// An upstream of a handler, as the file defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// An IP address or a host name.
    pub host: UpstreamHost,
    /// The UDP port, never 0.
    pub port: u16,
    /// The byte range of the file that holds the upstream, for messages.
    pub at: std::ops::Range<usize>,
    /// The properties of datagrams sent to the upstream.
    pub egress: Egress,
}

/// The host part of an [`Upstream`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamHost {
    /// An address, with a numeric scope if the file has one: `[fe80::1%2]:53`.
    Address(SocketAddr),
    /// A link-local address with the name of its interface: `[fe80::1%eth0]:53`. The index of the interface is known
    /// only at run time.
    Scoped {
        /// The address without the zone.
        address: Ipv6Addr,
        /// The name of the interface.
        interface: String,
    },
    /// A host name.
    Name(String),
}

impl Upstream {
    /// Returns whether both have the same host, as the file writes it, and the same port.
    pub fn is_same_place(&self, other: &Upstream) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// Returns whether the upstream is a multicast group. A host name never is.
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

/// The properties of datagrams sent to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Egress {
    /// The TTL or hop limit; `None` for the received one less one. For a group, it is the upper limit.
    pub ttl: Option<u8>,
    /// The differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: Option<u8>,
    /// The source address.
    pub from: SendFrom,
    /// The name or an address of the interface that datagrams are sent through; `None` for the kernel's choice.
    pub interface: Option<String>,
    /// Whether receivers on this host get a copy of what is sent to a group (IP_MULTICAST_LOOP in ip(7)).
    pub loop_back: bool,
}

impl Default for Egress {
    /// Returns the kernel's defaults for a socket without options.
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

/// The source address of forwarded datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SendFrom {
    /// An address of this host, which the kernel chooses.
    #[default]
    Own,
    /// The address and port of the original sender.
    Keep,
    /// This address; with port 0, the kernel chooses the port.
    Address(SocketAddr),
}

/// How the upstreams of a handler are monitored while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonitorSettings {
    /// The probe that decides whether an upstream is alive; `None` for passive health.
    pub probe: Option<ProbeSettings>,
    /// The interval after which names are resolved again; zero for never.
    pub resolve_interval: Duration,
    /// Whether the daemon may start although a name does not resolve.
    pub resolve_optional: bool,
}

/// A request that an upstream must reply to in order to count as alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// The protocol of the probe.
    pub over: ProbeOver,
    /// The payload of the request. If it is empty, a TCP probe sends nothing, and the open connection counts as the
    /// reply.
    pub send: Vec<u8>,
    /// Bytes that the reply must contain; empty to accept any reply.
    pub expect: Vec<u8>,
    /// The time between two probes of one upstream.
    pub interval: Duration,
    /// The time to wait for the reply.
    pub timeout: Duration,
    /// The number of consecutive replies after which a dead upstream counts as alive.
    pub rise: u32,
    /// The number of consecutive failures after which an upstream counts as dead.
    pub fall: u32,
}

/// The protocols of probes. Both use the upstream's own address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOver {
    /// A UDP datagram.
    Udp,
    /// A TCP connection.
    Tcp,
}
