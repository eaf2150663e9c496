//! Writes datagrams as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark and tshark open. The kernel delivers
//! only payloads, so IP and UDP headers are built from the metadata that it reports. The packet's comment says what the
//! daemon did with the datagram.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::dispatch::udp_header::{HEADER_BYTES, udp_header};
use crate::number;

/// LINKTYPE_RAW: each packet begins with its IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;
/// Timestamps in nanoseconds, as a power of ten (if_tsresol).
const NANOSECONDS: u8 = 9;
/// The TTL in a header if that of the datagram is unknown, because the daemon did not request it from the kernel.
const TTL: u8 = 64;
/// Largest size of a comment in bytes; an option has room for 65,535.
const COMMENT_BYTES_MAX: usize = 4_096;
/// The protocol number of UDP (RFC 768).
const PROTOCOL: u8 = 17;

/// Types of blocks (section 4 of the draft).
mod block {
    pub const SECTION: u32 = 0x0a0d_0d0a;
    pub const INTERFACE: u32 = 1;
    pub const STATISTICS: u32 = 5;
    pub const PACKET: u32 = 6;
}

/// Codes of options. Each block type has its own codes.
mod option {
    pub const END: u16 = 0;
    pub const COMMENT: u16 = 1;
    pub const INTERFACE_NAME: u16 = 2;
    pub const PACKET_FLAGS: u16 = 2;
    pub const SECTION_APPLICATION: u16 = 4;
    pub const STATISTICS_RECEIVED: u16 = 4;
    pub const STATISTICS_DROPPED: u16 = 5;
    pub const TIME_RESOLUTION: u16 = 9;
}

/// A pcapng file that is being written.
pub(crate) struct Capture<W> {
    file: W,
    block: Vec<u8>,
}

/// A datagram to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Time of receipt, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Source and destination; `None` if they are unknown.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// Whether the datagram leaves this host.
    pub leaves: bool,
    /// Size of the payload in bytes.
    pub len: usize,
    /// The bytes of the payload that were copied.
    pub payload: &'a [u8],
    /// What the daemon did with the datagram.
    pub comment: &'a str,
}

impl<W: Write> Capture<W> {
    /// Writes the header of the file.
    pub(crate) fn begin(file: W) -> io::Result<Capture<W>> {
        let mut capture = Capture {
            file,
            block: Vec::new(),
        };
        // The byte-order magic, version 1.0, and an unknown section length.
        capture.put(&0x1a2b_3c4d_u32.to_ne_bytes());
        capture.put(&1_u16.to_ne_bytes());
        capture.put(&0_u16.to_ne_bytes());
        capture.put(&(-1_i64).to_ne_bytes());
        capture.option(
            option::SECTION_APPLICATION,
            concat!("udispatch ", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        capture.end(block::SECTION)?;
        capture.put(&LINKTYPE_RAW.to_ne_bytes());
        capture.put(&0_u16.to_ne_bytes());
        // No limit to the length of a packet.
        capture.put(&0_u32.to_ne_bytes());
        capture.option(option::INTERFACE_NAME, b"udispatch");
        capture.option(option::TIME_RESOLUTION, &[NANOSECONDS]);
        capture.end(block::INTERFACE)?;
        Ok(capture)
    }

    /// Writes a datagram.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let (src, dst) = packet
            .ends
            .filter(|(src, dst)| src.is_ipv4() == dst.is_ipv4())
            .unwrap_or((nowhere, nowhere));
        let udp = udp(src, dst, packet);
        let ip = ip(
            src.ip(),
            dst.ip(),
            HEADER_BYTES + packet.len,
            packet.ttl.unwrap_or(TTL),
        );
        let headers = ip.len() + udp.len();
        self.put(&0_u32.to_ne_bytes());
        self.time(packet.time_ns);
        self.put(&number::to_u32(headers + packet.payload.len()).to_ne_bytes());
        self.put(&number::to_u32(headers + packet.len).to_ne_bytes());
        self.put(&ip);
        self.put(&udp);
        self.put(packet.payload);
        self.pad();
        let comment = packet.comment;
        let end = (0..=comment.len().min(COMMENT_BYTES_MAX))
            .rev()
            .find(|end| comment.is_char_boundary(*end));
        self.option(option::COMMENT, &comment.as_bytes()[..end.unwrap_or(0)]);
        // The direction, inbound or outbound, is in the lowest two bits.
        self.option(
            option::PACKET_FLAGS,
            &if packet.leaves { 2_u32 } else { 1 }.to_ne_bytes(),
        );
        self.end(block::PACKET)
    }

    /// Writes statistics: how many datagrams matched until then, and how many of them are missing.
    pub(crate) fn statistics(&mut self, time_ns: u64, matched: u64, missed: u64) -> io::Result<()> {
        self.put(&0_u32.to_ne_bytes());
        self.time(time_ns);
        self.option(option::STATISTICS_RECEIVED, &matched.to_ne_bytes());
        self.option(option::STATISTICS_DROPPED, &missed.to_ne_bytes());
        self.end(block::STATISTICS)
    }

    /// Flushes all data to the underlying writer.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    /// Appends a timestamp: the upper half comes first, in either byte order.
    fn time(&mut self, time_ns: u64) {
        self.put(&((time_ns >> 32) as u32).to_ne_bytes());
        self.put(&((time_ns & 0xffff_ffff) as u32).to_ne_bytes());
    }

    /// Pads to a multiple of four bytes, at which every field begins.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, number: u16, value: &[u8]) {
        self.put(&number.to_ne_bytes());
        self.put(&number::to_u16(value.len()).to_ne_bytes());
        self.put(value);
        self.pad();
    }

    /// Writes the block: its type, its length before and after, and its content between them.
    fn end(&mut self, kind: u32) -> io::Result<()> {
        self.option(option::END, &[]);
        let len = number::to_u32(self.block.len() + 12).to_ne_bytes();
        for part in [&kind.to_ne_bytes(), &len, &*self.block, &len] {
            self.file.write_all(part)?;
        }
        self.block.clear();
        Ok(())
    }
}

/// Returns the lower 16 bits of a length, as a header holds them. The tap shows a joined datagram as it was handled,
/// which may be too long for any header; the upper bits of its length are then lost.
fn low_half(len: usize) -> u16 {
    let [low, high, ..] = len.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Returns the UDP header. The checksum is 0 if the payload was cut off or is too long for a header, since it cannot be
/// computed then.
fn udp(src: SocketAddr, dst: SocketAddr, packet: &Packet<'_>) -> [u8; HEADER_BYTES] {
    let made = (packet.payload.len() == packet.len)
        .then(|| udp_header(src, dst, packet.payload))
        .flatten();
    made.unwrap_or_else(|| {
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&src.port().to_be_bytes());
        header[2..4].copy_from_slice(&dst.port().to_be_bytes());
        header[4..6].copy_from_slice(&low_half(HEADER_BYTES + packet.len).to_be_bytes());
        header
    })
}

/// Returns the IPv4 header (RFC 791) or IPv6 header (RFC 8200) of a datagram with `len` bytes after the header.
fn ip(src: IpAddr, dst: IpAddr, len: usize, ttl: u8) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(low_half(len).to_be_bytes());
            header.extend([PROTOCOL, ttl]);
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        (src, dst) => {
            let octets = |ip: IpAddr| {
                if let IpAddr::V4(ip) = ip {
                    ip.octets()
                } else {
                    [0; 4]
                }
            };
            let mut header = vec![0x45, 0];
            header.extend(low_half(len + 20).to_be_bytes());
            header.extend([0, 0, 0, 0, ttl, PROTOCOL, 0, 0]);
            header.extend(octets(src));
            header.extend(octets(dst));
            let words = header
                .as_chunks::<2>()
                .0
                .iter()
                .map(|word| u32::from(u16::from_be_bytes(*word)));
            let sum: u32 = words.sum();
            // Ten words carry at most once more after the first fold (RFC 1071).
            let folded = (sum & 0xffff) + (sum >> 16);
            let sum = (folded & 0xffff) + (folded >> 16);
            let checksum = !((sum & 0xffff) as u16);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the blocks of a file: type and content. The lengths before and after must be equal, and a multiple of
    /// four.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let len = word(&bytes[4..]) as usize;
            assert!(len.is_multiple_of(4) && word(&bytes[len - 4..]) as usize == len);
            blocks.push((word(bytes), &bytes[8..len - 4]));
            bytes = &bytes[len..];
        }
        blocks
    }

    proptest! {
        /// For any datagram, the file is a sequence of whole blocks, and the packet is as long as its headers say.
        #[test]
        fn blocks_are_whole(
            v6: bool, payload in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..400, comment: String, ttl: Option<u8>
        ) {
            let (src, dst) = if v6 {
                ("[2001:db8::1]:9".parse().unwrap(), "[2001:db8::2]:53".parse().unwrap())
            } else {
                ("192.0.2.1:9".parse().unwrap(), "192.0.2.2:53".parse().unwrap())
            };
            let kept = &payload[..cut.min(payload.len())];
            let ends = Some((src, dst));
            let len = payload.len();
            let leaves = v6;
            let mut file = Vec::new();
            let mut capture = Capture::begin(&mut file).unwrap();
            capture.packet(&Packet { time_ns: 5, ends, ttl, leaves, len, payload: kept, comment: &comment }).unwrap();
            capture.statistics(6, 1, 0).unwrap();
            let kinds: Vec<u32> = blocks(&file).iter().map(|block| block.0).collect();
            prop_assert_eq!(kinds, [block::SECTION, block::INTERFACE, block::PACKET, block::STATISTICS]);
            let packet = blocks(&file)[2].1;
            let number = |at: usize| u32::from_ne_bytes(packet[at..at + 4].try_into().unwrap()) as usize;
            let headers = if v6 { 48 } else { 28 };
            prop_assert_eq!((number(12), number(16)), (headers + kept.len(), headers + len));
            prop_assert_eq!(&packet[20 + headers..][..kept.len()], kept);
        }
    }
}
