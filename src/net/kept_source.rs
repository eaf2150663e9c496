//! Sending under somebody else's address: the upstream sees who sent a datagram, and answers there by itself.
//!
//! A UDP socket sends from its own port only. So this is a raw socket of UDP's number (raw(7)): each message is a UDP header
//! made by `dispatch/udp_header.rs` and the payload, and a control message names the source. The kernel makes the IP
//! header and fragments what is larger than the MTU. IP_TRANSPARENT lets it take a source that is not this host's.
//!
//! A raw socket also gets a copy of every datagram that this host receives, unless it is bound to an address that the
//! datagram was not sent to (raw_v4_match, raw_v6_match in the kernel). So it is bound to one that nobody has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::option::set_int;
use super::socket::close_door;
use super::upstream::{UpstreamOptions, prepare};

/// The IPv4 dummy address: never a destination (RFC 7600 4.8).
const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// An address of the discard-only prefix (RFC 6666).
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// A raw socket to be connected to an upstream. What is sent through it begins with a UDP header and names its source as
/// `Sending::from`. It never receives; `receives` and `source` of the options are passed over. EPERM where the capability is
/// missing, for which [`hint`] has words.
pub fn kept_source_socket(upstream: SocketAddr, options: &UpstreamOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::RAW.nonblocking(), Some(Protocol::UDP))?;
    close_door(&socket)?;
    socket.set_recv_buffer_size(0)?;
    prepare(&socket, upstream, options)?;
    let (level, transparent, nobody): (_, _, IpAddr) = match upstream {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT, NOBODY_V4.into()),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, NOBODY_V6.into()),
    };
    set_int(&socket, level, transparent, 1)?;
    socket.bind(&SocketAddr::new(nobody, 0).into())?;
    Ok(socket.into())
}

/// What to do about an error of [`kept_source_socket`], if it is a missing capability.
pub fn hint(error: &io::Error) -> Option<String> {
    let program = std::env::current_exe().map_or("PATH".to_owned(), |path| path.display().to_string());
    (error.raw_os_error() == Some(libc::EPERM)).then(|| {
        format!(
            "source = \"keep\" needs the capability CAP_NET_RAW: `sudo setcap cap_net_raw,cap_net_bind_service=+ep \
             {program}`, AmbientCapabilities= in a unit, or run as root"
        )
    })
}
