//! Receiving: one recvmmsg(2) brings up to [`SLOTS`] trains into the arena.
//!
//! The headers are prepared once and reused; a call resets only what the kernel wrote into. Each slot holds the largest
//! train there can be: under UDP_GRO the kernel truncates a train that does not fit, and its last datagrams are lost.
//! Pages of the arena that no datagram ever reached cost no memory.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

// The system calls themselves: the C library's functions of the same names are cancellation points, which costs a
// process with threads 15 ns each time (measured: 1.5 % of an exchange).
use libc::syscall;

use super::address::RawAddress;
use super::control_message::{self, RECEIVE_BYTES, Received};
use super::kernel_memory::KernelMemory;
use crate::number;

/// The largest number of trains in one call. More of them would not make a small datagram cheaper; the arena takes 8
/// MiB of addresses.
pub const SLOTS: usize = 128;
/// The largest number of trains in a call that follows long ones: 128 long trains are 8 MiB, which leave the cache
/// before they are sent on (measured: with 8 trains, the cost is a quarter lower).
pub const SLOTS_FOR_LONG: usize = 8;
/// The length in bytes from which a train is long.
pub const LONG_BYTES: u32 = 4_097;
/// The length of a slot in bytes: the length field of UDP has 16 bits, and generic receive offload keeps to the same
/// limit.
pub const SLOT_BYTES: usize = 1 << 16;
const _: () = assert!(
    SLOTS * SLOT_BYTES <= u32::MAX as usize,
    "a slot's offset and length have 32 bits"
);

/// The size in bytes of the largest page that Linux has on any machine, so that pages are whole on every machine.
const PAGE_BYTES: usize = 1 << 16;

/// A buffer for the control messages of one train, aligned as struct cmsghdr is.
#[repr(C, align(8))]
struct ReceiveControl([u8; RECEIVE_BYTES]);

/// The arena and the headers of one worker.
///
/// All memory that headers point to is `KernelMemory`, so the pointers stay valid while the receiver is moved and its
/// slots are read.
pub struct Receiver {
    arena: KernelMemory<u8>,
    /// Headers that ask for the source address of each train.
    named: Headers,
    /// Headers that do not ask for it: reporting it is 3 to 10 % of the kernel's cost of a datagram.
    nameless: Headers,
    names: KernelMemory<RawAddress>,
    controls: KernelMemory<ReceiveControl>,
    /// Kept alive for the headers, which point to it.
    _vectors: KernelMemory<libc::iovec>,
    /// The number of slots that hold a train.
    received: usize,
    /// Whether these trains came by the `named` headers.
    with_names: bool,
}

// SAFETY: the raw pointers in the headers and vectors point only into memory of the same struct, which has no other
// user.
unsafe impl Send for Receiver {}

/// The headers of a call.
struct Headers {
    headers: Box<[libc::mmsghdr]>,
    /// The number of headers that the kernel wrote into since they were last reset.
    used: usize,
}

impl Headers {
    /// Restores the fields that the kernel wrote into.
    fn reset(&mut self) {
        for header in &mut self.headers[..self.used] {
            header.msg_hdr.msg_namelen = RawAddress::LEN;
            header.msg_hdr.msg_controllen = RECEIVE_BYTES;
        }
        self.used = 0;
    }
}

/// One received train, as it lies in its slot. Addresses and control messages are parsed only when asked for.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    name: Option<&'a RawAddress>,
    control: &'a [u8],
    /// The position of the first byte in the arena.
    pub offset: u32,
    /// The length in bytes.
    pub len: u32,
    flags: libc::c_int,
}

impl Slot<'_> {
    /// Returns the source address; `None` if the kernel was not asked for it or did not report it.
    #[inline]
    pub fn src(&self) -> Option<SocketAddr> {
        self.name.and_then(RawAddress::get)
    }

    /// Returns the parsed control messages.
    #[inline]
    pub fn control_data(&self) -> Received {
        control_message::parse(self.control)
    }

    /// Returns whether the train was larger than the slot (MSG_TRUNC).
    pub fn is_truncated(&self) -> bool {
        self.flags & libc::MSG_TRUNC != 0
    }

    /// Returns whether control messages were lost (MSG_CTRUNC).
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
    /// Allocates the arena and the headers that point into it.
    pub fn new() -> Receiver {
        // Zeroed memory comes from the kernel untouched, so only pages that a datagram reaches become resident.
        let arena = KernelMemory::new(vec![0u8; SLOTS * SLOT_BYTES].into_boxed_slice());
        let names = KernelMemory::new(vec![RawAddress::empty(); SLOTS].into_boxed_slice());
        let controls = (0..SLOTS).map(|_| ReceiveControl([0; RECEIVE_BYTES]));
        let controls = KernelMemory::new(controls.collect());
        let vectors = (0..SLOTS).map(|slot| libc::iovec {
            iov_base: arena.pointer(slot * SLOT_BYTES).cast(),
            iov_len: SLOT_BYTES,
        });
        let vectors = KernelMemory::new(vectors.collect());
        let headers = |with_names: bool| {
            let header = (0..SLOTS).map(|slot| {
                // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
                let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
                header.msg_iov = vectors.pointer(slot);
                header.msg_iovlen = 1;
                if with_names {
                    header.msg_name = names.pointer(slot).cast();
                    header.msg_namelen = RawAddress::LEN;
                }
                header.msg_control = controls.pointer(slot).cast();
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
        let named = headers(true);
        let nameless = headers(false);
        Receiver {
            arena,
            named,
            nameless,
            names,
            controls,
            _vectors: vectors,
            received: 0,
            with_names: true,
        }
    }

    /// Receives up to `max` trains (at most [`SLOTS`]) without waiting. Returns their number. Fewer than `max` mean
    /// that the socket was drained, or that an error is pending which the next call will report.
    ///
    /// # Errors
    /// Returns the error of recvmmsg(2), which `errno::of_receive` classifies.
    pub fn receive(
        &mut self,
        socket: impl AsFd,
        max: usize,
        with_names: bool,
    ) -> io::Result<usize> {
        self.begin(with_names);
        self.receive_more(socket, max)
    }

    /// Discards what was received before; [`Receiver::receive_more`] then fills the slots from the first one on.
    pub fn begin(&mut self, with_names: bool) {
        self.received = 0;
        self.with_names = with_names;
        self.headers_mut().reset();
    }

    /// Returns the number of free slots.
    pub fn room(&self) -> usize {
        SLOTS - self.received
    }

    /// Receives up to `max` trains from one more socket, after those that the slots hold already. Returns their number.
    ///
    /// # Errors
    /// Returns the error of recvmmsg(2); the slots keep what they held.
    pub fn receive_more(&mut self, socket: impl AsFd, max: usize) -> io::Result<usize> {
        let fd = socket.as_fd().as_raw_fd();
        let headers = self.free_headers(max);
        let count = number::to_u32(headers.len());
        let headers = headers.as_mut_ptr();
        let flags = libc::MSG_DONTWAIT;
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: the headers point to names, vectors, controls and arena slots that this struct owns, with their
        // lengths, and there are `count` of them; nothing else refers to them during the call.
        let received = unsafe { syscall(libc::SYS_recvmmsg, fd, headers, count, flags, forever) };
        let Ok(received) = usize::try_from(received) else {
            return Err(io::Error::last_os_error());
        };
        self.fill(received);
        Ok(received)
    }

    /// Receives one datagram from one more socket, without source address and control messages. This costs half of a
    /// batch of one. Returns 1, or 0 if no slot is free.
    ///
    /// # Errors
    /// Returns the error of recvfrom(2); the slots keep what they held.
    pub fn receive_one(&mut self, socket: impl AsFd) -> io::Result<usize> {
        if self.room() == 0 {
            return Ok(0);
        }
        let fd = socket.as_fd().as_raw_fd();
        let slot = self.arena.pointer(self.received * SLOT_BYTES);
        let none = std::ptr::null_mut::<libc::sockaddr>();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the descriptor is borrowed for the call, and the slot is writable for its length; without an address
        // it is recv(2).
        let len = unsafe { syscall(libc::SYS_recvfrom, fd, slot, SLOT_BYTES, flags, none, none) };
        let Ok(len) = u32::try_from(len) else {
            return Err(io::Error::last_os_error());
        };
        if let [header] = self.free_headers(1) {
            header.msg_len = len;
            header.msg_hdr.msg_controllen = 0;
            header.msg_hdr.msg_flags = 0;
        }
        self.fill(1);
        Ok(1)
    }

    /// Returns the headers of the free slots, at most `max` of them.
    #[inline]
    fn free_headers(&mut self, max: usize) -> &mut [libc::mmsghdr] {
        let first = self.received;
        let free = &mut self.headers_mut().headers[first..];
        let count = max.min(free.len());
        &mut free[..count]
    }

    /// Counts so many of the free slots, from the first on, as holding a train.
    #[inline]
    fn fill(&mut self, trains: usize) {
        self.received += trains;
        self.headers_mut().used = self.received;
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut Headers {
        if self.with_names {
            &mut self.named
        } else {
            &mut self.nameless
        }
    }

    /// Returns the memory of all slots but the first [`SLOTS_FOR_LONG`] to the system, after a batch of long trains
    /// filled it. The mutable borrow excludes that a slice of the arena is still in use.
    pub fn release(&mut self) {
        let start = self.arena.pointer(SLOTS_FOR_LONG * SLOT_BYTES);
        let len = (SLOTS - SLOTS_FOR_LONG) * SLOT_BYTES;
        // madvise(2) wants whole pages; the allocation of a large buffer begins 16 bytes into its first one.
        let skip = start.align_offset(PAGE_BYTES);
        let whole = len.saturating_sub(skip) / PAGE_BYTES * PAGE_BYTES;
        let first = start.wrapping_add(skip);
        // SAFETY: the pages lie inside the arena, which is private anonymous memory and borrowed mutably here;
        // afterwards they read as zeroes, which are bytes like any others.
        unsafe { libc::madvise(first.cast(), whole, libc::MADV_DONTNEED) };
    }

    /// Returns the trains in the order in which they were received.
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
            name: self.with_names.then(|| self.names.get(index)),
            control: &self.controls.get(index).0[..control_len],
            offset: number::to_u32(index * SLOT_BYTES),
            len: header.msg_len.min(number::to_u32(SLOT_BYTES)),
            flags: header.msg_hdr.msg_flags,
        }
    }

    /// Returns the bytes of all slots, from which the offsets of the slots are counted.
    pub fn arena(&self) -> &[u8] {
        self.arena.all()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::control_message::{SEND_BYTES, Sending};
    use super::*;

    /// Writes a train as recvmmsg(2) does: through the pointers of the header alone.
    fn write_train(header: &mut libc::mmsghdr, payload: &[u8], from: SocketAddr, ttl: u8) {
        let sending = Sending {
            ttl: Some(ttl),
            from: Some(from.ip()),
            ..Sending::default()
        };
        let mut control = [0; SEND_BYTES];
        let control_len = sending.write(&mut control);
        let message = &mut header.msg_hdr;
        // SAFETY: the header has one vector.
        let vector = unsafe { message.msg_iov.read() };
        assert!(payload.len() <= vector.iov_len && control_len <= message.msg_controllen);
        // SAFETY: the vector's memory is writable for its length, which is larger.
        unsafe {
            vector
                .iov_base
                .cast::<u8>()
                .copy_from(payload.as_ptr(), payload.len());
        };
        // SAFETY: as above, for the control buffer.
        unsafe {
            message
                .msg_control
                .cast::<u8>()
                .copy_from(control.as_ptr(), control_len);
        };
        message.msg_controllen = control_len;
        message.msg_flags = 0;
        header.msg_len = u32::try_from(payload.len()).expect("a short payload");
        if !message.msg_name.is_null() {
            assert_eq!(message.msg_namelen, RawAddress::LEN);
            let mut name = RawAddress::empty();
            message.msg_namelen = name.set(&from);
            // SAFETY: the name's memory is a RawAddress.
            unsafe { message.msg_name.cast::<RawAddress>().write(name) };
        }
    }

    /// Writes `trains` datagrams that contain their number, as one receive call would.
    fn receive_call(receiver: &mut Receiver, trains: u8) {
        let first = receiver.received;
        let headers = receiver.free_headers(usize::from(trains));
        for (number, header) in (0..trains).zip(headers) {
            let from = SocketAddr::from(([192, 0, 2, number], 1_000));
            write_train(header, &[number; 3], from, number);
        }
        receiver.fill(usize::from(trains));
        assert_eq!(receiver.received, first + usize::from(trains));
    }

    /// The pointers in the headers stay valid from call to call: after slots were read, after the receiver was moved to
    /// another thread, and with both sets of headers. Miri checks this under its aliasing rules.
    #[test]
    fn headers_outlive_moves_and_reads() {
        let mut receiver = Receiver::new();
        for with_names in [true, false, true] {
            receiver.begin(with_names);
            receive_call(&mut receiver, 3);
            assert_eq!(receiver.slots().count(), 3);
            receive_call(&mut receiver, 2);
            let slots: Vec<Slot<'_>> = receiver.slots().collect();
            for (slot, number) in slots.iter().zip([0, 1, 2, 0, 1]) {
                let ip = IpAddr::from([192, 0, 2, number]);
                assert_eq!(slot.src().map(|src| src.ip()), with_names.then_some(ip));
                assert_eq!(slot.control_data().ttl, Some(number));
                assert_eq!(slot.control_data().local, Some(ip));
                let bytes = &receiver.arena()[slot.offset as usize..][..slot.len as usize];
                assert_eq!(bytes, [number; 3]);
            }
            drop(slots);
            receiver = std::thread::spawn(|| receiver)
                .join()
                .expect("the receiver came back");
        }
    }

    /// A call gets no more headers than slots are free, and used headers are reset for the next turn.
    #[test]
    fn slots_are_bounded_and_headers_are_reset() {
        let mut receiver = Receiver::new();
        assert_eq!(receiver.free_headers(usize::MAX).len(), SLOTS);
        receiver.begin(true);
        receive_call(&mut receiver, 120);
        assert_eq!((receiver.room(), receiver.free_headers(9).len()), (8, 8));
        receiver.begin(true);
        let reset = receiver.free_headers(SLOTS).iter().all(|header| {
            header.msg_hdr.msg_namelen == RawAddress::LEN
                && header.msg_hdr.msg_controllen == RECEIVE_BYTES
        });
        assert!(reset);
    }
}
