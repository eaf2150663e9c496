//! The few system calls that the bench makes itself: sockets' options, processes, clocks, and one batch of received datagrams.
//! The bench's only room with unsafe code; it knows nothing of subjects, cells or reports.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::slice;

/// Longest payload that UDP over IPv4 carries, in bytes.
pub(crate) const PAYLOAD_MAX_BYTES: usize = 65_507;
/// Most segments in one gathered send; the limit of every kernel that has UDP_SEGMENT (newer ones take 128).
pub(crate) const SEGMENTS_MAX: usize = 64;

/// Turns the -1 of a system call into the error that it stands for.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that answer with a length.
fn checked_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Sets a socket option whose value is one int.
pub(crate) fn set_int(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` outlives the call and `len` is its size.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), len) }).map(drop)
}

/// Gives a socket `wanted` bytes of receive buffer, past rmem_max where the process may, up to it where it may not.
pub(crate) fn force_receive_buffer(socket: &impl AsRawFd, wanted: usize) -> io::Result<()> {
    let wanted = libc::c_int::try_from(wanted).unwrap_or(libc::c_int::MAX);
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, wanted))
}

/// How often the kernel dropped something at this socket (a train of segments counts once).
pub(crate) fn socket_drops(socket: &impl AsRawFd) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut meminfo = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut len = mem::size_of_val(&meminfo) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `meminfo`.
    checked(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, meminfo.as_mut_ptr().cast(), &mut len)
    })?;
    Ok(meminfo[SK_MEMINFO_DROPS])
}

/// The processors that this process may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the given size of `set`.
    checked(unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) })?;
    // SAFETY: the processor's number is below CPU_SETSIZE, so the bit lies inside `set`.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Keeps the calling thread, and whatever it starts, on one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` came from `allowed_cpus`, so it is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` outlives the call and the size is its own.
    checked(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) }).map(drop)
}

/// Makes the command's process start pinned to `cpu`, and die with the bench even while it is stopped.
pub(crate) fn pinned_child(command: &mut Command, cpu: usize) {
    let in_child = move || {
        // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
        checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        pin(cpu)
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(in_child) };
}

/// Sends a signal to a process that the bench started.
pub(crate) fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill touches no memory of ours.
    checked(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// Stops a child and returns when every thread of it stands still.
pub(crate) fn stop(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGSTOP)?;
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    checked(unsafe { libc::waitpid(pid as libc::pid_t, &mut status, libc::WUNTRACED) })?;
    if libc::WIFSTOPPED(status) { Ok(()) } else { Err(io::Error::other("the process ended while it was measured")) }
}

/// The processor's clock of a whole process, in nanoseconds: user and system time of all its threads.
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut id = 0;
        // SAFETY: `id` outlives the call. The result is an error number, not -1.
        match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut id) } {
            0 => Ok(Self(id)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    pub(crate) fn now_ns(&self) -> io::Result<u64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` outlives the call.
        checked(unsafe { libc::clock_gettime(self.0, &mut time) })?;
        Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// One number, in KiB, of a process's status file, e.g. `VmRSS`.
pub(crate) fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Slots for one recvmmsg, with the headers made once and reused.
pub(crate) struct ReceiveBatch {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to; never moved or resized while they exist.
    iovecs: Vec<libc::iovec>,
    _controls: Vec<Control>,
    _bytes: Vec<u8>,
}

/// Room for the control messages of one received message: UDP_GRO's segment size is an int.
#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

// SAFETY: CMSG_SPACE is arithmetic on its argument.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::c_int>() as libc::c_uint) } as usize;

impl ReceiveBatch {
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> Self {
        let mut bytes = vec![0; slots * slot_bytes];
        let mut controls = vec![Control([0; CONTROL_BYTES]); slots];
        let mut iovecs: Vec<_> = bytes
            .chunks_mut(slot_bytes)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
            .collect();
        let headers = iovecs
            .iter_mut()
            .zip(&mut controls)
            .map(|(iovec, control)| message(iovec, 1, control.0.as_mut_ptr(), CONTROL_BYTES));
        Self { headers: headers.collect(), iovecs, _controls: controls, _bytes: bytes }
    }

    /// One recvmmsg into the first `slots` slots; returns how many it filled.
    #[inline]
    pub(crate) fn receive(&mut self, socket: RawFd, slots: usize, flags: libc::c_int) -> io::Result<usize> {
        let headers = &mut self.headers[..slots];
        let (first, count) = (headers.as_mut_ptr(), slots as libc::c_uint);
        // SAFETY: each header points to an iovec and a control buffer that `self` owns, with their true lengths.
        let filled = checked(unsafe { libc::recvmmsg(socket, first, count, flags, ptr::null_mut()) })?;
        Ok(filled as usize)
    }

    /// Length of the message in a filled slot, in bytes.
    #[inline]
    pub(crate) fn len(&self, slot: usize) -> usize {
        self.headers[slot].msg_len as usize
    }

    /// The filled slot's bytes, to be gathered into a send.
    #[inline]
    pub(crate) fn iovec(&self, slot: usize) -> libc::iovec {
        libc::iovec { iov_base: self.iovecs[slot].iov_base, iov_len: self.len(slot) }
    }

    /// The filled slot's bytes, to be copied.
    #[inline]
    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        let iovec = self.iovec(slot);
        // SAFETY: the kernel wrote that many bytes, and without MSG_TRUNC its word is never more than the slot's size.
        unsafe { slice::from_raw_parts(iovec.iov_base.cast(), iovec.iov_len) }
    }

    /// Size of the datagrams that the slot holds (the kernel's word if it is a train, else the one datagram's length), and the
    /// header made ready for the next receive, which the kernel spoils only where it left a control message or shortened one.
    #[inline]
    pub(crate) fn take_segment(&mut self, slot: usize) -> usize {
        let len = self.len(slot);
        let header = &mut self.headers[slot].msg_hdr;
        let mut segment = len;
        if header.msg_controllen > 0 {
            // SAFETY: the header's control fields are as the kernel left them, inside our buffer.
            let control = unsafe { libc::CMSG_FIRSTHDR(header) };
            // SAFETY: the kernel left a control message there, and an aligned buffer holds it.
            let control = unsafe { &*control };
            if control.cmsg_level == libc::SOL_UDP && control.cmsg_type == libc::UDP_GRO {
                // SAFETY: the data follows the header inside the buffer.
                let data = unsafe { libc::CMSG_DATA(control) };
                // SAFETY: UDP_GRO's data is an int.
                segment = unsafe { data.cast::<libc::c_int>().read_unaligned() } as usize;
            }
        }
        header.msg_controllen = CONTROL_BYTES as _;
        segment
    }
}

/// A message header over the caller's pointers; it is as valid as they are.
pub(crate) fn message(
    iovecs: *mut libc::iovec,
    iovec_count: usize,
    control: *mut u8,
    control_bytes: usize,
) -> libc::mmsghdr {
    // SAFETY: an mmsghdr is made of integers and pointers, for which zero is a value.
    let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_hdr.msg_iov = iovecs;
    header.msg_hdr.msg_iovlen = iovec_count as _;
    header.msg_hdr.msg_control = control.cast();
    header.msg_hdr.msg_controllen = control_bytes as _;
    header
}

/// A send that leaves as several datagrams of one size: the iovecs are gathered and cut by the kernel (UDP_SEGMENT).
pub(crate) struct SegmentedSend {
    control: Control16,
}

/// UDP_SEGMENT's value is a u16.
#[repr(align(8))]
struct Control16([u8; CONTROL16_BYTES]);

// SAFETY: CMSG_SPACE is arithmetic on its argument.
const CONTROL16_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<u16>() as libc::c_uint) } as usize;

impl SegmentedSend {
    pub(crate) fn new() -> Self {
        let mut send = Self { control: Control16([0; CONTROL16_BYTES]) };
        // SAFETY: a cmsghdr is made of integers, for which zero is a value.
        let mut head: libc::cmsghdr = unsafe { mem::zeroed() };
        head.cmsg_level = libc::SOL_UDP;
        head.cmsg_type = libc::UDP_SEGMENT;
        // SAFETY: CMSG_LEN is arithmetic on its argument.
        head.cmsg_len = unsafe { libc::CMSG_LEN(mem::size_of::<u16>() as libc::c_uint) } as _;
        // SAFETY: the buffer is aligned for a cmsghdr and longer than one.
        unsafe { send.control.0.as_mut_ptr().cast::<libc::cmsghdr>().write(head) };
        send
    }

    /// One sendmsg on a connected socket; `segment` is 0 for an ordinary datagram.
    #[inline]
    pub(crate) fn send(&mut self, socket: RawFd, iovecs: &mut [libc::iovec], segment: u16) -> io::Result<usize> {
        let control_bytes = if segment == 0 { 0 } else { CONTROL16_BYTES };
        let at = mem::size_of::<libc::cmsghdr>();
        self.control.0[at..at + 2].copy_from_slice(&segment.to_ne_bytes());
        let header = message(iovecs.as_mut_ptr(), iovecs.len(), self.control.0.as_mut_ptr(), control_bytes);
        // SAFETY: the header points to `iovecs`, whose buffers the caller holds, and to this control buffer.
        checked_len(unsafe { libc::sendmsg(socket, &header.msg_hdr, 0) })
    }
}

/// Sends the same bytes `count` times as ordinary datagrams, one sendmmsg for at most `headers.len()` of them.
pub(crate) struct PlainSend {
    headers: Vec<libc::mmsghdr>,
    _iovec: Box<libc::iovec>,
    _payload: Vec<u8>,
}

impl PlainSend {
    pub(crate) fn new(mut payload: Vec<u8>, batch: usize) -> Self {
        let mut iovec = Box::new(libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() });
        let headers = (0..batch).map(|_| message(&raw mut *iovec, 1, ptr::null_mut(), 0)).collect();
        Self { headers, _iovec: iovec, _payload: payload }
    }

    pub(crate) fn send(&mut self, socket: RawFd, count: usize) -> io::Result<usize> {
        let count = count.min(self.headers.len()) as libc::c_uint;
        // SAFETY: every header points to the one iovec and payload that `self` owns.
        Ok(checked(unsafe { libc::sendmmsg(socket, self.headers.as_mut_ptr(), count, 0) })? as usize)
    }
}
