//! What decides under `pick = "hash"`, as a number.

use std::net::SocketAddr;

use super::settings::HashOn;
use crate::datagram::Envelope;
use crate::dispatch::maglev::{hash_bytes, mix};

/// The key of a datagram. The same on every machine and in every version.
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
        SocketAddr::V6(v6) => ((v6.ip().to_bits() >> 64) as u64, v6.ip().to_bits() as u64),
    };
    mix(mix(high) ^ low ^ u64::from(port).rotate_left(40))
}
