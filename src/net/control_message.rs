//! Control messages: the data that the kernel reports beside the payload, and the options of a send call.
//!
//! They are read and written as bytes, and every length is checked. Therefore this file needs no unsafe code, and
//! arbitrary bytes do no harm. The layout is that of cmsg(3): struct cmsghdr is a usize length and two ints, and data
//! is aligned to usize.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ALIGN: usize = size_of::<usize>();
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// Returns the bytes that a control message with so much data takes (CMSG_SPACE).
const fn space(data: usize) -> usize {
    HEADER + data.next_multiple_of(ALIGN)
}

/// The size of struct in_pktinfo: interface index, local address, header destination (ip(7)).
const IN_PKTINFO: usize = 12;
/// The size of struct in6_pktinfo: address, interface index (ipv6(7)).
const IN6_PKTINFO: usize = 20;
/// The size of struct timespec on 64-bit Linux.
const TIMESPEC: usize = 16;

/// The largest size of the control messages of one received train: segment size, destination, TTL and time, each in the
/// larger family.
pub const RECEIVE_BYTES: usize =
    space(size_of::<i32>()) + space(IN6_PKTINFO) + space(size_of::<i32>()) + space(TIMESPEC);
/// The largest size of the control messages of one send call: segment size, source, TTL.
pub const SEND_BYTES: usize =
    space(size_of::<u16>()) + space(IN6_PKTINFO) + space(size_of::<i32>());

/// The control data of a received train.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// The destination address in the datagram's header.
    pub destination: Option<IpAddr>,
    /// The address of this host that a reply leaves from. For IPv6 groups the kernel does not report it.
    pub local: Option<IpAddr>,
    /// The index of the interface that the train arrived on; 0 if it was not reported.
    pub interface: u32,
    /// The TTL or hop limit that was left on arrival.
    pub ttl: Option<u8>,
    /// The size in bytes of each datagram but the last, if several arrived as one train; 0 otherwise.
    pub segment: u16,
    /// The time of arrival in nanoseconds since 1970.
    pub time_ns: Option<u64>,
}

/// Parses the control messages of one received train. Unknown messages, and everything behind a malformed one, are
/// ignored.
#[inline]
pub fn parse(mut bytes: &[u8]) -> Received {
    let mut received = Received::default();
    while let Some((kind, data, rest)) = next(bytes) {
        read(&mut received, kind, data);
        bytes = rest;
    }
    received
}

/// The level and type of a message, which name the socket option that it belongs to.
pub(super) type OptionId = (i32, i32);

/// Returns the option and the data of the first message, and the bytes behind it; `None` if there is none or it is
/// malformed.
pub(super) fn next(bytes: &[u8]) -> Option<(OptionId, &[u8], &[u8])> {
    let len = usize::from_ne_bytes(take(bytes, 0)?);
    let level = i32::from_ne_bytes(take(bytes, size_of::<usize>())?);
    let kind = i32::from_ne_bytes(take(bytes, size_of::<usize>() + size_of::<i32>())?);
    let data = bytes.get(HEADER..len)?;
    let rest = bytes
        .get(len.checked_next_multiple_of(ALIGN)?..)
        .unwrap_or_default();
    Some(((level, kind), data, rest))
}

/// Returns the `N` bytes at offset `at`, if they exist.
pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Stores the data of one message. Returns `None` if it is too short or out of range, which leaves the field as it was.
fn read(received: &mut Received, kind: OptionId, data: &[u8]) -> Option<()> {
    match kind {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            received.segment = u16::try_from(i32::from_ne_bytes(take(data, 0)?)).ok()?;
        }
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            received.interface = u32::from_ne_bytes(take(data, 0)?);
            received.local = Some(Ipv4Addr::from(take::<4>(data, 4)?).into());
            received.destination = Some(Ipv4Addr::from(take::<4>(data, 8)?).into());
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let destination = Ipv6Addr::from(take::<16>(data, 0)?);
            received.interface = u32::from_ne_bytes(take(data, 16)?);
            received.destination = Some(destination.into());
            let local = if destination.is_multicast() {
                Ipv6Addr::UNSPECIFIED
            } else {
                destination
            };
            received.local = Some(local.into());
        }
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
            received.ttl = u8::try_from(i32::from_ne_bytes(take(data, 0)?)).ok();
        }
        (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
            let seconds = u64::try_from(i64::from_ne_bytes(take(data, 0)?)).ok()?;
            let nanoseconds = u64::try_from(i64::from_ne_bytes(take(data, 8)?)).ok()?;
            received.time_ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds);
        }
        _ => {}
    }
    Some(())
}

/// The options that a send call passes to the kernel beside the payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sending {
    /// The size in bytes of the datagrams that the kernel cuts the payload into (UDP_SEGMENT); 0 sends it as one.
    pub segment: u16,
    /// The source address. The unspecified address leaves the choice on the interface to the kernel.
    pub from: Option<IpAddr>,
    /// The index of the interface to send through; 0 leaves the choice to the kernel.
    pub interface: u32,
    /// The TTL or hop limit of the datagrams; `None` leaves it to the socket.
    pub ttl: Option<u8>,
    /// Whether the socket is an IPv6 socket.
    pub v6: bool,
}

impl Sending {
    /// Writes the control messages into `buffer`, which has room for every combination. Returns their length in bytes.
    pub fn write(&self, buffer: &mut [u8; SEND_BYTES]) -> usize {
        let mut used = 0;
        if self.segment != 0 {
            put(
                buffer,
                &mut used,
                (libc::SOL_UDP, libc::UDP_SEGMENT),
                &self.segment.to_ne_bytes(),
            );
        }
        match self.from {
            Some(IpAddr::V4(from)) => {
                let mut data = [0; IN_PKTINFO];
                data[..4].copy_from_slice(&self.interface.to_ne_bytes());
                data[4..8].copy_from_slice(&from.octets());
                put(
                    buffer,
                    &mut used,
                    (libc::IPPROTO_IP, libc::IP_PKTINFO),
                    &data,
                );
            }
            Some(IpAddr::V6(from)) => {
                let mut data = [0; IN6_PKTINFO];
                data[..16].copy_from_slice(&from.octets());
                data[16..].copy_from_slice(&self.interface.to_ne_bytes());
                put(
                    buffer,
                    &mut used,
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
                    &data,
                );
            }
            None => {}
        }
        if let Some(ttl) = self.ttl {
            let kind = if self.v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
            } else {
                (libc::IPPROTO_IP, libc::IP_TTL)
            };
            put(buffer, &mut used, kind, &i32::from(ttl).to_ne_bytes());
        }
        used
    }
}

/// Appends one control message at `used`, and advances `used` behind it.
fn put(buffer: &mut [u8; SEND_BYTES], used: &mut usize, kind: OptionId, data: &[u8]) {
    let message = &mut buffer[*used..*used + space(data.len())];
    message.fill(0);
    message[..8].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
    message[8..12].copy_from_slice(&kind.0.to_ne_bytes());
    message[12..16].copy_from_slice(&kind.1.to_ne_bytes());
    message[HEADER..HEADER + data.len()].copy_from_slice(data);
    *used += message.len();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// No bytes make the parser fail, read past its input or loop.
        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        /// No well-formed headers around arbitrary kinds, lengths and data make it fail either.
        #[test]
        fn arbitrary_messages_are_survived(
            messages in prop::collection::vec((0usize..80, 0i32..60, 0i32..120, prop::collection::vec(any::<u8>(), 0..40)), 0..6)
        ) {
            let mut bytes = Vec::new();
            for (len, level, kind, data) in messages {
                bytes.extend_from_slice(&len.to_ne_bytes());
                bytes.extend_from_slice(&level.to_ne_bytes());
                bytes.extend_from_slice(&kind.to_ne_bytes());
                bytes.extend_from_slice(&data);
                bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            }
            parse(&bytes);
        }

        /// Messages that this file writes are parsed to the same source, TTL and interface, in both families.
        #[test]
        fn written_messages_are_read(segment in 0u16..9000, v6: bool, interface: u32, ttl in prop::option::of(any::<u8>()), octets: [u8; 16]) {
            let from: IpAddr = if v6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::from_bits(u32::from_ne_bytes(octets[..4].try_into().unwrap())).into() };
            let mut buffer = [0xaa; SEND_BYTES];
            let used = Sending { segment, from: Some(from), interface, ttl, v6 }.write(&mut buffer);
            let received = parse(&buffer[..used]);
            prop_assert_eq!(received.interface, interface);
            prop_assert_eq!(received.ttl, ttl);
            if v6 { prop_assert_eq!(received.destination, Some(from)) } else { prop_assert_eq!(received.local, Some(from)) }
        }
    }
}
