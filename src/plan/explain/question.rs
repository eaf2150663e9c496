//! The datagram that is imagined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::diagnostics::quoted;
use crate::config::limits::PAYLOAD_BYTES_MAX;
use crate::config::test::SENDER_PORT;
use crate::plan::host::Host;

/// A datagram to imagine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imagined {
    /// Its destination.
    pub to: SocketAddr,
    /// Its source, if that matters.
    pub from: Option<SocketAddr>,
    /// Name or address of the interface that it arrives on.
    pub interface: Option<String>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The datagram to imagine.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its destination.
    pub to: SocketAddr,
    /// Its source.
    pub from: SocketAddr,
    /// The interface it arrives on, if that is not left to the host.
    pub interface: Option<u32>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Question {
    /// What is imagined, with what the host adds to it. The error is a sentence.
    pub fn new(imagined: Imagined, host: &Host) -> Result<Question, String> {
        let Imagined {
            to,
            from,
            interface,
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
            payload,
        })
    }
}

/// This host itself: as it would send there, and loopback where it cannot.
fn likely_sender(to: IpAddr, host: &Host) -> IpAddr {
    let loopback = if to.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let source = (host.look_up)(to).ok().and_then(|answer| answer.source);
    source
        .filter(|source| !to.is_loopback() && !source.is_unspecified())
        .unwrap_or(loopback)
}
