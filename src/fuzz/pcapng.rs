//! Captures in pcapng format.

use super::input::Input;
use crate::cli::pcapng::{Capture, Packet};
use crate::config::limits::PAYLOAD_BYTES_MAX;

/// Checks the writer of captures, by a reader that follows draft-ietf-opsawg-pcapng. A capture is a sequence of whole
/// blocks. Each packet block holds the payload, the lengths, the time and the comment of its packet, and headers that
/// agree with them.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut file = Vec::new();
    let mut capture = Capture::begin(&mut file).expect("a Vec takes everything");
    let mut packets = Vec::new();
    let mut comments = Vec::new();
    while !input.is_empty() {
        let (time_ns, ttl, leaves) = (input.number64(), input.option(Input::byte), input.flag());
        let ends = input.option(|input| (input.socket_address(), input.socket_address()));
        let comment_len = usize::from(input.number16());
        comments.push(String::from_utf8_lossy(input.bytes(comment_len)).into_owned());
        let len = usize::from(input.number16());
        let payload = input.bytes(len);
        // The datagram may have been longer than its copy, and is never longer than UDP allows.
        let len = (payload.len() + usize::from(input.number16())).min(PAYLOAD_BYTES_MAX);
        let payload = &payload[..payload.len().min(len)];
        packets.push(Packet {
            time_ns,
            ends,
            ttl,
            leaves,
            len,
            payload,
            comment: "",
        });
    }
    for (packet, comment) in packets.iter_mut().zip(&comments) {
        packet.comment = comment;
        capture.packet(packet).expect("a Vec takes everything");
    }
    capture
        .statistics(7, packets.len() as u64, 0)
        .expect("a Vec takes everything");
    capture.flush().expect("a Vec takes everything");
    check(&file, &packets);
}

fn check(file: &[u8], packets: &[Packet<'_>]) {
    let blocks = blocks(file);
    let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
    let (head, rest) = kinds.split_at(2);
    let (middle, tail) = rest.split_at(packets.len());
    assert_eq!(head, [0x0a0d_0d0a, 1], "a section and an interface");
    assert!(middle.iter().all(|kind| *kind == 6), "packets: {middle:?}");
    assert_eq!(tail, [5], "statistics");
    for ((_, body), packet) in blocks[2..].iter().zip(packets) {
        check_packet(body, packet);
    }
}

fn check_packet(body: &[u8], packet: &Packet<'_>) {
    let number = |at: usize| u32::from_ne_bytes(*body[at..].first_chunk().expect("a number"));
    let time = u64::from(number(4)) << 32 | u64::from(number(8));
    assert_eq!((number(0), time), (0, packet.time_ns));
    let (captured, original) = (number(12) as usize, number(16) as usize);
    let (data, options) = body[20..].split_at(captured.next_multiple_of(4));
    let headers = if data[0] >> 4 == 6 { 48 } else { 28 };
    assert_eq!(captured, headers + packet.payload.len());
    assert_eq!(original, headers + packet.len);
    assert_eq!(&data[headers..captured], packet.payload);
    let udp = &data[headers - 8..];
    assert_eq!(
        usize::from(u16::from_be_bytes([udp[4], udp[5]])),
        8 + packet.len
    );
    if headers == 28 {
        let words = data[..20].as_chunks::<2>().0.iter();
        let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        assert_eq!(
            (sum & 0xffff) + (sum >> 16),
            0xffff,
            "the checksum of the IPv4 header"
        );
        assert_eq!(
            usize::from(u16::from_be_bytes([data[2], data[3]])),
            28 + packet.len
        );
    } else {
        assert_eq!(
            usize::from(u16::from_be_bytes([data[4], data[5]])),
            8 + packet.len
        );
    }
    check_options(options, packet);
}

fn check_options(mut options: &[u8], packet: &Packet<'_>) {
    let mut comment = None;
    let mut flags = None;
    loop {
        let number = u16::from_ne_bytes([options[0], options[1]]);
        let len = usize::from(u16::from_ne_bytes([options[2], options[3]]));
        let value = &options[4..4 + len];
        options = &options[4 + len.next_multiple_of(4)..];
        match number {
            0 => break,
            1 => comment = Some(std::str::from_utf8(value).expect("a comment is UTF-8")),
            2 => flags = value.first_chunk().map(|flags| u32::from_ne_bytes(*flags)),
            other => panic!("option {other}"),
        }
    }
    assert!(options.is_empty(), "bytes after the last option");
    assert_eq!(flags, Some(if packet.leaves { 2 } else { 1 }));
    let comment = comment.expect("a comment");
    assert!(packet.comment.starts_with(comment));
    assert!(
        comment.len() == packet.comment.len() || comment.len() > 4_092,
        "a comment is cut too early"
    );
}

/// Returns the types and the bodies of the blocks.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let number = |bytes: &[u8]| u32::from_ne_bytes(*bytes.first_chunk().expect("a number"));
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let len = number(&file[4..]) as usize;
        assert!(len.is_multiple_of(4) && len >= 12, "a block of {len} bytes");
        assert_eq!(
            number(&file[len - 4..]) as usize,
            len,
            "the length at the end of a block"
        );
        blocks.push((number(file), &file[8..len - 4]));
        file = &file[len..];
    }
    blocks
}
