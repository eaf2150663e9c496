//! Joins groups by interface index, any-source or source-specific, with the same requests for both families (RFC 3678).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::address::RawAddress;
use super::option::set;

/// Returns the level of a request: the protocol-independent requests use that of the socket's family.
fn level(ip: IpAddr) -> i32 {
    if ip.is_ipv4() {
        libc::IPPROTO_IP
    } else {
        libc::IPPROTO_IPV6
    }
}

/// Returns a sockaddr_storage that holds an address alone.
fn storage(ip: IpAddr) -> libc::sockaddr_storage {
    let mut raw = RawAddress::empty();
    raw.set(&SocketAddr::new(ip, 0));
    // SAFETY: sockaddr_storage is plain integers, for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: a sockaddr_storage is larger than a RawAddress and aligned at least as strictly, and both are plain data.
    unsafe { (&raw mut storage).cast::<RawAddress>().write(raw) };
    storage
}

/// Joins a group on an interface, from any source.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn join(socket: &UdpSocket, group: IpAddr, interface: u32) -> io::Result<()> {
    let request = libc::group_req {
        gr_interface: interface,
        gr_group: storage(group),
    };
    set(socket, level(group), libc::MCAST_JOIN_GROUP, &request)
}

/// Joins a group on an interface for one source; further calls add further sources.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn join_source(
    socket: &UdpSocket,
    group: IpAddr,
    source: IpAddr,
    interface: u32,
) -> io::Result<()> {
    let request = libc::group_source_req {
        gsr_interface: interface,
        gsr_group: storage(group),
        gsr_source: storage(source),
    };
    set(
        socket,
        level(group),
        libc::MCAST_JOIN_SOURCE_GROUP,
        &request,
    )
}
