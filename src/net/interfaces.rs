//! The interfaces of this host and their addresses, by getifaddrs(3).

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::address::RawAddress;

/// An interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index of the interface, never 0.
    pub index: u32,
    /// The interface's name, such as `eth0`.
    pub name: String,
    /// The addresses of both families that the interface has.
    pub addresses: Vec<IpAddr>,
    /// The IPv4 broadcast addresses, or what glibc reports in their place: the address itself or the peer's, where no
    /// broadcast address was configured.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Whether the interface is up.
    pub up: bool,
}

/// Lists all interfaces, ordered by index.
///
/// # Errors
/// Returns the error of getifaddrs(3).
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
        // SAFETY: the entry comes from getifaddrs and was not freed.
        unsafe { add(&mut interfaces, entry) };
        next = entry.ifa_next;
    }
    // SAFETY: `head` came from getifaddrs and nothing refers to the list any more.
    unsafe { libc::freeifaddrs(head) };
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// Adds the address of an entry to its interface.
///
/// # Safety
/// The entry comes from getifaddrs(3), and its list was not freed: the name is a NUL-terminated string, and each
/// address is null or a valid sockaddr.
unsafe fn add(interfaces: &mut Vec<Interface>, entry: &libc::ifaddrs) {
    // SAFETY: the name of an entry is a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    // SAFETY: as above; the call only reads it.
    let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
    if index == 0 {
        return; // Gone since the list was made.
    }
    let flags = entry.ifa_flags.cast_signed();
    let place = interfaces
        .iter()
        .position(|interface| interface.index == index)
        .unwrap_or_else(|| {
            interfaces.push(Interface {
                index,
                name: name.to_string_lossy().into_owned(),
                addresses: Vec::new(),
                broadcasts: Vec::new(),
                up: flags & libc::IFF_UP != 0,
            });
            interfaces.len() - 1
        });
    let interface = &mut interfaces[place];
    // SAFETY: the address of an entry is null or a valid sockaddr.
    let Some(address) = (unsafe { read(entry.ifa_addr) }) else {
        return;
    };
    interface.addresses.push(address);
    if flags & libc::IFF_BROADCAST == 0 {
        return;
    }
    // SAFETY: as above.
    if let Some(IpAddr::V4(broadcast)) = unsafe { read(entry.ifa_ifu) } {
        interface.broadcasts.push(broadcast);
    }
}

/// Returns the IP address in a sockaddr; `None` if it is null or of another family.
///
/// # Safety
/// The pointer is null, or points to a valid sockaddr of the length that its family has.
unsafe fn read(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller passes null or a valid sockaddr, whose family stands first.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    let mut raw = RawAddress::empty();
    let len = match family {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    // SAFETY: a sockaddr of these families is `len` bytes long, and `raw` is at least that; they do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut raw).cast::<u8>(), len);
    };
    raw.get().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface is there, with its address.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
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
