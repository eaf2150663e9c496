//! The header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2). It precedes a datagram's
//! payload and gives the upstream the source and destination of the original datagram.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::number;

/// The length of the longest header: the fixed part and an IPv6 address block.
pub const HEADER_MAX_BYTES: usize = FIXED_BYTES + 36;

/// The length of the fixed part: signature, version and command, family and transport, length of the rest.
const FIXED_BYTES: usize = 16;
/// The first bytes of each header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL: the header has no addresses, and the receiver uses those of the datagram itself.
const LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// AF_UNSPEC, UNSPEC.
const UNSPEC: u8 = 0x00;
/// AF_INET, DGRAM: UDP over IPv4.
const UDP_V4: u8 = 0x12;
/// AF_INET6, DGRAM: UDP over IPv6.
const UDP_V6: u8 = 0x22;

/// Writes the header for a datagram from `src` to `dst` and returns its length: 28 bytes for IPv4, 52 for IPv6. If
/// one address is IPv4 and the other IPv6, the IPv4 one is written in its mapped form (RFC 4291 2.5.5.2). If the
/// source is unknown, which is an unspecified address, the command is LOCAL and the header has 16 bytes.
pub fn proxy_v2(src: SocketAddr, dst: SocketAddr, buffer: &mut [u8; HEADER_MAX_BYTES]) -> usize {
    if src.ip().is_unspecified() {
        return write(buffer, LOCAL, UNSPEC, &[]);
    }
    let src_port = src.port().to_be_bytes();
    let dst_port = dst.port().to_be_bytes();
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => write(
            buffer,
            PROXY,
            UDP_V4,
            &[&src.octets(), &dst.octets(), &src_port, &dst_port],
        ),
        (src, dst) => {
            let src = mapped(src).octets();
            let dst = mapped(dst).octets();
            write(buffer, PROXY, UDP_V6, &[&src, &dst, &src_port, &dst_port])
        }
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn write(
    buffer: &mut [u8; HEADER_MAX_BYTES],
    command: u8,
    family: u8,
    addresses: &[&[u8]],
) -> usize {
    let mut end = FIXED_BYTES;
    for part in addresses {
        buffer[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    buffer[..12].copy_from_slice(&SIGNATURE);
    buffer[12..14].copy_from_slice(&[command, family]);
    buffer[14..16].copy_from_slice(&number::to_u16(end - FIXED_BYTES).to_be_bytes());
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(src: &str, dst: &str) -> Vec<u8> {
        let mut buffer = [0xaa; HEADER_MAX_BYTES];
        let used = proxy_v2(src.parse().unwrap(), dst.parse().unwrap(), &mut buffer);
        assert!(
            buffer[used..].iter().all(|byte| *byte == 0xaa),
            "nothing is written behind the header"
        );
        buffer[..used].to_vec()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] * 16 + pair[1])
            .collect()
    }

    const SIGNATURE_HEX: &str = "0d0a0d0a 000d0a51 5549540a";

    /// An IPv4 header has exactly these bytes.
    #[test]
    fn ipv4() {
        let expected = bytes(&format!(
            "{SIGNATURE_HEX} 21 12 000c  c0000207 cb007109 04d2 1388"
        ));
        assert_eq!(header("192.0.2.7:1234", "203.0.113.9:5000"), expected);
        assert_eq!(expected.len(), 28);
    }

    /// An IPv6 header has exactly these bytes. A scope is not part of it.
    #[test]
    fn ipv6() {
        let expected = bytes(&format!(
            "{SIGNATURE_HEX} 21 22 0024
             fe800000 00000000 00000000 00000007  20010db8 00000000 00000000 00000009  ffff 0035"
        ));
        assert_eq!(header("[fe80::7%3]:65535", "[2001:db8::9]:53"), expected);
        assert_eq!(expected.len(), 52);
    }

    /// An address of each family results in an IPv6 header.
    #[test]
    fn two_families() {
        let expected = bytes(&format!(
            "{SIGNATURE_HEX} 21 22 0024
             00000000 00000000 0000ffff c0000207  20010db8 00000000 00000000 00000009  0001 0002"
        ));
        assert_eq!(header("192.0.2.7:1", "[2001:db8::9]:2"), expected);
        let expected = bytes(&format!(
            "{SIGNATURE_HEX} 21 22 0024
             20010db8 00000000 00000000 00000009  00000000 00000000 0000ffff c0000207  0002 0001"
        ));
        assert_eq!(header("[2001:db8::9]:2", "192.0.2.7:1"), expected);
    }

    /// An unknown source results in a header without addresses.
    #[test]
    fn unknown() {
        let expected = bytes(&format!("{SIGNATURE_HEX} 20 00 0000"));
        assert_eq!(header("0.0.0.0:0", "203.0.113.9:5000"), expected);
        assert_eq!(header("[::]:0", "[2001:db8::9]:2"), expected);
    }
}
