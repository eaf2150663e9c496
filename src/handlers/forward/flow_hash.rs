//! The key of a datagram under `pick = "hash"`.

use std::net::SocketAddr;

use super::config::HashOn;
use crate::datagram::Envelope;
use crate::dispatch::maglev::{hash_bytes, mix};

/// Computes the key of a datagram. It is the same on every machine and in every version, so that all of them pick the
/// same upstream.
pub fn key_of(on: HashOn, envelope: &Envelope, payload: &[u8]) -> u64 {
    match on {
        HashOn::Source => of_address(envelope.src, envelope.src.port()),
        HashOn::SourceAddress => of_address(envelope.src, 0),
        HashOn::Destination => of_address(envelope.dst, envelope.dst.port()),
        HashOn::Payload { offset, length } => {
            let first = usize::from(offset).min(payload.len());
            let end = (first + usize::from(length)).min(payload.len());
            hash_bytes(&payload[first..end])
        }
    }
}

fn of_address(address: SocketAddr, port: u16) -> u64 {
    let (high, low) = match address {
        SocketAddr::V4(v4) => (0, u64::from(v4.ip().to_bits())),
        SocketAddr::V6(v6) => (
            (v6.ip().to_bits() >> 64) as u64,
            (v6.ip().to_bits() & 0xffff_ffff_ffff_ffff) as u64,
        ),
    };
    mix(mix(high) ^ low ^ u64::from(port).rotate_left(40))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form of `hash_on` depends on its part of the datagram, and on nothing else.
    #[test]
    fn what_decides() {
        let envelope = |src: &str, dst: &str| {
            let src: SocketAddr = src.parse().unwrap();
            let dst: SocketAddr = dst.parse().unwrap();
            Envelope {
                src,
                dst,
                local: dst,
                interface: 0,
                ttl: None,
                time_ns: None,
            }
        };
        let payload = HashOn::Payload {
            offset: 1,
            length: 2,
        };
        let first = (
            envelope("10.0.0.1:4000", "[2001:db8::1]:53"),
            b"abcd".as_slice(),
        );
        // For each change: whether the key stays the same by source, source address, destination and payload.
        let changes = [
            (
                envelope("10.0.0.1:4001", "[2001:db8::1]:53"),
                b"abcd".as_slice(),
                [false, true, true, true],
            ),
            (
                envelope("10.0.0.2:4000", "[2001:db8::1]:53"),
                b"abcd",
                [false, false, true, true],
            ),
            (
                envelope("10.0.0.1:4000", "[2001:db8::1]:54"),
                b"abcd",
                [true, true, false, true],
            ),
            (
                envelope("10.0.0.1:4000", "[2001:db8:0:1::1]:53"),
                b"abcd",
                [true, true, false, true],
            ),
            (
                envelope("10.0.0.1:4000", "[2001:db8::1]:53"),
                b"xbcx",
                [true, true, true, true],
            ),
            (
                envelope("10.0.0.1:4000", "[2001:db8::1]:53"),
                b"abxd",
                [true, true, true, false],
            ),
            (
                envelope("10.0.0.1:4000", "[2001:db8::1]:53"),
                b"a",
                [true, true, true, false],
            ),
        ];
        for (envelope, bytes, same) in changes {
            let ways = [
                HashOn::Source,
                HashOn::SourceAddress,
                HashOn::Destination,
                payload,
            ];
            let found =
                ways.map(|on| key_of(on, &envelope, bytes) == key_of(on, &first.0, first.1));
            assert_eq!(found, same, "{envelope:?} {bytes:?}");
        }
    }
}
