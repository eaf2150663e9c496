//! Sockets for probes: connected to one upstream, and closed as soon as it has replied or failed to.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::errno::{self, ProbeError};
use super::option::bind_to_interface;

/// The source address and interface of a probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The source address; `None` leaves the choice to the kernel. The port is ignored: another socket sends from it.
    pub from: Option<SocketAddr>,
    /// The index of the interface to send through; 0 leaves the choice to the kernel.
    pub interface: u32,
}

/// Opens a UDP socket that receives from this upstream alone.
///
/// # Errors
/// Returns the error of a system call, which `errno::of_probe` classifies.
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

/// Begins a TCP connection; the socket becomes writable when it is established or has failed.
///
/// # Errors
/// Returns the error of a system call, which `errno::of_probe` classifies.
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

/// Sets the interface and binds the source address.
fn leave(socket: &Socket, to: SocketAddr, leaving: Leaving) -> io::Result<()> {
    if leaving.interface != 0 {
        // This works for TCP too, unlike IP_UNICAST_IF, which connect(2) ignores there (tcp_v4_connect in the kernel).
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
