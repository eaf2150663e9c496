//! Makes the listeners, which share a port, and has what other sockets are made with too.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::option::set_int;

/// How a listener is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Workers' sockets share the address and the kernel spreads flows over them. Not for groups: since Linux 6.6 a
    /// reuseport group hands IPv4 multicast to members that never joined.
    pub reuse_port: bool,
    /// Receive buffer in bytes, as given to SO_RCVBUF.
    pub receive_buffer: usize,
    /// Send buffer in bytes, for answers.
    pub send_buffer: usize,
    /// Tell the destination, the local address and the interface of each datagram.
    pub destination: bool,
    /// Tell the TTL or hop limit of each datagram.
    pub ttl: bool,
    /// Tell the receive time of each datagram.
    pub time: bool,
}

/// A socket that is bound and lets further listeners of this process bind beside it until [`lock`] is called.
pub fn bind_listener(address: SocketAddr, options: &ListenerOptions) -> io::Result<UdpSocket> {
    let socket = new_socket(address)?;
    // A wildcard and a specific address can share a port only with SO_REUSEADDR on both (inet_rcv_saddr_equal and
    // udp_lib_lport_inuse in the kernel); socket(7).
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    set_buffers(&socket, options.receive_buffer, options.send_buffer)?;
    let (level, destination, ttl, multicast_all) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_MULTICAST_ALL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, IPV6_MULTICAST_ALL),
    };
    // Answers are as large as they are: where a hop is smaller, fragments instead of failures, as for upstreams.
    let (discover, how) = without_discovery(address);
    set_int(&socket, level, discover, how)?;
    // Off: a datagram to a group that anyone on this host joined is not ours.
    set_int(&socket, level, multicast_all, 0)?;
    set_int(&socket, level, destination, i32::from(options.destination))?;
    set_int(&socket, level, ttl, i32::from(options.ttl))?;
    set_int(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, i32::from(options.time))?;
    // Datagrams of a segmenting sender stay together: udp(7). Kernels before 5.0 do not know it, and we do not need it.
    let _ = set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    free_bind(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// IPV6_MULTICAST_ALL of include/uapi/linux/in6.h (Linux 4.20).
const IPV6_MULTICAST_ALL: i32 = 29;

/// A UDP socket of the address's family, which takes nothing of the other.
pub(super) fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Lets a socket be bound to an address that is not up yet (IP_FREEBIND in ip(7)).
fn free_bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

/// Sets both buffers as large as asked, past the sysctl limits where the capability allows (socket(7)).
fn set_buffers(socket: &Socket, receive: usize, send: usize) -> io::Result<()> {
    set_receive_buffer(socket, receive)?;
    set_send_buffer(socket, send)
}

/// Sets the receive buffer alone.
pub(super) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let clamped = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, clamped).or_else(|_| socket.set_recv_buffer_size(bytes))
}

/// Sets the send buffer alone.
pub(super) fn set_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let clamped = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, clamped).or_else(|_| socket.set_send_buffer_size(bytes))
}

/// The receive buffer that the kernel granted, in the unit of SO_RCVBUF: it doubles what it is told, for its own
/// bookkeeping, and reports the double (socket(7)).
pub fn granted_receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(socket2::SockRef::from(socket).recv_buffer_size()? / 2)
}

/// Clears SO_REUSEADDR: from now on nobody can bind over this socket's address, except for sockets of the same user with
/// SO_REUSEPORT. Measured: left on, any other user's socket bound to the same address takes all its unicast datagrams.
pub fn lock(socket: &UdpSocket) -> io::Result<()> {
    socket2::SockRef::from(socket).set_reuse_address(false)
}

/// Whether someone holds the address or one that overlaps with it: a bind without any reuse is refused then.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = new_socket(address)?;
    free_bind(&socket, address)?;
    socket.bind(&address.into())
}

/// Where a hop is smaller, fragments instead of failures. In IPv4 the router there makes them, so nothing is lost (ip(7)). In
/// IPv6 only we can, once it has told us its MTU, which OMIT would not hear (ip6_sk_accept_pmtu in the kernel).
pub(super) fn without_discovery(address: SocketAddr) -> (i32, i32) {
    match address {
        SocketAddr::V4(_) => (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        SocketAddr::V6(_) => (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    }
}

/// Lets nothing new into a socket, and keeps what it holds: a socket filter that takes no byte of anything. What still
/// arrives is counted as dropped by the kernel.
pub fn close_door(socket: impl AsFd) -> io::Result<()> {
    // BPF_RET | BPF_K with 0: keep no byte (include/uapi/linux/bpf_common.h).
    socket2::SockRef::from(&socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
}
