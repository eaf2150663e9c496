//! Opens the sockets of listeners, which share a port, and sets the options that other sockets have as well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use super::option::set_int;

/// The options of a listener's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Whether the sockets of several workers share the address, so that the kernel spreads flows over them. Not for
    /// groups: since Linux 6.6 a reuseport group delivers IPv4 multicast to members that never joined.
    pub reuse_port: bool,
    /// The receive buffer in bytes, as passed to SO_RCVBUF.
    pub receive_buffer: usize,
    /// The send buffer for replies in bytes, as passed to SO_SNDBUF.
    pub send_buffer: usize,
    /// Whether the kernel reports the destination, the local address and the interface of each datagram.
    pub destination: bool,
    /// Whether the kernel reports the TTL or hop limit of each datagram.
    pub ttl: bool,
    /// Whether the kernel reports the time of arrival of each datagram.
    pub time: bool,
    /// Whether other programs may bind the address too.
    pub share: bool,
}

/// Opens a bound socket. Further listeners of this process can bind beside it until [`lock`] is called.
///
/// # Errors
/// Returns the error of a system call.
pub fn bind_listener(address: SocketAddr, options: &ListenerOptions) -> io::Result<UdpSocket> {
    let socket = unbound_listener(address, options)?;
    bind(&socket, address)?;
    Ok(socket)
}

/// Opens a socket with all options of a listener, which is not bound yet.
///
/// # Errors
/// Returns the error of a system call.
pub fn unbound_listener(address: SocketAddr, options: &ListenerOptions) -> io::Result<UdpSocket> {
    let socket = new_socket(address)?;
    // A wildcard and a specific address can share a port only with SO_REUSEADDR on both (inet_rcv_saddr_equal and
    // udp_lib_lport_inuse in the kernel); socket(7).
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    free_bind(&socket, address)?;
    let socket = UdpSocket::from(socket);
    configure(&socket, address.is_ipv6(), options)?;
    request_control_data(&socket, address.is_ipv6(), options)?;
    Ok(socket)
}

/// Binds a socket, which receives datagrams from now on.
///
/// # Errors
/// Returns the error of bind(2).
pub fn bind(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).bind(&address.into())
}

/// Sets every option to the given value, whatever it was before. Locks the address unless others may bind it.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn settle(socket: &UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<()> {
    configure(socket, v6, options)?;
    request_control_data(socket, v6, options)?;
    if options.share {
        unlock(socket)
    } else {
        lock(socket)
    }
}

/// Sets the options that do not depend on the routes. The socket may be bound already.
fn configure(socket: &UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<()> {
    set_buffers(
        &SockRef::from(socket),
        options.receive_buffer,
        options.send_buffer,
    )?;
    let (level, multicast_all) = if !v6 {
        (libc::IPPROTO_IP, libc::IP_MULTICAST_ALL)
    } else {
        (libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL)
    };
    // The daemon does not choose the size of replies. If the MTU of a hop is smaller, they are fragmented instead of
    // refused, as for upstreams.
    let (discover, how) = without_discovery(v6);
    set_int(socket, level, discover, how)?;
    // Off, because a datagram to a group that only another socket of this host joined is not for this socket.
    set_int(socket, level, multicast_all, 0)?;
    // Datagrams of a segmenting sender stay together (udp(7)). Kernels before 5.0 do not have it, and it is not
    // required.
    let _ = set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(())
}

/// IPV6_MULTICAST_ALL of include/uapi/linux/in6.h (Linux 4.20).
const IPV6_MULTICAST_ALL: i32 = 29;

/// Opens a UDP socket of the family of the address, which receives nothing of the other family.
pub(super) fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Allows a socket to be bound to an address that is not up yet (IP_FREEBIND in ip(7)).
fn free_bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

/// Sets the size of both buffers, beyond the sysctl limits where the capability allows it (socket(7)).
fn set_buffers(socket: &Socket, receive: usize, send: usize) -> io::Result<()> {
    set_receive_buffer(socket, receive)?;
    set_send_buffer(socket, send)
}

/// Sets the size of the receive buffer.
pub(super) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let clamped = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, clamped)
        .or_else(|_| socket.set_recv_buffer_size(bytes))
}

/// Sets the size of the send buffer.
pub(super) fn set_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let clamped = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, clamped)
        .or_else(|_| socket.set_send_buffer_size(bytes))
}

/// Returns the size of the receive buffer that the kernel granted, in the unit of SO_RCVBUF: the kernel doubles the
/// requested size for its own bookkeeping, and reports the double (socket(7)).
///
/// # Errors
/// Returns the error of getsockopt(2).
pub fn granted_receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(SockRef::from(socket).recv_buffer_size()? / 2)
}

/// Sets which control data the kernel reports with each datagram.
fn request_control_data(socket: &UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<()> {
    control_options(v6, options)
        .into_iter()
        .try_for_each(|(level, option, is_needed)| set_int(socket, level, option, is_needed.into()))
}

/// Requests control data in addition to what is set, since another reader of the socket may rely on that.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn request_more_control_data(
    socket: &UdpSocket,
    v6: bool,
    options: &ListenerOptions,
) -> io::Result<()> {
    let needed = control_options(v6, options)
        .into_iter()
        .filter(|(_, _, is_needed)| *is_needed);
    needed
        .into_iter()
        .try_for_each(|(level, option, _)| set_int(socket, level, option, 1))
}

/// Returns level and number of each option for control data, and whether the listener needs it.
fn control_options(v6: bool, options: &ListenerOptions) -> [(i32, i32, bool); 3] {
    let (level, destination, ttl) = if !v6 {
        (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVTTL)
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_RECVHOPLIMIT,
        )
    };
    let time = (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, options.time);
    [
        (level, destination, options.destination),
        (level, ttl, options.ttl),
        time,
    ]
}

/// Clears SO_REUSEADDR: from now on no socket can be bound over this socket's address, except those of the same user
/// with SO_REUSEPORT. Measured: if it stays set, a socket of any other user that is bound to the same address takes all
/// unicast datagrams.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn lock(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_address(false)
}

/// Returns whether no other socket can be bound over this socket's address.
///
/// # Errors
/// Returns the error of getsockopt(2).
pub fn is_locked(socket: &UdpSocket) -> io::Result<bool> {
    SockRef::from(socket).reuse_address().map(|reuse| !reuse)
}

/// Sets SO_REUSEADDR again: other sockets can be bound to the address, and our own to addresses that overlap.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn unlock(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_address(true)
}

/// Checks that no other socket holds the address or one that overlaps with it: a bind without any reuse is refused
/// then.
///
/// # Errors
/// Returns the error of bind(2), EADDRINUSE if the address is held.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = new_socket(address)?;
    free_bind(&socket, address)?;
    socket.bind(&address.into())
}

/// Returns the option and value with which a hop of a smaller MTU causes fragments instead of failures. In IPv4 the
/// router there makes them, so nothing is lost (ip(7)). In IPv6 only this host can, once the router has reported its
/// MTU, which OMIT would ignore (ip6_sk_accept_pmtu in the kernel).
pub(super) fn without_discovery(v6: bool) -> (i32, i32) {
    if !v6 {
        (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
    } else {
        (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
    }
}

/// Diverts new datagrams from a socket to other sockets, at once and without a loss. The kernel skips a socket that is
/// connected to another peer (compute_score in net/ipv4/udp.c), and this peer sends nothing. New datagrams go to the
/// next best socket, such as the wildcard; those that the socket holds can still be read. Measured: of 100 datagrams to
/// an address with an exact socket and a wildcard, sent after this, all reach the wildcard.
///
/// # Errors
/// Returns the error of connect(2).
pub fn divert_new_datagrams(socket: &UdpSocket) -> io::Result<()> {
    let ip = match socket.local_addr()?.ip() {
        ip if ip.is_unspecified() || ip.is_multicast() => match ip {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        },
        ip => ip,
    };
    // tcpmux (RFC 1078) was never assigned to anything that sends over UDP.
    socket.connect((ip, 1))
}

/// Blocks new datagrams for a socket, which keeps those that it holds. It attaches a socket filter that accepts no
/// byte. The kernel counts what still arrives as dropped.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn block_new_datagrams(socket: impl AsFd) -> io::Result<()> {
    // BPF_RET | BPF_K with 0: keep no byte (include/uapi/linux/bpf_common.h).
    SockRef::from(&socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
}
