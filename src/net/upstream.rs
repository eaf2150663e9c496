//! Sockets to upstreams.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::option::set_int;
use super::socket;

/// How a socket to an upstream is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// Send buffer in bytes.
    pub send_buffer: usize,
    /// It receives answers.
    pub receives: bool,
    /// TTL or hop limit.
    pub ttl: Option<u8>,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
    /// Source address; port 0 is the kernel's choice.
    pub source: Option<SocketAddr>,
    /// Interface index, 0: the kernel's choice.
    pub interface: u32,
    /// Whether this host hears what is sent to a group.
    pub loop_back: bool,
}

/// A socket to be connected to an upstream.
pub fn upstream_socket(upstream: SocketAddr, options: &UpstreamOptions) -> io::Result<UdpSocket> {
    let socket = socket::upstream_socket(upstream, options.send_buffer)?;
    if options.receives {
        socket2::SockRef::from(&socket).detach_filter()?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(212_992)?;
        let _ = set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    if let Some(ttl) = options.ttl {
        set_ttl(&socket, upstream.is_ipv6(), ttl)?;
    }
    Ok(socket)
}

/// Changes the TTL or hop limit that a socket sends with.
pub fn set_ttl(socket: &UdpSocket, v6: bool, ttl: u8) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
    set_int(socket, level, option, i32::from(ttl))
}
