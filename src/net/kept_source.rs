//! Sends datagrams under the address of their sender: the upstream sees the original sender, and replies to it
//! directly.
//!
//! A UDP socket sends from its own port only. Therefore this is a raw socket with the protocol number of UDP (raw(7)).
//! Each message consists of a UDP header made by `dispatch/udp_header.rs` and the payload. A control message names the
//! source. The kernel makes the IP header and fragments what is larger than the MTU. IP_TRANSPARENT lets it accept a
//! source that is not an address of this host.
//!
//! A raw socket also gets a copy of every datagram that this host receives. Even where a filter or an address keeps the
//! copies out, the kernel examines each such socket for each datagram (raw_v4_input; measured: 9 ns a socket).
//! Therefore the socket is taken out of the kernel's table, and is bound to an address that no datagram is sent to.
//!
//! Each datagram is a message of its own, since raw sockets do not support UDP_SEGMENT. The cost was measured in
//! batches of 64 through a veth device on Linux 6.18, in two runs on a busy machine. It includes the header and the
//! control message. 64 bytes cost 760 and 990 ns; a connected UDP socket needs 650 and 820 ns, and 20 ns with segments.
//! 1,200 bytes cost 850 and 1,090 ns, against 600 and 730 ns. IPv6 costs the same.
//!
//! A source that is not valid, such as a group, or loopback on a route that leaves the host, is refused with EINVAL.
//! Routers and the upstream report errors about such a datagram to its sender, so no ICMP message comes back here. An
//! IPv6 datagram that is too large for a later hop is therefore lost; in IPv4 the hop fragments it. The upstream's host
//! must accept the source. It does not if its rp_filter is strict and its route back to the sender is another one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::address::family;
use super::option::{set_int, socklen};
use super::socket::block_new_datagrams;
use super::upstream::{UpstreamSocketOptions, prepare};

/// The IPv4 dummy address (RFC 7600). According to IANA's registry of special addresses, it is never a destination.
const UNUSED_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// An address of the discard-only prefix (RFC 6666).
const UNUSED_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// Opens a raw socket that is to be connected to an upstream. Each message sent through it begins with a UDP header,
/// and names its source in `Sending::from`. The socket never receives; `receives` and `source` of the options are
/// ignored.
///
/// # Errors
/// Returns EPERM where the capability is missing, for which [`hint`] returns an explanation, or another error of the
/// system calls.
pub fn kept_source_socket(
    upstream: SocketAddr,
    options: &UpstreamSocketOptions,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(upstream),
        Type::RAW.nonblocking(),
        Some(Protocol::UDP),
    )?;
    block_new_datagrams(&socket)?;
    socket.set_recv_buffer_size(0)?;
    leave_table(&socket)?;
    prepare(&socket, upstream, options)?;
    let (level, transparent, unused): (_, _, IpAddr) = match upstream {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT, UNUSED_V4.into()),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, UNUSED_V6.into()),
    };
    set_int(&socket, level, transparent, 1)?;
    socket.bind(&SocketAddr::new(unused, 0).into())?;
    Ok(socket.into())
}

/// Takes a raw socket out of the table in which the kernel looks up received datagrams. Dissolving a connection does
/// so, even if there is none (__udp_disconnect in net/ipv4/udp.c, which raw sockets share); neither bind(2) nor
/// connect(2) undoes it. It also resets address and interface, so it comes first.
fn leave_table(socket: &Socket) -> io::Result<()> {
    let unspecified = libc::sockaddr {
        sa_family: family(libc::AF_UNSPEC),
        sa_data: [0; 14],
    };
    let fd = socket.as_raw_fd();
    let len = socklen::<libc::sockaddr>();
    // SAFETY: the descriptor is borrowed for the call and `unspecified` is a readable sockaddr of `len` bytes.
    match unsafe { libc::connect(fd, &raw const unspecified, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the remedy for an error of [`kept_source_socket`], if the cause is a missing capability.
pub fn hint(error: &io::Error) -> Option<String> {
    let program =
        std::env::current_exe().map_or("PATH".to_owned(), |path| path.display().to_string());
    (error.raw_os_error() == Some(libc::EPERM)).then(|| {
        format!(
            "source = \"keep\" needs the capability CAP_NET_RAW: `sudo setcap cap_net_raw,cap_net_bind_service=+ep \
             {program}`, AmbientCapabilities= in a unit, or run as root"
        )
    })
}
