//! Descriptors that this process inherited (sd_listen_fds(3)), and the identification of sockets among them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::SockRef;

/// The first descriptor that a service manager passes on (SD_LISTEN_FDS_START in sd-daemon.h), behind the three
/// standard ones.
const FIRST: RawFd = 3;

/// Takes ownership of up to `count` descriptors, from the first on. Returns each with its position. Descriptors that
/// are not open are left out, and so are those that are closed on exec: they cannot be inherited, so they have an owner
/// in this process, such as an earlier caller of this function.
pub(crate) fn take(count: usize) -> Vec<(usize, OwnedFd)> {
    let descriptor = |place: usize| Some((place, FIRST.checked_add(RawFd::try_from(place).ok()?)?));
    (0..count)
        .map_while(descriptor)
        .filter_map(|(place, fd)| Some((place, take_one(fd)?)))
        .collect()
}

/// Takes ownership of one descriptor, unless it is not open or closed on exec.
fn take_one(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the call only reads the flags of a number; it reads, writes and closes no file, whoever owns it.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: the call sets a flag of an open descriptor, which stays open for any owner.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open and was not closed on exec, as everything is that this process opens. Therefore it
    // was inherited and has no owner here. The flag is set now, so no second call takes it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The reason why a descriptor cannot be a listener.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The descriptor is not a UDP socket.
    #[error("it is no UDP socket")]
    NoUdpSocket,
    /// The socket has no port.
    #[error("it is not bound to a port")]
    Unbound,
    /// The socket receives from one peer alone.
    #[error("it is connected to {0}")]
    Connected(SocketAddr),
    /// The socket receives IPv4 datagrams too, and reports other addresses for them than those of the routes.
    #[error("it receives both IPv4 and IPv6; write `BindIPv6Only=ipv6-only` in the socket unit")]
    BothFamilies,
    /// The system refused to identify the descriptor.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A UDP socket that another process bound.
#[derive(Debug)]
pub struct Identified {
    /// The socket, which does not block.
    pub socket: UdpSocket,
    /// The address that the socket is bound to.
    pub address: SocketAddr,
    /// Whether sockets of the same user may share the address, and the kernel spreads datagrams over them.
    pub reuse_port: bool,
    /// The kernel's number of the socket, which all descriptors of one socket share (SO_COOKIE in socket(7)).
    pub cookie: u64,
}

/// Checks that a descriptor is a UDP socket that receives, and identifies it. The socket does not block from now on. A
/// filter that kept datagrams out when an earlier daemon ended (`socket::block_new_datagrams`) is removed.
///
/// # Errors
/// Returns the reason why the descriptor cannot be a listener.
pub fn identify(fd: OwnedFd) -> Result<Identified, Unfit> {
    let is_udp = || -> rustix::io::Result<bool> {
        let family = sockopt::socket_domain(&fd)?;
        let is_internet = family == AddressFamily::INET || family == AddressFamily::INET6;
        let is_udp = sockopt::socket_protocol(&fd)? == Some(rustix::net::ipproto::UDP);
        Ok(is_internet && is_udp && sockopt::socket_type(&fd)? == SocketType::DGRAM)
    };
    match is_udp() {
        Ok(true) => {}
        Ok(false) | Err(rustix::io::Errno::NOTSOCK) => return Err(Unfit::NoUdpSocket),
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let socket = UdpSocket::from(fd);
    let address = socket.local_addr()?;
    if address.port() == 0 {
        return Err(Unfit::Unbound);
    }
    if let Ok(peer) = socket.peer_addr() {
        return Err(Unfit::Connected(peer));
    }
    let options = SockRef::from(&socket);
    if address.is_ipv6() && address.ip().is_unspecified() && !options.only_v6()? {
        return Err(Unfit::BothFamilies);
    }
    // ENOENT as a rule: there is no filter.
    let _ = options.detach_filter();
    let reuse_port = options.reuse_port()?;
    let cookie = options.cookie()?;
    socket.set_nonblocking(true)?;
    Ok(Identified {
        socket,
        address,
        reuse_port,
        cookie,
    })
}

/// Allows sockets of the same user that are bound later to share the address and load of a socket.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn share_port(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_port(true)
}
