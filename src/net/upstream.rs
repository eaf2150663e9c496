//! Sockets to upstreams: source address and interface, TTL and traffic class, to one host or to a group.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::Socket;

use super::option::{bind_to_interface, interface_index, set, set_int};
use super::socket::{
    block_new_datagrams, new_socket, set_receive_buffer, set_send_buffer, without_discovery,
};

/// The options of a socket to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamSocketOptions {
    /// The send buffer in bytes, as passed to SO_SNDBUF.
    pub send_buffer: usize,
    /// Whether the socket receives replies. Otherwise a filter refuses whatever comes back, instead of filling a buffer
    /// that is never read.
    pub receives: bool,
    /// The TTL or hop limit; `None` is the default of the host, and 1 to a group.
    pub ttl: Option<u8>,
    /// The differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: Option<u8>,
    /// The source address; port 0 leaves the choice to the kernel. Workers share a fixed port by SO_REUSEPORT, and then
    /// the kernel delivers the replies of one upstream to whichever of them it finds first.
    pub source: Option<SocketAddr>,
    /// The index of the interface that datagrams leave through; 0 leaves the choice to the kernel.
    pub interface: u32,
    /// Whether sockets on this host receive what is sent to a group.
    pub loop_back: bool,
}

impl UpstreamSocketOptions {
    /// Returns options that leave everything to the kernel, for a socket that only sends.
    #[cfg(any(test, feature = "internals"))]
    pub fn plain(send_buffer: usize) -> UpstreamSocketOptions {
        UpstreamSocketOptions {
            send_buffer,
            receives: false,
            ttl: None,
            dscp: None,
            source: None,
            interface: 0,
            loop_back: true,
        }
    }
}

/// The receive buffer in bytes of a socket that receives replies: room for some thousand small ones, or 450 of full
/// size. It takes memory only for what it holds.
const REPLIES_BYTES: usize = 1 << 20;

/// Opens a socket that is to be connected to an upstream; sending is 12 % cheaper than with an address at each send.
/// Where the socket has a source, it can receive datagrams of any sender before it is connected, so a reader of replies
/// checks their source.
///
/// # Errors
/// Returns the error of a system call.
pub fn upstream_socket(
    upstream: SocketAddr,
    options: &UpstreamSocketOptions,
) -> io::Result<UdpSocket> {
    let socket = new_socket(upstream)?;
    if options.receives {
        set_receive_buffer(&socket, REPLIES_BYTES)?;
    } else {
        block_new_datagrams(&socket)?;
        socket.set_recv_buffer_size(0)?;
    }
    prepare(&socket, upstream, options)?;
    if let Some(source) = options.source {
        socket.set_reuse_port(source.port() != 0)?;
        socket.bind(&source.into())?;
    }
    Ok(socket.into())
}

/// Sets the options that every socket to an upstream has, whatever builds its headers.
pub(super) fn prepare(
    socket: &Socket,
    upstream: SocketAddr,
    options: &UpstreamSocketOptions,
) -> io::Result<()> {
    set_send_buffer(socket, options.send_buffer)?;
    let (level, errors) = match upstream {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let (discover, how) = without_discovery(upstream.is_ipv6());
    set_int(socket, level, discover, how)?;
    // Without it, the kernel does not report datagrams that a full device queue drops (udp_send_skb in the kernel). The
    // socket serves this upstream alone. `error_queue` drains its errors, or else they take no more than the receive
    // buffer.
    set_int(socket, level, errors, 1)?;
    // The file names the upstream, so a broadcast address there is meant (SO_BROADCAST in socket(7)).
    socket.set_broadcast(true)?;
    if let Some(dscp) = options.dscp {
        let (level, class) = match upstream {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        // The two bits below are for congestion notification (RFC 3168 5).
        set_int(socket, level, class, i32::from(dscp) << 2)?;
    }
    if upstream.ip().is_multicast() {
        to_group(socket, upstream, options)
    } else {
        to_host(socket, upstream, options)
    }
}

/// Sets the options that only sockets to a single host have.
fn to_host(
    socket: &Socket,
    upstream: SocketAddr,
    options: &UpstreamSocketOptions,
) -> io::Result<()> {
    if let Some(ttl) = options.ttl {
        set_ttl(socket, upstream.is_ipv6(), Some(ttl))?;
    }
    if options.interface != 0 {
        bind_to_interface(socket, options.interface)?;
    }
    Ok(())
}

/// Sets the options that only sockets to a group have: ip(7), ipv6(7). They must be set before connect(2), which looks
/// up the route.
fn to_group(socket: &Socket, group: SocketAddr, options: &UpstreamSocketOptions) -> io::Result<()> {
    let (level, ttl, loop_back) = match group {
        SocketAddr::V4(_) => (
            libc::IPPROTO_IP,
            libc::IP_MULTICAST_TTL,
            libc::IP_MULTICAST_LOOP,
        ),
        SocketAddr::V6(_) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MULTICAST_HOPS,
            libc::IPV6_MULTICAST_LOOP,
        ),
    };
    set_int(socket, level, loop_back, i32::from(options.loop_back))?;
    if let Some(hops) = options.ttl {
        set_int(socket, level, ttl, i32::from(hops))?;
    }
    if options.interface == 0 {
        return Ok(());
    }
    let interface = interface_index(options.interface)?;
    if group.is_ipv6() {
        return set_int(socket, level, libc::IPV6_MULTICAST_IF, interface);
    }
    let unspecified = libc::in_addr { s_addr: 0 };
    let request = libc::ip_mreqn {
        imr_multiaddr: unspecified,
        imr_address: unspecified,
        imr_ifindex: interface,
    };
    set(socket, level, libc::IP_MULTICAST_IF, &request)
}

/// Sets the TTL or hop limit of what a socket sends to single hosts from now on: 1 to 255, or 0 in IPv6; `None` is the
/// default of the host.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn set_ttl(socket: impl AsFd, v6: bool, ttl: Option<u8>) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL)
    };
    // do_ip_setsockopt and ipv6_setsockopt in the kernel take -1 for it.
    set_int(socket, level, option, ttl.map_or(-1, i32::from))
}
