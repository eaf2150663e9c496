//! Finds other sockets on a UDP address, from /proc (proc(5)). Our sockets need SO_REUSEADDR. With it, the kernel lets
//! two programs bind to one address without an error, and one of them receives nothing.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Largest number of lines of /proc/net/udp that are read. Each line is a socket.
const SOCKETS_MAX: usize = 262_144;

/// A UDP socket of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundSocket {
    /// The address that the socket is bound to.
    pub address: SocketAddr,
    /// The address that the socket is connected to, if any.
    pub peer: Option<SocketAddr>,
    /// The user id of the socket's owner.
    pub uid: u32,
    /// The inode of the socket, which identifies its descriptors.
    pub inode: u64,
}

/// A socket of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// The address that the socket is bound to.
    pub address: SocketAddr,
    /// The user id of the socket's owner.
    pub uid: u32,
    /// Process id and program name, if /proc shows them to this user.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, program)) => write!(f, "{program} (pid {pid}), bound to {}", self.address),
            None => write!(
                f,
                "a program of user {} (its process id is hidden), bound to {}",
                self.uid, self.address
            ),
        }
    }
}

/// Returns the owners of all sockets that overlap with `address`.
pub fn find(address: SocketAddr) -> Vec<PortOwner> {
    let mut sockets = sockets(|port| port == address.port());
    sockets.retain(|socket| overlaps(socket.address, address));
    let port_owner = |socket: BoundSocket| {
        let BoundSocket {
            address,
            uid,
            inode,
            ..
        } = socket;
        PortOwner {
            address,
            uid,
            process: owner(inode),
        }
    };
    let mut found: Vec<PortOwner> = Vec::new();
    for port_owner in sockets.into_iter().map(port_owner) {
        // A program with several workers has several sockets on one address.
        if !found.contains(&port_owner) {
            found.push(port_owner);
        }
    }
    found
}

/// Returns all sockets on the selected ports.
pub fn sockets(is_selected: impl Fn(u16) -> bool) -> Vec<BoundSocket> {
    let mut sockets = Vec::new();
    for (file, v6) in [("/proc/net/udp", false), ("/proc/net/udp6", true)] {
        // A kernel without IPv6 has no such file.
        let Ok(file) = File::open(file) else { continue };
        let lines = BufReader::with_capacity(64 * 1024, file)
            .lines()
            .skip(1)
            .take(SOCKETS_MAX)
            .map_while(Result::ok);
        sockets.extend(
            lines
                .filter_map(|line| parse(&line, v6))
                .filter(|socket| is_selected(socket.address.port())),
        );
    }
    sockets
}

/// Parses a line of /proc/net/udp.
fn parse(line: &str, v6: bool) -> Option<BoundSocket> {
    let mut fields = line.split_ascii_whitespace();
    let (address, peer) = (
        parse_address(fields.nth(1)?, v6)?,
        parse_address(fields.next()?, v6)?,
    );
    let (uid, inode) = (fields.nth(4)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    Some(BoundSocket {
        address,
        peer: (peer.port() != 0).then_some(peer),
        uid,
        inode,
    })
}

fn parse_address(text: &str, v6: bool) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each 32-bit word of the address is printed in host byte order.
    let word = |index: usize| u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok();
    let ip = if v6 {
        let mut octets = [0; 16];
        for (index, bytes) in octets.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&word(index)?.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))
    };
    Some(SocketAddr::new(ip, port))
}

/// Returns whether one datagram could match both addresses. An IPv6 wildcard may include IPv4 (ipv6(7), IPV6_V6ONLY).
pub fn overlaps(bound: SocketAddr, address: SocketAddr) -> bool {
    let same_family = bound.is_ipv4() == address.is_ipv4();
    let wildcard = bound.ip().is_unspecified() || (address.ip().is_unspecified() && same_family);
    bound.port() == address.port()
        && (bound.ip() == address.ip() || (wildcard && (same_family || bound.is_ipv6())))
}

/// Returns the id and the name of a process that has the socket open.
pub fn owner(inode: u64) -> Option<(u32, String)> {
    let target = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let holds = |fd: fs::DirEntry| {
            fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
        };
        if descriptors.flatten().any(holds) {
            let program = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some((pid, program.trim().escape_default().to_string()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our own socket is found with our own pid, for each overlapping address.
    #[test]
    fn finds_this_process() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        for overlapping in [
            address,
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()),
        ] {
            let found = find(overlapping);
            assert!(found.iter().any(|port_owner| {
                port_owner
                    .process
                    .as_ref()
                    .is_some_and(|p| p.0 == std::process::id())
            }));
        }
        assert!(
            find(SocketAddr::new(
                "127.0.0.2".parse().unwrap(),
                address.port()
            ))
            .is_empty()
        );
    }

    /// Parses an IPv6 line as the kernel prints it, word by word.
    #[test]
    fn reads_ipv6_lines() {
        let line = "  10: 00000000000000000000000001000000:14E9 00000000000000000000000000000000:0000 07 00000000:00000000 \
                    00:00000000 00000000   104        0 12345 2 0000000000000000 0";
        let socket = BoundSocket {
            address: "[::1]:5353".parse().unwrap(),
            peer: None,
            uid: 104,
            inode: 12345,
        };
        assert_eq!(parse(line, true), Some(socket));
        let line = " 1101: 0100007F:14E9 0200007F:0035 01 00000000:00000000 00:00000000 00000000 7 0 9 2 0000000000000000 3";
        let (address, peer) = (
            "127.0.0.1:5353".parse().unwrap(),
            "127.0.0.2:53".parse().ok(),
        );
        assert_eq!(
            parse(line, false),
            Some(BoundSocket {
                address,
                peer,
                uid: 7,
                inode: 9
            })
        );
    }
}
