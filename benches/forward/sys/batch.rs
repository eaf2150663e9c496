//! Batches of datagrams between connected sockets: one recvmmsg into slots, one gathered and segmented send, one
//! sendmmsg of equal datagrams.

use super::{checked, checked_len};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::RawFd;
use std::ptr;
use std::slice;

/// Slots for one recvmmsg, with the headers made once and reused.
pub(crate) struct ReceiveBatch {
    headers: Vec<libc::mmsghdr>,
    // The headers point to these, which are never moved or resized while the headers exist.
    iovecs: Vec<libc::iovec>,
    _controls: Vec<Control>,
    _bytes: Vec<u8>,
}

/// Space for the control messages of one received message. The segment size of UDP_GRO is an int.
#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

// SAFETY: CMSG_SPACE is arithmetic on its argument.
const CONTROL_BYTES: usize =
    unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as libc::c_uint) } as usize;

impl ReceiveBatch {
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> Self {
        let mut bytes = vec![0; slots * slot_bytes];
        let mut controls = vec![Control([0; CONTROL_BYTES]); slots];
        let mut iovecs: Vec<_> = bytes
            .chunks_mut(slot_bytes)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let headers = iovecs
            .iter_mut()
            .zip(&mut controls)
            .map(|(iovec, control)| message(iovec, 1, control.0.as_mut_ptr(), CONTROL_BYTES));
        Self {
            headers: headers.collect(),
            iovecs,
            _controls: controls,
            _bytes: bytes,
        }
    }

    /// Makes one recvmmsg into the first `slots` slots. Returns how many it filled.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        socket: RawFd,
        slots: usize,
        flags: libc::c_int,
    ) -> io::Result<usize> {
        let headers = &mut self.headers[..slots];
        let first = headers.as_mut_ptr();
        let count = slots as libc::c_uint;
        // SAFETY: each header points to an iovec and a control buffer that `self` owns, with their true lengths.
        let filled =
            checked(unsafe { libc::recvmmsg(socket, first, count, flags, ptr::null_mut()) })?;
        Ok(filled as usize)
    }

    /// Length of the message in a filled slot, in bytes.
    #[inline]
    pub(crate) fn len(&self, slot: usize) -> usize {
        self.headers[slot].msg_len as usize
    }

    /// The bytes of the filled slot, to be gathered into a send.
    #[inline]
    pub(crate) fn iovec(&self, slot: usize) -> libc::iovec {
        libc::iovec {
            iov_base: self.iovecs[slot].iov_base,
            iov_len: self.len(slot),
        }
    }

    /// The bytes of the filled slot, to be copied.
    #[inline]
    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        let iovec = self.iovec(slot);
        // SAFETY: the kernel wrote that many bytes, and without MSG_TRUNC its word is never more than the slot's size.
        unsafe { slice::from_raw_parts(iovec.iov_base.cast(), iovec.iov_len) }
    }

    /// Returns the size of the datagrams in the slot: the segment size of a train, or the length of a single datagram.
    /// Prepares the header for the next receive, because the kernel changes it where it adds or shortens a control
    /// message.
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

/// A message header over the caller's pointers. It is valid as long as they are.
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

/// A send of several datagrams of one size: the kernel gathers the iovecs and cuts the result (UDP_SEGMENT).
pub(crate) struct SegmentedSend {
    control: Control16,
}

/// The type of the value of UDP_SEGMENT, a u16.
#[repr(align(8))]
struct Control16([u8; CONTROL16_BYTES]);

// SAFETY: CMSG_SPACE is arithmetic on its argument.
const CONTROL16_BYTES: usize =
    unsafe { libc::CMSG_SPACE(size_of::<u16>() as libc::c_uint) } as usize;

impl SegmentedSend {
    pub(crate) fn new() -> Self {
        let mut send = Self {
            control: Control16([0; CONTROL16_BYTES]),
        };
        // SAFETY: a cmsghdr is made of integers, for which zero is a value.
        let mut head: libc::cmsghdr = unsafe { mem::zeroed() };
        head.cmsg_level = libc::SOL_UDP;
        head.cmsg_type = libc::UDP_SEGMENT;
        // SAFETY: CMSG_LEN is arithmetic on its argument.
        head.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<u16>() as libc::c_uint) } as _;
        // SAFETY: the buffer is aligned for a cmsghdr and longer than one.
        unsafe {
            send.control
                .0
                .as_mut_ptr()
                .cast::<libc::cmsghdr>()
                .write(head);
        };
        send
    }

    /// Makes one sendmsg on a connected socket. `segment` is 0 for an ordinary datagram.
    #[inline]
    pub(crate) fn send(
        &mut self,
        socket: RawFd,
        iovecs: &mut [libc::iovec],
        segment: u16,
    ) -> io::Result<usize> {
        let control_bytes = if segment == 0 { 0 } else { CONTROL16_BYTES };
        let at = size_of::<libc::cmsghdr>();
        self.control.0[at..at + 2].copy_from_slice(&segment.to_ne_bytes());
        let header = message(
            iovecs.as_mut_ptr(),
            iovecs.len(),
            self.control.0.as_mut_ptr(),
            control_bytes,
        );
        // SAFETY: the header points to `iovecs`, whose buffers the caller holds, and to this control buffer.
        checked_len(unsafe { libc::sendmsg(socket, &raw const header.msg_hdr, 0) })
    }
}

/// Sends the bytes `count` times as ordinary datagrams, by one sendmmsg for each `headers.len()` of them.
pub(crate) struct PlainSend {
    headers: Vec<libc::mmsghdr>,
    _iovec: Box<libc::iovec>,
    _payload: Vec<u8>,
}

impl PlainSend {
    pub(crate) fn new(mut payload: Vec<u8>, batch: usize) -> Self {
        let mut iovec = Box::new(libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: payload.len(),
        });
        let headers = (0..batch)
            .map(|_| message(&raw mut *iovec, 1, ptr::null_mut(), 0))
            .collect();
        Self {
            headers,
            _iovec: iovec,
            _payload: payload,
        }
    }

    pub(crate) fn send(&mut self, socket: RawFd, count: usize) -> io::Result<usize> {
        let count = count.min(self.headers.len()) as libc::c_uint;
        // SAFETY: every header points to the one iovec and payload that `self` owns.
        Ok(
            checked(unsafe { libc::sendmmsg(socket, self.headers.as_mut_ptr(), count, 0) })?
                as usize,
        )
    }
}
