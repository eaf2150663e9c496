//! Makes the listeners, which share a port, and has what other sockets are made with too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

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
    /// Other programs may have the address too.
    pub share: bool,
}

/// A socket that is bound and lets further listeners of this process bind beside it until [`lock`] is called.
pub fn bind_listener(address: SocketAddr, options: &ListenerOptions) -> io::Result<UdpSocket> {
    let socket = unbound_listener(address, options)?;
    bind(&socket, address)?;
    Ok(socket)
}

/// The same, but it is not bound yet.
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

/// Binds it: from now on it gets datagrams.
pub fn bind(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).bind(&address.into())
}

/// Sets everything as the options say, whatever it was before, and locks it unless others may have the address.
pub fn settle(socket: &UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<()> {
    configure(socket, v6, options)?;
    request_control_data(socket, v6, options)?;
    if options.share {
        unlock(socket)
    } else {
        lock(socket)
    }
}

/// Sets what does not depend on the routes. On a socket that is bound already as well.
fn configure(socket: &UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<()> {
    set_buffers(
        &SockRef::from(socket),
        options.receive_buffer,
        options.send_buffer,
    )?;
    let (level, multicast_all) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_MULTICAST_ALL),
        true => (libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL),
    };
    // Answers are as large as they are: where a hop is smaller, fragments instead of failures, as for upstreams.
    let (discover, how) = without_discovery(v6);
    set_int(socket, level, discover, how)?;
    // Off: a datagram to a group that anyone on this host joined is not ours.
    set_int(socket, level, multicast_all, 0)?;
    // Datagrams of a segmenting sender stay together: udp(7). Kernels before 5.0 do not know it, and we do not need it.
    let _ = set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(())
}

/// IPV6_MULTICAST_ALL of include/uapi/linux/in6.h (Linux 4.20).
const IPV6_MULTICAST_ALL: i32 = 29;

/// A UDP socket of the address's family, which takes nothing of the other.
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
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, clamped)
        .or_else(|_| socket.set_recv_buffer_size(bytes))
}

/// Sets the send buffer alone.
pub(super) fn set_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let clamped = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, clamped)
        .or_else(|_| socket.set_send_buffer_size(bytes))
}

/// The receive buffer that the kernel granted, in the unit of SO_RCVBUF: it doubles what it is told, for its own
/// bookkeeping, and reports the double (socket(7)).
pub fn granted_receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(SockRef::from(socket).recv_buffer_size()? / 2)
}

/// Says what the kernel is to tell of each datagram.
fn request_control_data(socket: &UdpSocket, v6: bool, options: &ListenerOptions) -> io::Result<()> {
    control_data_options(v6, options)
        .into_iter()
        .try_for_each(|(level, option, wanted)| set_int(socket, level, option, wanted.into()))
}

/// The same, but takes nothing back that somebody else who reads the socket may rely on.
pub fn request_more_control_data(
    socket: &UdpSocket,
    v6: bool,
    options: &ListenerOptions,
) -> io::Result<()> {
    let wanted = control_data_options(v6, options)
        .into_iter()
        .filter(|(_, _, wanted)| *wanted);
    wanted
        .into_iter()
        .try_for_each(|(level, option, _)| set_int(socket, level, option, 1))
}

/// The options behind what a listener wants to know.
fn control_data_options(v6: bool, options: &ListenerOptions) -> [(i32, i32, bool); 3] {
    let (level, destination, ttl) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVTTL),
        true => (
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_RECVHOPLIMIT,
        ),
    };
    let time = (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, options.time);
    [
        (level, destination, options.destination),
        (level, ttl, options.ttl),
        time,
    ]
}

/// Clears SO_REUSEADDR: from now on nobody can bind over this socket's address, except for sockets of the same user with
/// SO_REUSEPORT. Measured: left on, any other user's socket bound to the same address takes all its unicast datagrams.
pub fn lock(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_address(false)
}

/// Whether nobody can bind over this socket's address.
pub fn is_locked(socket: &UdpSocket) -> io::Result<bool> {
    SockRef::from(socket).reuse_address().map(|reuse| !reuse)
}

/// Sets it again: others may bind the address too, and sockets of ours to addresses that overlap.
pub fn unlock(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_address(true)
}

/// Whether someone holds the address or one that overlaps with it: a bind without any reuse is refused then.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = new_socket(address)?;
    free_bind(&socket, address)?;
    socket.bind(&address.into())
}

/// Where a hop is smaller, fragments instead of failures. In IPv4 the router there makes them, so nothing is lost (ip(7)). In
/// IPv6 only we can, once it has told us its MTU, which OMIT would not hear (ip6_sk_accept_pmtu in the kernel).
pub(super) fn without_discovery(v6: bool) -> (i32, i32) {
    match v6 {
        false => (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        true => (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    }
}

/// Takes a socket out of the kernel's search for receivers, at once and without a loss: connected to a peer that sends nothing,
/// it is passed over (compute_score in net/ipv4/udp.c), and what comes goes to the next best, such as the wildcard. What it
/// holds can still be read. Measured: of 100 datagrams to an address with an exact socket and a wildcard, sent after
/// this, all reach the wildcard.
pub fn turn_away(socket: &UdpSocket) -> io::Result<()> {
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

/// Lets nothing new into a socket, and keeps what it holds: a socket filter that takes no byte of anything. What still
/// arrives is counted as dropped by the kernel.
pub fn close_door(socket: impl AsFd) -> io::Result<()> {
    // BPF_RET | BPF_K with 0: keep no byte (include/uapi/linux/bpf_common.h).
    SockRef::from(&socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
}
