//! PROXY headers and UDP headers, which are built from addresses that a client chooses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::input::Input;
use crate::dispatch::proxy_header::{HEADER_MAX_BYTES, proxy_v2};
use crate::dispatch::udp_header::udp_header;

/// Checks the writers of both headers. A PROXY header is read back as the same two addresses, by a reader that follows
/// the specification (haproxy's proxy-protocol.txt, section 2.2), and nothing is written after it. The checksum of a
/// UDP header is correct (RFC 768, RFC 8200 section 8.1).
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (src, dst) = (input.socket_address(), input.socket_address());
    let mut buffer = [0xaa; HEADER_MAX_BYTES];
    let used = proxy_v2(src, dst, &mut buffer);
    assert!(
        buffer[used..].iter().all(|byte| *byte == 0xaa),
        "bytes after the header are written"
    );
    let read = read_proxy(&buffer[..used]);
    if src.ip().is_unspecified() {
        assert_eq!(read, None, "an unknown source is LOCAL");
    } else if src.is_ipv4() == dst.is_ipv4() {
        assert_eq!(read, Some((src, dst)));
    } else {
        assert_eq!(read, Some((mapped(src), mapped(dst))));
    }
    let payload = input.rest();
    if let Some(header) = udp_header(src, dst, payload) {
        check_udp(src, dst, &header, payload);
    } else {
        let fits = payload.len() <= usize::from(u16::MAX) - header_bytes(&src);
        assert!(
            src.is_ipv4() != dst.is_ipv4() || !fits,
            "a datagram of {} bytes has no header",
            payload.len()
        );
    }
}

/// Returns the bytes of the UDP header, and of the IPv4 header, which the length of an IPv4 packet includes.
fn header_bytes(address: &SocketAddr) -> usize {
    if address.is_ipv4() { 28 } else { 8 }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

/// Returns the addresses of a version 2 header; `None` for the command LOCAL.
fn read_proxy(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (fixed, addresses) = header.split_at(16);
    assert_eq!(&fixed[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(
        usize::from(u16::from_be_bytes([fixed[14], fixed[15]])),
        addresses.len()
    );
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    match (fixed[12], fixed[13]) {
        (0x20, 0x00) => {
            assert!(addresses.is_empty());
            None
        }
        (0x21, 0x12) => {
            let ip = |at: usize| IpAddr::from(*addresses[at..].first_chunk::<4>().expect("IPv4"));
            Some((
                SocketAddr::new(ip(0), port(8)),
                SocketAddr::new(ip(4), port(10)),
            ))
        }
        (0x21, 0x22) => {
            let ip =
                |at: usize| Ipv6Addr::from(*addresses[at..].first_chunk::<16>().expect("IPv6"));
            let address = |at: usize, port| SocketAddr::new(ip(at).into(), port);
            Some((address(0, port(32)), address(16, port(34))))
        }
        other => panic!("command and family {other:x?}"),
    }
}

/// Checks that the ones' complement sum over the pseudo header, the header and the payload is all ones.
fn check_udp(src: SocketAddr, dst: SocketAddr, header: &[u8; 8], payload: &[u8]) {
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let len = u16::try_from(8 + payload.len()).expect("a length that fits");
    assert_eq!(
        (number(0), number(2), number(4)),
        (src.port(), dst.port(), len)
    );
    assert_ne!(number(6), 0, "0 means that there is no checksum");
    let mut bytes = Vec::new();
    for ip in [src.ip(), dst.ip()] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend([0, 17]);
    bytes.extend(len.to_be_bytes());
    bytes.extend(header);
    bytes.extend(payload);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum: u64 = words.map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert_eq!(sum, 0xffff, "the checksum of {src} > {dst}");
}
