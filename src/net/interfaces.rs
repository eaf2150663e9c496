//! The interfaces of this host and their addresses, by getifaddrs(3).

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::address::RawAddress;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index, never 0.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its IPv4 broadcast addresses, or what stands in their place: glibc puts the address itself or the peer's there where
    /// no broadcast address was given.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Whether it is up.
    pub up: bool,
}

/// All interfaces, by index.
pub fn list() -> io::Result<Vec<Interface>> {
    let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `head` is a writable pointer; the list it gets is freed below.
    if unsafe { libc::getifaddrs(&raw mut head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut next = head;
    // SAFETY: each entry is valid until freeifaddrs, and the list ends with a null pointer.
    while let Some(entry) = unsafe { next.as_ref() } {
        add(&mut interfaces, entry);
        next = entry.ifa_next;
    }
    // SAFETY: `head` came from getifaddrs and nothing refers to the list any more.
    unsafe { libc::freeifaddrs(head) };
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

fn add(interfaces: &mut Vec<Interface>, entry: &libc::ifaddrs) {
    // SAFETY: the name of an entry is a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    // SAFETY: as above; the call only reads it.
    let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
    if index == 0 {
        return; // Gone since the list was made.
    }
    let flags = entry.ifa_flags as i32;
    let place = interfaces
        .iter()
        .position(|interface| interface.index == index)
        .unwrap_or_else(|| {
            let name = name.to_string_lossy().into_owned();
            let up = flags & libc::IFF_UP != 0;
            interfaces.push(Interface {
                index,
                name,
                addresses: Vec::new(),
                broadcasts: Vec::new(),
                up,
            });
            interfaces.len() - 1
        });
    let interface = &mut interfaces[place];
    let Some(address) = read(entry.ifa_addr) else {
        return;
    };
    interface.addresses.push(address);
    if flags & libc::IFF_BROADCAST != 0
        && let Some(IpAddr::V4(broadcast)) = read(entry.ifa_ifu)
    {
        interface.broadcasts.push(broadcast);
    }
}

/// The IP address in a sockaddr, if it is one.
fn read(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: entries have a null pointer or a valid sockaddr, whose family stands first.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    let mut raw = RawAddress::empty();
    let len = match family {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    // SAFETY: a sockaddr of these families is `len` bytes long, and `raw` is at least that; they do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut raw).cast::<u8>(), len)
    };
    raw.get().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface is there, with its address.
    #[test]
    fn loopback_is_listed() {
        let interfaces = list().unwrap();
        let loopback = interfaces
            .iter()
            .find(|interface| interface.name == "lo")
            .unwrap();
        assert_eq!(loopback.index, 1);
        assert!(
            loopback.addresses.is_empty()
                || loopback.addresses.contains(&Ipv4Addr::LOCALHOST.into())
        );
    }
}
