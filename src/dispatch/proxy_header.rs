//! PROXY protocol v2.
use std::net::SocketAddr;
/// Bytes of the longest header.
pub const PROXY_BYTES_MAX: usize = 52;
/// To be replaced.
pub fn proxy_v2(_: SocketAddr, _: SocketAddr, _: &mut [u8; 52]) -> usize {
    0
}
