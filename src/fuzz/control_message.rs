//! Control messages as the kernel delivers them, and as they are written for it.

use super::input::Input;
use crate::net::control_message::{Received, SEND_BYTES, Sending, parse};

/// A `struct cmsghdr` without data, of a level that no option has.
const UNKNOWN: [u8; 16] = [16, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];

/// Checks the reader and the writer of control messages. Arbitrary bytes are read without a panic. An unknown message
/// before them changes nothing, and a known one is read whatever follows it. Written messages are read back as the
/// same, and are as long as their headers state.
///
/// # Panics
///
/// Panics if one of these properties does not hold.
pub fn run(bytes: &[u8]) {
    let received = parse(bytes);
    assert_eq!(
        parse(&[&UNKNOWN, bytes].concat()),
        received,
        "an unknown message is skipped"
    );
    round_trip(bytes);
}

fn round_trip(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let from = input.option(Input::ip);
    let sending = Sending {
        segment: input.number16(),
        from,
        interface: input.number32(),
        ttl: input.option(Input::byte),
        v6: from.is_some_and(|from| from.is_ipv6()),
    };
    let mut buffer = [0xaa; SEND_BYTES];
    let used = sending.write(&mut buffer);
    assert!(
        buffer[used..].iter().all(|byte| *byte == 0xaa),
        "bytes after the messages are written"
    );
    let (written, rest) = (&buffer[..used], input.rest());
    assert_eq!(
        message_bytes(written),
        used,
        "the messages are as long as their headers state"
    );
    let received = parse(written);
    assert_eq!(received.ttl, sending.ttl);
    if let Some(from) = from {
        assert_eq!(received.interface, sending.interface);
        // in_pktinfo has the sender's address in ipi_spec_dst; in6_pktinfo has one address only (ip(7), ipv6(7)).
        let read = if from.is_ipv6() {
            received.destination
        } else {
            received.local
        };
        assert_eq!(read, Some(from));
    }
    // Messages that follow are read as well, or not at all.
    let both = parse(&[written, rest].concat());
    let alone = parse(rest);
    let either =
        |both: Option<u8>, first: Option<u8>, second: Option<u8>| both == first || both == second;
    assert!(
        either(both.ttl, received.ttl, alone.ttl),
        "{both:?} of {received:?} and {alone:?}"
    );
    assert_eq!(both.time_ns, alone.time_ns);
    assert_eq!(Received { ..both }, both);
}

/// Returns the sum of the lengths in the headers, each rounded up to the alignment (CMSG_NXTHDR of cmsg(3)).
fn message_bytes(mut messages: &[u8]) -> usize {
    let mut sum = 0;
    while let Some(len) = messages.first_chunk::<8>() {
        let space = usize::from_ne_bytes(*len).next_multiple_of(size_of::<usize>());
        sum += space;
        messages = &messages[space..];
    }
    sum
}
