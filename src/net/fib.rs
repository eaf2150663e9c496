//! Queries the kernel's route to a destination: its kind (local, broadcast, multicast or elsewhere), its interface and
//! its source address. A query is one RTM_GETROUTE request over rtnetlink(7). No state is kept.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::number;

/// The kernel's route for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRoute {
    /// The kind of the destination.
    pub kind: DestinationKind,
    /// The index of the interface that a datagram to the destination leaves through.
    pub interface: u32,
    /// The address of this host that it leaves from, where the kernel prefers one.
    pub source: Option<IpAddr>,
}

/// The route types of rtnetlink(7) that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationKind {
    /// RTN_LOCAL: an address of this host.
    Local,
    /// RTN_BROADCAST: a broadcast address of a network of this host.
    Broadcast,
    /// RTN_MULTICAST: a group.
    Multicast,
    /// RTN_UNICAST and everything else: another host.
    Elsewhere,
}

/// The address families as struct rtmsg has them, in one byte.
const AF_INET: u8 = libc::AF_INET.to_le_bytes()[0];
const AF_INET6: u8 = libc::AF_INET6.to_le_bytes()[0];
/// NLM_F_REQUEST as struct nlmsghdr has it, in 16 bits.
const NLM_F_REQUEST: u16 = number::to_u16(libc::NLM_F_REQUEST.cast_unsigned() as usize);

/// The size of struct nlmsghdr.
const NLMSG_HEADER: usize = 16;
/// The size of struct rtmsg.
const RTMSG: usize = 12;
/// The size of struct rtattr.
const RTA_HEADER: usize = 4;

/// Looks up a destination in the routing tables of the host.
///
/// # Errors
/// Returns the kernel's error: ENETUNREACH where there is no route. A reply that is malformed is `InvalidData`.
pub fn look_up(destination: IpAddr) -> io::Result<KernelRoute> {
    let mut socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    // The kernel replies at once; the limit only keeps a defect from blocking a start.
    socket.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
    socket.write_all(&request(destination))?;
    let mut reply = [0u8; 4096];
    let len = socket.read(&mut reply)?;
    parse(&reply[..len])
}

/// Returns the bytes of a RTM_GETROUTE request for the destination.
fn request(destination: IpAddr) -> Vec<u8> {
    let (family, prefix_bits, octets) = match destination {
        IpAddr::V4(ip) => (AF_INET, 32, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, 128, ip.octets().to_vec()),
    };
    let attribute = RTA_HEADER + octets.len();
    let total = NLMSG_HEADER + RTMSG + attribute;
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&number::to_u32(total).to_ne_bytes());
    bytes.extend_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // Sequence and port: one request, one reply.
    bytes.extend_from_slice(&[family, prefix_bits]);
    bytes.resize(NLMSG_HEADER + RTMSG, 0);
    bytes.extend_from_slice(&number::to_u16(attribute).to_ne_bytes());
    bytes.extend_from_slice(&libc::RTA_DST.to_ne_bytes());
    bytes.extend_from_slice(&octets);
    bytes
}

/// Parses the reply to a request.
fn parse(bytes: &[u8]) -> io::Result<KernelRoute> {
    let malformed = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "rtnetlink sent a malformed reply",
        )
    };
    let kind = u16::from_ne_bytes(field(bytes, 4).ok_or_else(malformed)?);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let errno = i32::from_ne_bytes(field(bytes, NLMSG_HEADER).ok_or_else(malformed)?);
        return Err(io::Error::from_raw_os_error(-errno));
    }
    let kind = match *bytes.get(NLMSG_HEADER + 7).ok_or_else(malformed)? {
        libc::RTN_LOCAL => DestinationKind::Local,
        libc::RTN_BROADCAST => DestinationKind::Broadcast,
        libc::RTN_MULTICAST => DestinationKind::Multicast,
        _ => DestinationKind::Elsewhere,
    };
    let mut reply = KernelRoute {
        kind,
        interface: 0,
        source: None,
    };
    let mut rest = bytes.get(NLMSG_HEADER + RTMSG..).unwrap_or_default();
    while let Some((kind, data, after)) = attribute(rest) {
        match (kind, data.len()) {
            (libc::RTA_OIF, 4) => {
                reply.interface = u32::from_ne_bytes(field(data, 0).ok_or_else(malformed)?);
            }
            (libc::RTA_PREFSRC, 4) => {
                reply.source = field::<4>(data, 0).map(|ip| Ipv4Addr::from(ip).into());
            }
            (libc::RTA_PREFSRC, 16) => {
                reply.source = field::<16>(data, 0).map(|ip| Ipv6Addr::from(ip).into());
            }
            _ => {}
        }
        rest = after;
    }
    Ok(reply)
}

/// Returns type and data of the first attribute, and the bytes behind it.
fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::from(u16::from_ne_bytes(field(bytes, 0)?));
    let kind = u16::from_ne_bytes(field(bytes, 2)?);
    let data = bytes.get(RTA_HEADER..len)?;
    Some((
        kind,
        data,
        bytes.get(len.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// Returns the `N` bytes at offset `at`, if they exist.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel reports loopback as local; no truncated message makes the parser fail.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn loopback_is_local() {
        if let Ok(reply) = look_up(Ipv4Addr::LOCALHOST.into()) {
            assert_eq!((reply.kind, reply.interface), (DestinationKind::Local, 1));
        }
        let good = request(Ipv4Addr::LOCALHOST.into());
        for len in 0..good.len() {
            let _ = parse(&good[..len]);
        }
    }
}
