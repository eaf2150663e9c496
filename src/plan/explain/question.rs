//! The datagram that `explain` simulates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::diagnostics::quoted;
use crate::config::limits::PAYLOAD_BYTES_MAX;
use crate::config::test::SENDER_PORT;
use crate::plan::host::Host;

/// The TTL of a datagram for which the user names none: the initial value of most hosts.
pub const TTL: u8 = 64;

/// An imagined datagram as the user describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imagined {
    /// The destination address.
    pub to: SocketAddr,
    /// The source address; `None` for a likely one.
    pub from: Option<SocketAddr>,
    /// The name or an address of the interface that the datagram arrives on; `None` leaves the choice to the host.
    pub interface: Option<String>,
    /// The TTL or hop limit that the datagram arrives with.
    pub ttl: u8,
    /// The bytes of the payload.
    pub payload: Vec<u8>,
}

/// An imagined datagram with everything that the host adds to its description.
#[derive(Debug, Clone)]
pub struct Question {
    /// The destination address.
    pub to: SocketAddr,
    /// The source address.
    pub from: SocketAddr,
    /// The index of the interface that the datagram arrives on; `None` leaves the choice to the host.
    pub interface: Option<u32>,
    /// The TTL or hop limit that the datagram arrives with.
    pub ttl: u8,
    /// The bytes of the payload.
    pub payload: Vec<u8>,
}

impl Question {
    /// Completes an imagined datagram with facts about the host.
    ///
    /// # Errors
    ///
    /// Returns a sentence for the user if the payload is too long or the two addresses are of different families. The
    /// same applies if the host does not have the interface.
    pub fn new(imagined: Imagined, host: &Host) -> Result<Question, String> {
        let Imagined {
            to,
            from,
            interface,
            ttl,
            payload,
        } = imagined;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "--payload: a datagram holds at most {PAYLOAD_BYTES_MAX} bytes"
            ));
        }
        let from =
            from.unwrap_or_else(|| SocketAddr::new(likely_sender(to.ip(), host), SENDER_PORT));
        if from.is_ipv4() != to.is_ipv4() {
            return Err(format!(
                "--from {from} and --to {to} are of different families"
            ));
        }
        let find = |name: &String| {
            let none = || {
                format!(
                    "--interface: this host has no interface {}; it has: {}",
                    quoted(name),
                    host.list()
                )
            };
            host.interface(name).ok_or_else(none)
        };
        let interface = interface.as_ref().map(find).transpose()?;
        Ok(Question {
            to,
            from,
            interface,
            ttl,
            payload,
        })
    }
}

/// Returns the address of this host that the kernel would send from, or the loopback address if there is none.
fn likely_sender(to: IpAddr, host: &Host) -> IpAddr {
    let loopback = if to.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let source = (host.look_up)(to).ok().and_then(|route| route.source);
    source
        .filter(|source| !to.is_loopback() && !source.is_unspecified())
        .unwrap_or(loopback)
}
