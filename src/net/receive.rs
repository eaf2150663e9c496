//! Receiving: one recvmmsg(2) brings up to [`SLOTS`] trains into the arena.
//!
//! The headers are prepared once and reused; a call resets only what the kernel wrote into. Each slot holds the largest
//! train there can be, since under UDP_GRO a smaller one would lose datagrams without a word. Pages of the arena that no
//! datagram ever reached cost no memory.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

// The system calls themselves: the C library's functions of the same names are cancellation points, which costs a process
// with threads 15 ns each time (measured: 1.5 % of an exchange).
use libc::syscall;

use super::address::RawAddress;
use super::control_message::{self, RECEIVE_BYTES, Received};

/// Trains in one call, at most. More of them would not make a small datagram cheaper; the arena is 4 MiB of addresses.
pub const SLOTS: usize = 128;
/// Trains in the next call after a long one: 128 of those would be 8 MiB, gone from the cache before they are sent on
/// (measured: a quarter cheaper with 8).
pub const SLOTS_FOR_LONG: usize = 8;
/// Bytes from which a train is long.
pub const LONG_BYTES: u32 = 4_097;
/// Bytes of a slot: UDP's length field has 16 bits, and generic receive offload keeps to the same.
pub const SLOT_BYTES: usize = 1 << 16;

/// The largest page that Linux has on any machine, so that whole ones are whole ones everywhere.
const PAGE_BYTES: usize = 1 << 16;

/// Aligned as struct cmsghdr is.
#[repr(C, align(8))]
struct ReceiveControl([u8; RECEIVE_BYTES]);

/// The arena and the headers of one worker.
pub struct Receiver {
    arena: Box<[u8]>,
    /// Headers that ask for the source address of each train.
    named: Headers,
    /// Headers that do not: telling it costs 3 to 10 % of a datagram's price.
    nameless: Headers,
    names: Box<[RawAddress]>,
    controls: Box<[ReceiveControl]>,
    /// Kept alive for the headers, which point to it.
    _vectors: Box<[libc::iovec]>,
    /// What the slots hold, and by which headers it came.
    received: usize,
    with_names: bool,
}

// SAFETY: the raw pointers in the headers and vectors point only into the boxes of the same struct, which move with it.
unsafe impl Send for Receiver {}

/// The headers of a call.
struct Headers {
    headers: Box<[libc::mmsghdr]>,
    /// How many of them the kernel wrote into since they were last reset.
    used: usize,
}

impl Headers {
    /// Makes the headers as they were before the kernel wrote into them.
    fn reset(&mut self) {
        for header in &mut self.headers[..self.used] {
            header.msg_hdr.msg_namelen = RawAddress::LEN;
            header.msg_hdr.msg_controllen = RECEIVE_BYTES;
        }
        self.used = 0;
    }
}

/// One received train, as it lies in its slot. What the kernel told is read only when asked for.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    name: Option<&'a RawAddress>,
    control: &'a [u8],
    /// Where it begins in the arena.
    pub offset: u32,
    /// Its bytes.
    pub len: u32,
    flags: libc::c_int,
}

impl Slot<'_> {
    /// Who sent it; `None` if the kernel was not asked or did not say.
    #[inline]
    pub fn src(&self) -> Option<SocketAddr> {
        self.name.and_then(RawAddress::get)
    }

    /// What the control messages said.
    #[inline]
    pub fn control_data(&self) -> Received {
        control_message::parse(self.control)
    }

    /// MSG_TRUNC: it was larger than the slot.
    pub fn is_truncated(&self) -> bool {
        self.flags & libc::MSG_TRUNC != 0
    }

    /// MSG_CTRUNC: control messages were lost.
    pub fn is_control_truncated(&self) -> bool {
        self.flags & libc::MSG_CTRUNC != 0
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver::new()
    }
}

impl Receiver {
    /// Prepares the arena and headers that point into it.
    pub fn new() -> Receiver {
        // Zeroed memory comes from the kernel untouched, so only pages that a datagram reaches become resident.
        let mut arena = vec![0u8; SLOTS * SLOT_BYTES].into_boxed_slice();
        let mut names = vec![RawAddress::empty(); SLOTS].into_boxed_slice();
        let mut controls: Box<[ReceiveControl]> = (0..SLOTS)
            .map(|_| ReceiveControl([0; RECEIVE_BYTES]))
            .collect();
        let mut vectors: Box<[libc::iovec]> = arena
            .chunks_exact_mut(SLOT_BYTES)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let mut headers = |with_names: bool| {
            let parts = vectors.iter_mut().zip(&mut names).zip(&mut controls);
            let header = parts.map(|((vector, name), control)| {
                // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
                let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
                header.msg_iov = vector;
                header.msg_iovlen = 1;
                if with_names {
                    header.msg_name = (&raw mut *name).cast();
                    header.msg_namelen = RawAddress::LEN;
                }
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = RECEIVE_BYTES;
                libc::mmsghdr {
                    msg_hdr: header,
                    msg_len: 0,
                }
            });
            Headers {
                headers: header.collect(),
                used: 0,
            }
        };
        let (named, nameless) = (headers(true), headers(false));
        let (received, with_names) = (0, true);
        Receiver {
            arena,
            named,
            nameless,
            names,
            controls,
            _vectors: vectors,
            received,
            with_names,
        }
    }

    /// Receives what is there, up to `max` trains (at most [`SLOTS`]), without waiting. Fewer than that means that the
    /// socket was drained, or that an error is pending which the next call will report.
    pub fn receive(
        &mut self,
        socket: impl AsFd,
        max: usize,
        with_names: bool,
    ) -> io::Result<usize> {
        self.begin(with_names);
        self.receive_more(socket, max)
    }

    /// Forgets what was received before; [`Receiver::receive_more`] then fills the slots from the first one on.
    pub fn begin(&mut self, with_names: bool) {
        self.received = 0;
        self.with_names = with_names;
        let batch = if with_names {
            &mut self.named
        } else {
            &mut self.nameless
        };
        batch.reset();
    }

    /// How many trains still find a slot.
    pub fn room(&self) -> usize {
        SLOTS - self.received
    }

    /// Receives from one more socket, beside what the slots hold already. Returns how many trains it had.
    pub fn receive_more(&mut self, socket: impl AsFd, max: usize) -> io::Result<usize> {
        let batch = if self.with_names {
            &mut self.named
        } else {
            &mut self.nameless
        };
        let fd = socket.as_fd().as_raw_fd();
        let free = &mut batch.headers[self.received..];
        let count = max.min(free.len()) as u32;
        let (headers, flags) = (free.as_mut_ptr(), libc::MSG_DONTWAIT);
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: the headers point to names, vectors, controls and arena slots that this struct owns, with their
        // lengths, and there are at least `count` of them; nothing else refers to them during the call.
        let received = unsafe { syscall(libc::SYS_recvmmsg, fd, headers, count, flags, forever) };
        match usize::try_from(received) {
            Ok(received) => {
                self.received += received;
                batch.used = self.received;
                Ok(received)
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Receives one datagram from one more socket, which asks for nothing beside the payload: half the price of a batch of one.
    pub fn receive_one(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let batch = if self.with_names {
            &mut self.named
        } else {
            &mut self.nameless
        };
        let Some(header) = batch.headers.get_mut(self.received) else {
            return Ok(0);
        };
        let fd = socket.as_fd().as_raw_fd();
        let slot = &mut self.arena[self.received * SLOT_BYTES..][..SLOT_BYTES];
        let (bytes, len) = (slot.as_mut_ptr(), slot.len());
        let nobody = std::ptr::null_mut::<libc::sockaddr>();
        // SAFETY: the descriptor is borrowed for the call, and the slot is writable for `len`; without an address it is
        // recv(2).
        let len = unsafe {
            syscall(
                libc::SYS_recvfrom,
                fd,
                bytes,
                len,
                libc::MSG_DONTWAIT,
                nobody,
                nobody,
            )
        };
        let Ok(len) = u32::try_from(len) else {
            return Err(io::Error::last_os_error());
        };
        header.msg_len = len;
        header.msg_hdr.msg_controllen = 0;
        header.msg_hdr.msg_flags = 0;
        self.received += 1;
        batch.used = self.received;
        Ok(1)
    }

    /// Gives the memory of all slots but the first few back to the system, after a batch of long trains filled it. Not
    /// while anything still points into the arena, which `&mut self` makes sure of.
    pub fn release(&mut self) {
        let rest = &mut self.arena[SLOTS_FOR_LONG * SLOT_BYTES..];
        let (start, len) = (rest.as_mut_ptr(), rest.len());
        // madvise(2) wants whole pages; the allocation of a large buffer begins 16 bytes into its first one.
        let skip = start.align_offset(PAGE_BYTES);
        let whole = len.saturating_sub(skip) / PAGE_BYTES * PAGE_BYTES;
        let first = start.wrapping_add(skip);
        // SAFETY: the pages lie inside the arena, which is private anonymous memory and borrowed mutably here; afterwards
        // they read as zeroes, which are bytes like any others.
        unsafe { libc::madvise(first.cast(), whole, libc::MADV_DONTNEED) };
    }

    /// What the slots hold.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let batch = if self.with_names {
            &self.named
        } else {
            &self.nameless
        };
        let received = batch.headers[..self.received].iter();
        received
            .enumerate()
            .map(|(index, header)| self.slot(index, header))
    }

    #[inline]
    fn slot<'a>(&'a self, index: usize, header: &'a libc::mmsghdr) -> Slot<'a> {
        let control_len = header.msg_hdr.msg_controllen.min(RECEIVE_BYTES);
        Slot {
            name: self.with_names.then(|| &self.names[index]),
            control: &self.controls[index].0[..control_len],
            offset: (index * SLOT_BYTES) as u32,
            len: header.msg_len.min(SLOT_BYTES as u32),
            flags: header.msg_hdr.msg_flags,
        }
    }

    /// The bytes that the slots' offsets count from.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }
}
