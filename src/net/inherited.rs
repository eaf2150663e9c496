//! Descriptors that this process was born with (sd_listen_fds(3)), and what a socket among them is.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::SockRef;

/// The first descriptor that a service manager hands over (SD_LISTEN_FDS_START in sd-daemon.h): the standard three stand
/// before it.
const FIRST: RawFd = 3;

/// Takes so many descriptors from the first on, each with its place. Left out is what is not open, and what is closed on
/// exec: so it cannot have been inherited and belongs to somebody in this process, such as an earlier caller of this.
pub(crate) fn take(count: usize) -> Vec<(usize, OwnedFd)> {
    let descriptor = |place: usize| Some((place, FIRST.checked_add(RawFd::try_from(place).ok()?)?));
    (0..count)
        .map_while(descriptor)
        .filter_map(|(place, fd)| Some((place, take_one(fd)?)))
        .collect()
}

fn take_one(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: a number is asked about; nothing is read, written or closed, whosever it is.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: a flag is set on a descriptor that is open; whoever would have it open still has.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open and was not closed on exec, as everything is that this process opens, so it was inherited and has no
    // owner here; now it is, so nobody takes it a second time.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Why a descriptor is not one to receive datagrams with.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is something else.
    #[error("it is no UDP socket")]
    NoUdpSocket,
    /// It has no port.
    #[error("it is not bound to a port")]
    Unbound,
    /// It hears one peer alone.
    #[error("it is connected to {0}")]
    Connected(SocketAddr),
    /// It takes IPv4 datagrams too, and shows them with other addresses than those of the routes.
    #[error(
        "it takes IPv4 datagrams beside IPv6: write `BindIPv6Only=ipv6-only` in the socket unit"
    )]
    BothFamilies,
    /// The system refused to tell.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A UDP socket that somebody else bound.
#[derive(Debug)]
pub struct Identified {
    /// The socket.
    pub socket: UdpSocket,
    /// What it is bound to.
    pub address: SocketAddr,
    /// Whether sockets of the same user may share the address and have the datagrams spread over them.
    pub reuse_port: bool,
    /// The kernel's number of the socket, which two descriptors of one socket have in common (SO_COOKIE in socket(7)).
    pub cookie: u64,
}

/// Makes sure that a descriptor is a UDP socket that receives, and says which. It does not block from now on, and what kept
/// datagrams out of it when a daemon before this one ended (`socket::close_door`) is taken away.
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
    // ENOENT as a rule: there is none.
    let _ = options.detach_filter();
    let (reuse_port, cookie) = (options.reuse_port()?, options.cookie()?);
    socket.set_nonblocking(true)?;
    Ok(Identified {
        socket,
        address,
        reuse_port,
        cookie,
    })
}

/// Lets sockets of the same user that are bound later share a socket's address and load.
pub fn share_port(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_port(true)
}
