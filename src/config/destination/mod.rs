//! Destinations of datagrams, as a file writes them: an address, a group or a prefix, and a port or a range of ports.
//!
//! The grammar is that of socket addresses, with a prefix length inside the brackets of IPv6:
//! `192.0.2.0/24:5000-5010`, `[2001:db8::/32]:53`. The displayed form parses to the same value. The parser, with an
//! explanation for each malformed destination, is in `parse.rs`.

mod parse;
mod port_set;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

pub(super) use self::parse::prefix_of;
pub use self::port_set::PortSet;

/// Addresses and ports that datagrams are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// One address, a prefix, or every address (prefix length 0). No host bits are set, no prefix contains several
    /// groups, and no IPv4 address is written as IPv6.
    pub net: IpNet,
    /// One port, or a range of ports.
    pub ports: PortSpan,
}

/// One port, or a range of ports; never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortSpan {
    first: u16,
    last: u16,
}

impl PortSpan {
    /// Returns the ports from `first` to `last`, both included; `None` for port 0 or a range that runs backwards.
    pub fn new(first: u16, last: u16) -> Option<PortSpan> {
        (first > 0 && first <= last).then_some(PortSpan { first, last })
    }

    /// Returns the lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// Returns the highest port, which is the lowest one if there is only one.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Returns the number of ports; at least one.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Returns every port, in ascending order.
    pub fn iter(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl Destination {
    /// Returns whether the destination is every address of a family.
    pub fn is_wildcard(&self) -> bool {
        self.net.prefix_len() == 0
    }

    /// Returns whether the destination is one address, which may be a group.
    pub fn is_exact(&self) -> bool {
        self.net.prefix_len() == self.net.max_prefix_len()
    }

    /// Returns the address of a destination that is one address.
    pub fn address(&self) -> Option<IpAddr> {
        self.is_exact().then(|| self.net.addr())
    }

    /// Returns whether the destination is one link-local IPv6 unicast address. Such an address exists on every link
    /// and cannot be bound without an interface.
    pub fn is_link_local_v6(&self) -> bool {
        matches!(self.address(), Some(IpAddr::V6(address)) if address.is_unicast_link_local())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = self.is_exact() || self.is_wildcard();
        match (self.net, one) {
            (IpNet::V4(net), true) => write!(f, "{}:", net.addr())?,
            (IpNet::V4(net), false) => write!(f, "{net}:")?,
            (IpNet::V6(net), true) => write!(f, "[{}]:", net.addr())?,
            (IpNet::V6(net), false) => write!(f, "[{net}]:")?,
        }
        write!(f, "{}", self.ports)
    }
}

impl fmt::Display for PortSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Each form is displayed as it was written, and an exact address is distinguished from a wildcard.
    #[test]
    fn every_form_round_trips() {
        for (text, exact, wildcard) in [
            ("127.0.0.1:1234", true, false),
            ("0.0.0.0:1234", false, true),
            ("192.0.2.0/24:5000-5010", false, false),
            ("255.255.255.255:67", true, false),
            ("239.1.2.3:5000", true, false),
            ("[::1]:53", true, false),
            ("[2001:db8::/32]:53", false, false),
            ("[ff02::fb]:5353", true, false),
            ("[::]:9-10", false, true),
            ("0.0.0.0/8:7", false, false),
            ("1.2.3.4:65535", true, false),
        ] {
            let destination: Destination = text.parse().expect(text);
            assert_eq!(destination.to_string(), text);
            assert_eq!(destination.is_exact(), exact, "{text}");
            assert_eq!(destination.is_wildcard(), wildcard, "{text}");
        }
        let same = |a: &str, b: &str| a.parse::<Destination>() == b.parse::<Destination>();
        assert!(same("0.0.0.0/0:1", "0.0.0.0:1"));
        assert!(same("[::/0]:1", "[::]:1"));
        assert!(same("10.0.0.1/32:7-7", "10.0.0.1:7"));
    }

    fn any_destination() -> impl Strategy<Value = Destination> {
        let address = prop_oneof![
            any::<Ipv4Addr>().prop_map(IpAddr::V4),
            any::<Ipv6Addr>().prop_map(IpAddr::V6),
        ];
        (address, any::<u8>(), 1_u16.., any::<u16>()).prop_filter_map(
            "a form that a file can contain",
            |(address, length, first, more)| {
                let length = length % (IpNet::from(address).max_prefix_len() + 1);
                let net = IpNet::new(address, length).ok()?.trunc();
                let mapped = matches!(net.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
                let exact = net.prefix_len() == net.max_prefix_len();
                let no_group_prefix = exact || !net.addr().is_multicast();
                let ports = PortSpan::new(first, first.saturating_add(more))?;
                let no_host = exact && net.addr().is_unspecified();
                (no_group_prefix && !mapped && !no_host).then_some(Destination { net, ports })
            },
        )
    }

    proptest! {
        /// Every possible destination is displayed in a form that parses to the same value.
        #[test]
        fn shown_and_read_back(destination in any_destination()) {
            prop_assert_eq!(destination.to_string().parse(), Ok(destination));
        }

        /// No text makes the parser panic, and every accepted destination has its documented properties.
        #[test]
        fn any_text_is_accepted_or_refused(text in "[\\[\\]0-9a-f:./%*\u{e4} -]{0,40}") {
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert!(destination.ports.first() > 0);
                prop_assert_eq!(destination.net, destination.net.trunc());
                prop_assert_eq!(destination.to_string().parse(), Ok(destination));
            }
        }
    }
}
