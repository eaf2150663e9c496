//! Receiving: one recvmmsg(2) brings up to [`SLOTS`] trains into the arena.
//!
//! The headers are prepared once and reused; a call resets only what the kernel wrote into. Each slot holds the largest
//! train there can be, since under UDP_GRO a smaller one would lose datagrams without a word. Pages of the arena that no
//! datagram ever reached cost no memory.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use super::address::RawAddress;
use super::control_message::{self, RECEIVE_BYTES, Received};

/// Trains in one call, at most. More of them would not make a small datagram cheaper; the arena is 4 MiB of addresses.
pub const SLOTS: usize = 64;
/// Trains in the next call after a long one: 64 of those would be 4 MiB, gone from the cache before they are sent on
/// (measured: a quarter cheaper with 8).
pub const SLOTS_FOR_LONG: usize = 8;
/// Bytes from which a train is long.
pub const LONG_BYTES: u32 = 4_097;
/// Bytes of a slot: UDP's length field has 16 bits, and generic receive offload keeps to the same.
pub const SLOT_BYTES: usize = 1 << 16;

/// Aligned as struct cmsghdr is.
#[repr(C, align(8))]
struct Control([u8; RECEIVE_BYTES]);

/// The arena and the headers of one worker.
pub struct Receiver {
    arena: Box<[u8]>,
    /// Headers that ask for the source address of each train.
    named: Headers,
    /// Headers that do not: telling it costs 3 to 10 % of a datagram's price.
    nameless: Headers,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
    /// Kept alive for the headers, which point to it.
    _vectors: Box<[libc::iovec]>,
    /// What the last call brought, and by which headers.
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

/// One received train, as it lies in its slot.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Who sent it; `None` if the kernel was not asked or did not say.
    pub src: Option<SocketAddr>,
    /// Where it begins in the arena.
    pub offset: u32,
    /// Its bytes.
    pub len: u32,
    /// MSG_TRUNC: it was larger than the slot.
    pub truncated: bool,
    /// MSG_CTRUNC: control messages were lost.
    pub control_truncated: bool,
    /// What the control messages said.
    pub told: Received,
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
        let mut controls: Box<[Control]> = (0..SLOTS).map(|_| Control([0; RECEIVE_BYTES])).collect();
        let mut vectors: Box<[libc::iovec]> = arena
            .chunks_exact_mut(SLOT_BYTES)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
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
                libc::mmsghdr { msg_hdr: header, msg_len: 0 }
            });
            Headers { headers: header.collect(), used: 0 }
        };
        let (named, nameless) = (headers(true), headers(false));
        let (received, with_names) = (0, true);
        Receiver { arena, named, nameless, names, controls, _vectors: vectors, received, with_names }
    }

    /// Receives what is there, up to `max` trains (at most [`SLOTS`]), without waiting. Fewer than that means that the
    /// socket was drained, or that an error is pending which the next call will report.
    pub fn receive(&mut self, socket: impl AsFd, max: usize, with_names: bool) -> io::Result<usize> {
        self.received = 0;
        self.with_names = with_names;
        let batch = if with_names { &mut self.named } else { &mut self.nameless };
        batch.reset();
        let fd = socket.as_fd().as_raw_fd();
        let count = max.min(SLOTS) as u32;
        let (headers, flags) = (batch.headers.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: the headers point to names, vectors, controls and arena slots that this struct owns, with their
        // lengths, and there are at least `count` of them; nothing else refers to them during the call.
        let received = unsafe { libc::recvmmsg(fd, headers, count, flags, std::ptr::null_mut()) };
        match usize::try_from(received) {
            Ok(received) => {
                batch.used = received;
                self.received = received;
                Ok(received)
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// What the last call received.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let batch = if self.with_names { &self.named } else { &self.nameless };
        let received = batch.headers[..self.received].iter();
        received.enumerate().map(|(index, header)| self.slot(index, header))
    }

    fn slot(&self, index: usize, header: &libc::mmsghdr) -> Slot {
        let told = header.msg_hdr.msg_controllen.min(RECEIVE_BYTES);
        Slot {
            src: if self.with_names { self.names[index].get() } else { None },
            offset: (index * SLOT_BYTES) as u32,
            len: header.msg_len.min(SLOT_BYTES as u32),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            control_truncated: header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0,
            told: control_message::parse(&self.controls[index].0[..told]),
        }
    }

    /// The bytes that the slots' offsets count from.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }
}
