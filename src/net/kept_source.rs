//! Sending under somebody else's address: the upstream sees who sent a datagram, and answers there by itself.
//!
//! A UDP socket sends from its own port only. So this is a raw socket of UDP's number (raw(7)): each message is a UDP header
//! made by `dispatch/udp_header.rs` and the payload, and a control message names the source. The kernel makes the IP
//! header and fragments what is larger than the MTU. IP_TRANSPARENT lets it take a source that is not this host's.
//!
//! A raw socket also gets a copy of every datagram that this host receives, and even where a filter or an address keeps
//! the copies out, the kernel asks each such socket at each datagram (raw_v4_input; measured: 9 ns a socket). So it is taken
//! out of the kernel's table, and is bound to an address that nobody sends to besides.
//!
//! Each datagram is a message of its own, since raw sockets know no UDP_SEGMENT. Measured in batches of 64 through a veth
//! device, Linux 6.18, two runs on a busy machine, header and control message included: 64 B cost 760 and 990 ns, where a
//! connected UDP socket's cost 650 and 820 and segmented ones 20; 1,200 B 850 and 1,090 against 600 and 730. IPv6 is alike.
//!
//! A source that cannot be one, such as a group, or loopback on a way that leaves the host, is refused with EINVAL.
//! What routers and the upstream have to say about such a datagram, they say to its sender: no ICMP comes back here. So in
//! IPv6 a datagram that is too large for a hop further on is lost (in IPv4 the hop fragments it). And the upstream's own
//! host has to accept the source: not where rp_filter is strict and the way back to the sender is another.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::address::family;
use super::option::{set_int, socklen};
use super::socket::close_door;
use super::upstream::{UpstreamOptions, prepare};

/// The IPv4 dummy address (RFC 7600), never a destination by IANA's registry of special addresses.
const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// An address of the discard-only prefix (RFC 6666).
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// A raw socket to be connected to an upstream. What is sent through it begins with a UDP header and names its source as
/// `Sending::from`. It never receives; `receives` and `source` of the options are passed over. EPERM where the capability is
/// missing, for which [`hint`] has words.
pub fn kept_source_socket(
    upstream: SocketAddr,
    options: &UpstreamOptions,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(upstream),
        Type::RAW.nonblocking(),
        Some(Protocol::UDP),
    )?;
    close_door(&socket)?;
    socket.set_recv_buffer_size(0)?;
    leave_table(&socket)?;
    prepare(&socket, upstream, options)?;
    let (level, transparent, nobody): (_, _, IpAddr) = match upstream {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT, NOBODY_V4.into()),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, NOBODY_V6.into()),
    };
    set_int(&socket, level, transparent, 1)?;
    socket.bind(&SocketAddr::new(nobody, 0).into())?;
    Ok(socket.into())
}

/// Takes a raw socket out of the table that the kernel looks received datagrams up in. That is what dissolving a
/// connection does to it, even to none (__udp_disconnect in net/ipv4/udp.c, which raw sockets share); neither bind(2) nor
/// connect(2) puts it back. It also forgets address and interface, so it comes first.
fn leave_table(socket: &Socket) -> io::Result<()> {
    let nobody = libc::sockaddr {
        sa_family: family(libc::AF_UNSPEC),
        sa_data: [0; 14],
    };
    let (fd, len) = (socket.as_raw_fd(), socklen::<libc::sockaddr>());
    // SAFETY: the descriptor is borrowed for the call and `nobody` is a readable sockaddr of `len` bytes.
    match unsafe { libc::connect(fd, &raw const nobody, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What to do about an error of [`kept_source_socket`], if it is a missing capability.
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
