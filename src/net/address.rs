//! Socket addresses in the kernel's form and in Rust's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::option::socklen;
use crate::number;

/// Returns an address family (AF_*) as a sockaddr has it.
pub(super) const fn family(family: i32) -> libc::sa_family_t {
    number::to_u16(family.cast_unsigned() as usize)
}

/// Room for an IPv4 or an IPv6 socket address. sockaddr_in6 is the larger of the two (28 bytes), and its first 16 bytes
/// can be read as a sockaddr_in (ip(7), ipv6(7)).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RawAddress(libc::sockaddr_in6);

impl RawAddress {
    /// The number of bytes that the kernel may write.
    pub const LEN: libc::socklen_t = socklen::<libc::sockaddr_in6>();

    /// Returns a value that holds no address.
    pub const fn empty() -> RawAddress {
        RawAddress(libc::sockaddr_in6 {
            sin6_family: family(libc::AF_UNSPEC),
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        })
    }

    /// Returns the address that the kernel wrote; `None` if it is neither IPv4 nor IPv6.
    pub fn get(&self) -> Option<SocketAddr> {
        match i32::from(self.0.sin6_family) {
            libc::AF_INET => {
                // In a sockaddr_in the address stands where a sockaddr_in6 has the flow label.
                let ip = Ipv4Addr::from(u32::from_be(self.0.sin6_flowinfo));
                Some(SocketAddr::V4(SocketAddrV4::new(
                    ip,
                    u16::from_be(self.0.sin6_port),
                )))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.0.sin6_addr.s6_addr);
                let port = u16::from_be(self.0.sin6_port);
                Some(SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    port,
                    0,
                    self.0.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }

    /// Writes an address. Returns the length in bytes that system calls expect with it.
    pub fn set(&mut self, address: &SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(v4) => {
                self.0.sin6_family = family(libc::AF_INET);
                self.0.sin6_port = v4.port().to_be();
                self.0.sin6_flowinfo = u32::from(*v4.ip()).to_be();
                socklen::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                self.0.sin6_family = family(libc::AF_INET6);
                self.0.sin6_port = v6.port().to_be();
                self.0.sin6_flowinfo = 0;
                self.0.sin6_addr.s6_addr = v6.ip().octets();
                self.0.sin6_scope_id = v6.scope_id();
                RawAddress::LEN
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both families survive the way to the kernel's form and back, link-local scope included.
    #[test]
    fn round_trip() {
        for text in [
            "192.0.2.7:65535",
            "[2001:db8::1]:53",
            "[fe80::1%3]:9",
            "0.0.0.0:0",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = RawAddress::empty();
            raw.set(&address);
            assert_eq!(raw.get(), Some(address));
        }
        assert_eq!(RawAddress::empty().get(), None);
    }
}
