//! The few system calls that the benchmark makes itself. Socket options, processors and limits are here; the others
//! have a file each. Only this module of the benchmark has unsafe code, and it does not know subjects, cells or
//! reports.
#![expect(
    unsafe_code,
    reason = "the system calls of a forwarder that is written by hand"
)]

mod addressed;
mod batch;
mod epoll;
mod namespace;
mod process;

pub(crate) use addressed::Datagrams;
pub(crate) use batch::{PlainSend, ReceiveBatch, SegmentedSend};
pub(crate) use epoll::Epoll;
pub(crate) use namespace::Namespaces;
pub(crate) use process::{
    CpuClock, ended, family, pinned_child, signal, signal_group, status_kib, stop,
};

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;

/// Longest payload that UDP over IPv4 carries, in bytes.
pub(crate) const PAYLOAD_MAX_BYTES: usize = 65_507;
/// Largest number of segments in one gathered send. Every kernel that has UDP_SEGMENT takes as many (newer ones take
/// 128).
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Limit of open files that the benchmark requests for itself and for the programs that it starts. Each of 100,000
/// sessions is a socket.
const FILES_MAX: libc::rlim_t = 262_144;

/// Turns the -1 of a system call into the error that it stands for.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Turns the -1 of a system call that returns a length into the error that it stands for.
fn checked_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Sets a socket option with a value of one int.
pub(crate) fn set_int(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` outlives the call and `len` is its size.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            len,
        )
    })
    .map(drop)
}

/// Gives a socket a receive buffer of `wanted` bytes. Without CAP_NET_ADMIN, `net.core.rmem_max` is the upper bound.
pub(crate) fn force_receive_buffer(socket: &impl AsRawFd, wanted: usize) -> io::Result<()> {
    let wanted = libc::c_int::try_from(wanted).unwrap_or(libc::c_int::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, wanted))
}

/// Number of times that the kernel dropped something at this socket. A train of segments counts once.
pub(crate) fn socket_drops(socket: &impl AsRawFd) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut meminfo = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut len = size_of_val(&meminfo) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `meminfo`.
    checked(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            meminfo.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(meminfo[SK_MEMINFO_DROPS])
}

/// The processors that this process may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the given size of `set`.
    checked(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) })?;
    // SAFETY: the processor's number is below CPU_SETSIZE, so the bit lies inside `set`.
    Ok((0..libc::CPU_SETSIZE as usize)
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// Keeps the calling thread, and all that it starts, on one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` came from `allowed_cpus`, so it is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` outlives the call and the size is its own.
    checked(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// Raises the limit of open files to [`FILES_MAX`], or to the hard limit, and returns the limit that now holds.
pub(crate) fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives the call.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let wanted = libc::rlimit {
        rlim_cur: FILES_MAX,
        rlim_max: limit.rlim_max.max(FILES_MAX),
    };
    // SAFETY: the call only reads `wanted`.
    if checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) }).is_ok() {
        return Ok(FILES_MAX);
    }
    limit.rlim_cur = limit.rlim_max.min(FILES_MAX);
    // SAFETY: the call only reads `limit`.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}
