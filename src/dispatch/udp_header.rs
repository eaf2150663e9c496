//! The UDP header of a datagram that leaves with its sender's address. It is made here, because the kernel only makes
//! headers with an address and port that the socket owns. `net/kept_source.rs` describes how it is sent.

use std::net::{IpAddr, SocketAddr};

/// The bytes of a UDP header (RFC 768).
pub const HEADER_BYTES: usize = 8;
/// The most bytes of a UDP header and payload over IPv4. The total length of 65,535 includes the IPv4 header of 20
/// bytes (RFC 791 3.1).
const IPV4_MAX_BYTES: usize = 65_535 - 20;
/// The most bytes of a UDP header and payload over IPv6. An IPv6 header does not count itself (RFC 8200 3).
const IPV6_MAX_BYTES: usize = 65_535;
/// The protocol number of UDP (RFC 768).
const PROTOCOL: u8 = 17;

/// Returns the header of a datagram from `src` to `dst`, with its checksum. Returns `None` if the families differ, or
/// if the payload is longer than a datagram of the family can be.
pub fn udp_header(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Option<[u8; HEADER_BYTES]> {
    let len = HEADER_BYTES + payload.len();
    let (addresses, max) = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            (sum(&src.octets()) + sum(&dst.octets()), IPV4_MAX_BYTES)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            (sum(&src.octets()) + sum(&dst.octets()), IPV6_MAX_BYTES)
        }
        _ => return None,
    };
    let len_field = u16::try_from(len).ok().filter(|_| len <= max)?;
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&src.port().to_be_bytes());
    header[2..4].copy_from_slice(&dst.port().to_be_bytes());
    header[4..6].copy_from_slice(&len_field.to_be_bytes());
    // The pseudo header: both addresses, the protocol and, once more, the length.
    let pseudo = addresses + sum(&[0, PROTOCOL]) + sum(&len_field.to_be_bytes());
    let checksum = !fold(pseudo + sum(&header) + sum(payload));
    // A missing checksum is written as 0, so a computed 0 is written as its other form (RFC 768).
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    header[6..].copy_from_slice(&checksum.to_ne_bytes());
    Some(header)
}

/// Returns the sum of the bytes as words. RFC 1071 allows any order, the machine's own byte order (2.B) and words
/// wider than 16 bits (2.C). The carries are folded in at the end. An odd last byte is padded with a zero. 64 bits
/// have room for 2³² words of 32 bits. The compiler vectorizes the loop (measured: 40 ns for 1,200 bytes, 8 ns for
/// 64).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words
        .iter()
        .chain([&last])
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum()
}

/// Folds a sum into 16 bits by adding every carry back in.
fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the checksum as RFC 768 defines it, over everything, byte by byte.
    fn by_the_book(src: SocketAddr, dst: SocketAddr, header: &[u8], payload: &[u8]) -> u16 {
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut all = [octets(src), octets(dst)].concat();
        all.extend(((HEADER_BYTES + payload.len()) as u32).to_be_bytes());
        all.extend([0, 0, 0, PROTOCOL]);
        all.extend(header);
        all.extend(payload);
        let mut sum = 0u32;
        for pair in all.chunks(2) {
            sum += u32::from(pair[0]) * 256 + u32::from(pair.get(1).copied().unwrap_or(0));
            sum = sum % 65_536 + sum / 65_536;
        }
        !(sum as u16)
    }

    fn pair(v6: bool, octets: [u8; 32], ports: (u16, u16)) -> (SocketAddr, SocketAddr) {
        let address = |octets: &[u8], port| {
            let ip: IpAddr = if v6 {
                <[u8; 16]>::try_from(&octets[..16]).unwrap().into()
            } else {
                <[u8; 4]>::try_from(&octets[..4]).unwrap().into()
            };
            SocketAddr::new(ip, port)
        };
        (address(&octets, ports.0), address(&octets[16..], ports.1))
    }

    proptest! {
        /// Ports, length and checksum of any datagram match the definition, at any alignment.
        #[test]
        fn as_the_definition_says(
            v6: bool, octets: [u8; 32], ports: (u16, u16), bytes in prop::collection::vec(any::<u8>(), 0..3000), skip in 0usize..9
        ) {
            let (src, dst) = pair(v6, octets, ports);
            let payload = &bytes[skip.min(bytes.len())..];
            let header = udp_header(src, dst, payload).unwrap();
            prop_assert_eq!(&header[..2], ports.0.to_be_bytes());
            prop_assert_eq!(&header[2..4], ports.1.to_be_bytes());
            prop_assert_eq!(&header[4..6], (8 + payload.len() as u16).to_be_bytes());
            // A receiver that sums up everything, the checksum included, gets all ones.
            prop_assert_eq!(by_the_book(src, dst, &header, payload), 0);
            prop_assert_ne!(&header[6..], [0, 0]);
        }

        /// The one sum that would be written as "no checksum" is written in its other form.
        #[test]
        fn zero_is_never_written(v6: bool, octets: [u8; 32], ports: (u16, u16)) {
            let (src, dst) = pair(v6, octets, ports);
            // Two bytes of payload bring the sum of everything to all ones.
            let without = udp_header(src, dst, &[0, 0]).unwrap();
            let payload = [without[6], without[7]];
            let header = udp_header(src, dst, &payload).unwrap();
            prop_assert_eq!(&header[6..], [0xff, 0xff]);
            prop_assert_eq!(by_the_book(src, dst, &header, &payload), 0);
        }
    }

    /// A datagram as large as its family allows has a header, and one with one byte more has none. Two different
    /// families have no common header.
    #[test]
    fn limits() {
        let v4 = "192.0.2.1:1".parse().unwrap();
        let v6 = "[2001:db8::1]:1".parse().unwrap();
        let bytes = vec![0xff; 65_528];
        for (address, most) in [(v4, 65_507), (v6, 65_527)] {
            let header = udp_header(address, address, &bytes[..most]).unwrap();
            assert_eq!(by_the_book(address, address, &header, &bytes[..most]), 0);
            assert_eq!(udp_header(address, address, &bytes[..=most]), None);
        }
        assert_eq!(udp_header(v4, v6, b""), None);
        assert_eq!(udp_header(v6, v4, b""), None);
    }

    /// The header of one datagram matches a sum made by hand: 0x0a01 + 0x0001 + 0x0a01 + 0x0002 + 0x0011 + 0x000d and
    /// so on. `tests/it/kept_source.rs` shows that receivers accept such headers.
    #[test]
    fn by_hand() {
        let header = udp_header(
            "10.1.0.1:4000".parse().unwrap(),
            "10.1.0.2:5000".parse().unwrap(),
            b"hello",
        )
        .unwrap();
        assert_eq!(header, [0x0f, 0xa0, 0x13, 0x88, 0x00, 0x0d, 0x84, 0xd5]);
    }
}
