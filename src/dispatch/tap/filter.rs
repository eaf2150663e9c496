//! The filter of a tap, which selects the datagrams that the tap shows.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::dispatch::handler::HandlerId;

/// The conditions for a datagram to be shown. An absent condition always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The destination that the datagram was sent to.
    pub to: AddressFilter,
    /// The sources that the datagram may come from.
    pub from: Option<IpNet>,
    /// A handler that the datagram must have passed.
    pub handler: Option<HandlerId>,
}

impl Filter {
    /// Returns whether a datagram from the client `from` to this host's address `to` matches. For a reply, the two
    /// addresses are those of the request.
    #[inline]
    pub(super) fn matches(&self, to: SocketAddr, from: SocketAddr) -> bool {
        self.to.contains(to) && self.from.is_none_or(|net| net.contains(&from.ip()))
    }

    /// Returns whether datagrams without known addresses match.
    pub(super) fn matches_unknown(&self) -> bool {
        self.to == AddressFilter::default() && self.from.is_none()
    }

    /// Returns whether datagrams of these handlers match.
    pub(super) fn matches_handlers(&self, handlers: &[(HandlerId, usize)]) -> bool {
        self.handler
            .is_none_or(|only| handlers.iter().any(|(handler, _)| *handler == only))
    }
}

/// A set of destinations, written `ADDR:PORT`, `ADDR`, `PREFIX:PORT`, `PREFIX` or `:PORT`. An IPv6 address before a
/// port is in brackets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressFilter {
    /// The addresses; `None` for all.
    pub net: Option<IpNet>,
    /// The port; `None` for all.
    pub port: Option<u16>,
}

impl AddressFilter {
    fn contains(&self, address: SocketAddr) -> bool {
        self.port.is_none_or(|port| port == address.port())
            && self.net.is_none_or(|net| net.contains(&address.ip()))
    }
}

/// The error for a destination that cannot be parsed.
const TARGET: &str =
    "write an address, a port or both: 127.0.0.1:1234, 192.0.2.0/24, [::1]:53 or :1234";

impl FromStr for AddressFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AddressFilter, &'static str> {
        if let Some(net) = net(text) {
            return Ok(AddressFilter {
                net: Some(net),
                port: None,
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or(TARGET)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(TARGET)?;
        let net = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            _ if host.is_empty() => None,
            Some(host) => Some(
                host.and_then(net)
                    .filter(|net| net.addr().is_ipv6())
                    .ok_or(TARGET)?,
            ),
            None => Some(net(host).filter(|net| net.addr().is_ipv4()).ok_or(TARGET)?),
        };
        Ok(AddressFilter {
            net,
            port: Some(port),
        })
    }
}

/// Parses an address or a prefix.
pub(super) fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse())
        .ok()
}

impl Filter {
    /// Parses a prefix of sources, or a single source.
    ///
    /// # Errors
    ///
    /// Returns a message with examples if the text is neither an address nor a prefix.
    pub fn source(text: &str) -> Result<IpNet, &'static str> {
        net(text).ok_or("write an address or a prefix: 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32")
    }
}
