//! Sockets for probes: connected to one upstream, and left as soon as it has answered or failed to.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::errno::{self, ProbeError};
use super::option::bind_to_interface;

/// How a probe leaves this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The address to send from, if not the kernel's choice. The port is not looked at: it belongs to somebody else's
    /// datagrams.
    pub from: Option<SocketAddr>,
    /// Index of the interface to leave through; 0: the kernel's choice.
    pub interface: u32,
}

/// A socket that hears this upstream alone.
pub fn udp(to: SocketAddr, leaving: Leaving) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(to),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    // The file names the upstream, so a broadcast address there is meant (SO_BROADCAST in socket(7)).
    socket.set_broadcast(true)?;
    leave(&socket, to, leaving)?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// A connection that is under way.
pub fn tcp(to: SocketAddr, leaving: Leaving) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(to),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    leave(&socket, to, leaving)?;
    match socket.connect(&to.into()) {
        Err(error) if errno::of_probe(&error) != ProbeError::Wait => Err(error),
        _ => Ok(socket.into()),
    }
}

fn leave(socket: &Socket, to: SocketAddr, leaving: Leaving) -> io::Result<()> {
    if leaving.interface != 0 {
        // For TCP too, unlike IP_UNICAST_IF, which its connect(2) does not look at (tcp_v4_connect in the kernel).
        bind_to_interface(socket, leaving.interface)?;
    }
    let Some(mut from) = leaving.from else {
        return Ok(());
    };
    from.set_port(0);
    if let (SocketAddr::V6(from), SocketAddr::V6(to)) = (&mut from, to)
        && from.ip().is_unicast_link_local()
        && from.scope_id() == 0
    {
        // A link-local address cannot be bound without its link: EINVAL (ipv6(7)).
        from.set_scope_id(if leaving.interface != 0 {
            leaving.interface
        } else {
            to.scope_id()
        });
    }
    socket.bind(&from.into())
}
