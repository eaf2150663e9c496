//! Socket options that socket2 does not have, each with its source.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use crate::number;

/// Sets an option whose value is an int.
///
/// # Errors
/// Returns the error of setsockopt(2).
pub fn set_int(socket: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    set(socket, level, option, &value)
}

/// Binds a socket to an interface, so that it sends and receives through that interface alone (SO_BINDTOIFINDEX in
/// include/uapi/asm-generic/socket.h, Linux 5.0). Since Linux 5.7 this needs no capability on a socket that is bound to
/// no interface yet (sock_bindtoindex_locked in net/core/sock.c).
pub(super) fn bind_to_interface(socket: impl AsFd, interface: u32) -> io::Result<()> {
    let index = interface_index(interface)?;
    set_int(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index)
}

/// Returns an interface index in the kernel's form, a positive int; ENODEV if no interface can have it.
pub(super) fn interface_index(interface: u32) -> io::Result<i32> {
    i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Returns the size of a C struct in bytes, as system calls take it.
pub(super) const fn socklen<T>() -> libc::socklen_t {
    number::to_u32(size_of::<T>())
}

/// Sets an option whose value is a plain C struct. The bytes of its padding are passed too, and the kernel ignores
/// them.
pub(super) fn set<T: Copy>(
    socket: impl AsFd,
    level: i32,
    option: i32,
    value: &T,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = socklen::<T>();
    // SAFETY: the descriptor is borrowed for the call and `value` is `len` readable bytes.
    match unsafe { libc::setsockopt(fd, level, option, (&raw const *value).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads SO_MEMINFO (include/uapi/linux/sock_diag.h): nine numbers about the memory and the drops of a socket.
///
/// # Errors
/// Returns the error of getsockopt(2).
pub fn memory_info(socket: impl AsFd) -> io::Result<[u32; MEMINFO_VARS]> {
    let mut info = [0u32; MEMINFO_VARS];
    let mut len = socklen::<[u32; MEMINFO_VARS]>();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; `info` is `len` writable bytes and any bytes are valid u32s.
    match unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    } {
        0 => Ok(info),
        _ => Err(io::Error::last_os_error()),
    }
}

/// SK_MEMINFO_VARS of include/uapi/linux/sock_diag.h.
const MEMINFO_VARS: usize = libc::SK_MEMINFO_DROPS as usize + 1;

/// Returns the number of datagrams that the kernel dropped at this socket, modulo 2³² (sk_drops), as a rule because the
/// receive buffer was full.
///
/// # Errors
/// Returns the error of getsockopt(2).
pub fn kernel_drops(socket: impl AsFd) -> io::Result<u32> {
    Ok(memory_info(socket)?[libc::SK_MEMINFO_DROPS as usize])
}
