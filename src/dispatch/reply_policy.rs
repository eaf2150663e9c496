//! The rules about the senders that may get a reply. Every reply is checked here first. Forged and looping datagrams
//! therefore cannot make the daemon send to itself, to a service that would reply to the reply, or to a group.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::verdict::DropReason;
use crate::datagram::Envelope;

/// The ports below this belong to services (RFC 6335, section 6: System Ports), which would reply to a reply.
const SYSTEM_PORTS: u16 = 1024;

/// The reply policy of a handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplyPolicy {
    /// Whether to reply to source ports below 1024.
    pub allow_low_ports: bool,
    /// Whether to reply to datagrams that were sent to a group or a broadcast address.
    pub reply_to_groups: bool,
    /// The TTL to send with. `None` stands for the received TTL less one.
    pub ttl: Option<u8>,
}

/// The addresses that the daemon must not reply to: its own listeners, and the addresses of this host.
#[derive(Debug, Default)]
pub struct ReplyFilter {
    exact: HashSet<SocketAddr>,
    /// The ports on which an IPv4 wildcard listener covers every local address, for each family.
    wildcard_v4: HashSet<u16>,
    wildcard_v6: HashSet<u16>,
    /// One bit for each port that a listener uses. Nearly every source fails this cheap check first.
    ports: Vec<u64>,
    local: HashSet<IpAddr>,
    broadcast: HashSet<Ipv4Addr>,
}

impl ReplyFilter {
    /// Creates the filter. `listeners` are bind addresses, where an unspecified one covers all of `local`.
    /// `broadcast` are the broadcast addresses of this host.
    pub fn new(
        listeners: impl IntoIterator<Item = SocketAddr>,
        local: impl IntoIterator<Item = IpAddr>,
        broadcast: impl IntoIterator<Item = Ipv4Addr>,
    ) -> ReplyFilter {
        let mut reply_filter = ReplyFilter {
            ports: vec![0; 1024],
            local: local.into_iter().collect(),
            broadcast: broadcast.into_iter().collect(),
            ..ReplyFilter::default()
        };
        for listener in listeners {
            let port = listener.port();
            reply_filter.ports[usize::from(port >> 6)] |= 1 << (port & 63);
            match listener.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => {
                    reply_filter.wildcard_v4.insert(port);
                }
                IpAddr::V6(ip) if ip.is_unspecified() => {
                    reply_filter.wildcard_v6.insert(port);
                }
                ip => drop(reply_filter.exact.insert(SocketAddr::new(ip, port))),
            }
        }
        reply_filter
    }

    /// Returns the TTL of a reply to the sender of `envelope`. `None` stands for the socket's default, if no handler
    /// needs the received TTL.
    ///
    /// # Errors
    ///
    /// Returns the reason not to reply. The source may have port 0, be no unicast address, be a listener of this
    /// daemon, or have a system port. The destination may be a group, or the TTL may be used up.
    pub fn permit(
        &self,
        envelope: &Envelope,
        reply_policy: &ReplyPolicy,
    ) -> Result<Option<u8>, DropReason> {
        let src = envelope.src;
        if src.port() == 0 {
            return Err(DropReason::SourcePortZero);
        }
        if self.is_not_unicast(src.ip()) {
            return Err(DropReason::SourceNotUnicast);
        }
        if self.is_own(envelope) {
            return Err(DropReason::OwnSource);
        }
        if src.port() < SYSTEM_PORTS && !reply_policy.allow_low_ports {
            return Err(DropReason::LowSourcePort);
        }
        if envelope.is_to_many() && !reply_policy.reply_to_groups {
            return Err(DropReason::GroupRequest);
        }
        decrement_ttl(envelope.ttl, reply_policy.ttl)
    }

    fn is_not_unicast(&self, ip: IpAddr) -> bool {
        match ip {
            // 0.0.0.0/8 is "this network" (RFC 1122, section 3.2.1.3), which is never a sender's address.
            IpAddr::V4(ip) => {
                ip.is_multicast()
                    || ip.is_broadcast()
                    || ip.octets()[0] == 0
                    || self.broadcast.contains(&ip)
            }
            IpAddr::V6(ip) => ip.is_multicast() || ip.is_unspecified(),
        }
    }

    /// Returns whether the source is a listener of this daemon. The destination of the datagram is an address of this
    /// host too, even if it was added after the others were listed.
    fn is_own(&self, envelope: &Envelope) -> bool {
        let ip = envelope.src.ip();
        let port = envelope.src.port();
        let listed = self
            .ports
            .get(usize::from(port >> 6))
            .is_some_and(|bits| bits & (1 << (port & 63)) != 0);
        if !listed {
            return false;
        }
        let wildcard = if ip.is_ipv4() {
            &self.wildcard_v4
        } else {
            &self.wildcard_v6
        };
        let local = || ip.is_loopback() || ip == envelope.dst.ip() || self.local.contains(&ip);
        self.exact.contains(&SocketAddr::new(ip, port)) || (wildcard.contains(&port) && local())
    }
}

/// Returns the TTL of the datagrams that a received datagram causes: one less than its own, so that every loop ends.
/// `fixed` overrides it.
///
/// # Errors
///
/// Returns [`DropReason::TtlSpent`] if the received TTL is 0 or 1 and `fixed` is `None`.
pub fn decrement_ttl(received: Option<u8>, fixed: Option<u8>) -> Result<Option<u8>, DropReason> {
    match (fixed, received) {
        (Some(fixed), _) => Ok(Some(fixed)),
        (None, Some(0 | 1)) => Err(DropReason::TtlSpent),
        (None, Some(ttl)) => Ok(Some(ttl - 1)),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(src: &str, dst: &str, ttl: u8) -> Envelope {
        let dst = dst.parse().unwrap();
        Envelope {
            src: src.parse().unwrap(),
            dst,
            local: dst,
            interface: 0,
            ttl: Some(ttl),
            time_ns: None,
        }
    }

    /// The reply filter refuses each forbidden source and destination. The policy lifts the refusals that it covers.
    #[test]
    fn refusals() {
        let listeners =
            ["127.0.0.1:1234", "0.0.0.0:5000", "[::]:5000"].map(|text| text.parse().unwrap());
        let reply_filter = ReplyFilter::new(
            listeners,
            ["192.0.2.1".parse().unwrap()],
            ["192.0.2.255".parse().unwrap()],
        );
        let permit =
            |src, dst, ttl| reply_filter.permit(&envelope(src, dst, ttl), &ReplyPolicy::default());
        assert_eq!(permit("10.0.0.1:4000", "127.0.0.1:1234", 64), Ok(Some(63)));
        assert_eq!(
            permit("10.0.0.1:0", "127.0.0.1:1234", 64),
            Err(DropReason::SourcePortZero)
        );
        assert_eq!(
            permit("10.0.0.1:53", "127.0.0.1:1234", 64),
            Err(DropReason::LowSourcePort)
        );
        assert_eq!(
            permit("10.0.0.1:4000", "127.0.0.1:1234", 1),
            Err(DropReason::TtlSpent)
        );
        for forged in [
            "224.0.0.1:4000",
            "255.255.255.255:4000",
            "0.0.0.0:4000",
            "192.0.2.255:4000",
            "[ff02::1]:4000",
        ] {
            assert_eq!(
                permit(forged, "127.0.0.1:1234", 64),
                Err(DropReason::SourceNotUnicast),
                "{forged}"
            );
        }
        for own in [
            "127.0.0.1:1234",
            "127.9.9.9:5000",
            "192.0.2.1:5000",
            "198.51.100.1:5000",
            "[::1]:5000",
        ] {
            assert_eq!(
                permit(own, "198.51.100.1:5000", 64),
                Err(DropReason::OwnSource),
                "{own}"
            );
        }
        assert_eq!(
            permit("127.0.0.2:1234", "127.0.0.1:1234", 64),
            Ok(Some(63)),
            "the port of a listener on another address"
        );
        assert_eq!(
            permit("10.0.0.1:4000", "239.1.2.3:5000", 64),
            Err(DropReason::GroupRequest)
        );
        let lifted = ReplyPolicy {
            allow_low_ports: true,
            reply_to_groups: true,
            ttl: Some(9),
        };
        assert_eq!(
            reply_filter.permit(&envelope("10.0.0.1:53", "239.1.2.3:5000", 1), &lifted),
            Ok(Some(9))
        );
    }
}
