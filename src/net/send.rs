//! Sending: many messages in one sendmmsg(2). Each is gathered from wherever its bytes lie, and may be many datagrams
//! (UDP_SEGMENT).

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

// As in receive.rs: without the C library's cancellation points.
use libc::syscall;

use super::address::RawAddress;
use super::control_message::{SEND_BYTES, Sending};
use super::kernel_memory::KernelMemory;
use crate::number;

/// The largest number of messages in one call; the limit of the kernel is UIO_MAXIOV, 1,024.
pub const MESSAGES_MAX: usize = 64;

/// The longest piece that is copied next to the one before it: a copy is cheaper than one more piece for the kernel to
/// gather (measured: 6 % of a small datagram's cost). Longer pieces are sent from where they lie.
const COPY_MAX_BYTES: usize = 512;
/// Room in bytes for the copies of one call. Pieces that do not fit are sent from where they lie.
const COPIES_BYTES: usize = 64 << 10;

/// A buffer for the control messages of one message, aligned as struct cmsghdr is.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SendControl([u8; SEND_BYTES]);

/// The memory for the headers of send calls, reused for every batch.
pub struct Sender {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    /// The index of the first vector of each message.
    starts: Vec<usize>,
    names: Box<[RawAddress]>,
    controls: Box<[SendControl]>,
    /// Short pieces, next to each other.
    copies: KernelMemory<u8>,
    /// The number of bytes of `copies` in use.
    copied: usize,
}

// SAFETY: the raw pointers are only followed during a `SendBatch`, which borrows both the sender and the payloads.
// Every batch begins by clearing them.
unsafe impl Send for Sender {}

impl Default for Sender {
    fn default() -> Self {
        Sender::new()
    }
}

impl Sender {
    /// Allocates the memory.
    pub fn new() -> Sender {
        Sender {
            headers: Vec::with_capacity(MESSAGES_MAX),
            vectors: Vec::with_capacity(MESSAGES_MAX * 64),
            starts: Vec::with_capacity(MESSAGES_MAX),
            names: vec![RawAddress::empty(); MESSAGES_MAX].into_boxed_slice(),
            controls: vec![SendControl([0; SEND_BYTES]); MESSAGES_MAX].into_boxed_slice(),
            copies: KernelMemory::new(vec![0; COPIES_BYTES].into_boxed_slice()),
            copied: 0,
        }
    }

    /// Begins a batch of up to [`MESSAGES_MAX`] messages whose payloads live for `'a`.
    pub fn batch<'s, 'a>(&'s mut self) -> SendBatch<'s, 'a> {
        self.headers.clear();
        self.vectors.clear();
        self.starts.clear();
        self.copied = 0;
        SendBatch {
            sender: self,
            payloads: PhantomData,
        }
    }
}

/// Messages that are being gathered and sent.
pub struct SendBatch<'s, 'a> {
    sender: &'s mut Sender,
    payloads: PhantomData<&'a [u8]>,
}

impl<'a> SendBatch<'_, 'a> {
    /// Returns whether no further message fits.
    pub fn is_full(&self) -> bool {
        self.sender.headers.len() == MESSAGES_MAX
    }

    /// Begins a message; `to` is `None` on a connected socket. Its payload follows in pieces.
    ///
    /// # Panics
    /// Panics if the batch is full.
    pub fn begin(&mut self, to: Option<&SocketAddr>, sending: &Sending) {
        let index = self.sender.headers.len();
        assert!(index < MESSAGES_MAX, "a batch holds no more messages");
        // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        if let Some(to) = to {
            let name = &mut self.sender.names[index];
            header.msg_namelen = name.set(to);
            header.msg_name = (&raw mut *name).cast();
        }
        let control = &mut self.sender.controls[index].0;
        let used = sending.write(control);
        if used > 0 {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = used;
        }
        self.sender.starts.push(self.sender.vectors.len());
        self.sender.headers.push(libc::mmsghdr {
            msg_hdr: header,
            msg_len: 0,
        });
    }

    /// Appends bytes to the message that was begun last.
    pub fn piece(&mut self, bytes: &'a [u8]) {
        let sender = &mut *self.sender;
        let Some(header) = sender.headers.last_mut() else {
            return;
        };
        let start = sender.copied;
        let end = start + bytes.len();
        let pointer = match sender.copies.get_mut(start..end) {
            Some(copy) if bytes.len() <= COPY_MAX_BYTES => {
                copy.copy_from_slice(bytes);
                sender.copied = end;
                // Of the whole buffer, not of `copy` alone: a vector may span several copies.
                sender.copies.pointer(start)
            }
            _ => bytes.as_ptr().cast_mut(),
        };
        let iov_base: *mut libc::c_void = pointer.cast();
        if header.msg_hdr.msg_iovlen > 0
            && let Some(last) = sender.vectors.last_mut()
            && last.iov_base.wrapping_byte_add(last.iov_len) == iov_base
        {
            last.iov_len += bytes.len();
            return;
        }
        sender.vectors.push(libc::iovec {
            iov_base,
            iov_len: bytes.len(),
        });
        header.msg_hdr.msg_iovlen += 1;
    }

    /// Sends the messages from index `first` on, without waiting. Returns how many of them the kernel accepted.
    ///
    /// # Errors
    /// Returns the error of sendmmsg(2), which is about the message `first` alone; `errno::of_send` classifies it.
    pub fn send(&mut self, socket: impl AsFd, first: usize) -> io::Result<usize> {
        let headers = &mut self.linked_headers()[first..];
        let fd = socket.as_fd().as_raw_fd();
        let count = number::to_u32(headers.len());
        let headers = headers.as_mut_ptr();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: each header points to a name, a control buffer and vectors of this sender, and the vectors to
        // payloads that `'a` keeps alive; the kernel only reads them, and writes msg_len. Where a vector spans two
        // payloads that lie next to each other, each byte of it belongs to one of them.
        let sent = unsafe { syscall(libc::SYS_sendmmsg, fd, headers, count, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Returns the headers of all messages, each pointing to its vectors. These may have moved while they grew, so the
    /// headers get the pointers only now.
    #[inline]
    fn linked_headers(&mut self) -> &mut [libc::mmsghdr] {
        let sender = &mut *self.sender;
        // One pointer for all: borrowing the vectors anew for each message would end the pointers set before.
        let vectors = sender.vectors.as_mut_ptr();
        for (header, &start) in sender.headers.iter_mut().zip(&sender.starts) {
            header.msg_hdr.msg_iov = vectors.wrapping_add(start);
        }
        &mut sender.headers
    }
}

/// Sends one datagram on a connected socket, without waiting. The kernel reads less than for a batch of one.
///
/// # Errors
/// Returns the error of sendto(2).
pub fn send_one(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = bytes.len();
    let bytes = bytes.as_ptr();
    let none = std::ptr::null::<libc::sockaddr>();
    // SAFETY: the descriptor is borrowed for the call and `bytes` are readable for `len`; without an address it is
    // send(2).
    let sent = unsafe {
        syscall(
            libc::SYS_sendto,
            fd,
            bytes,
            len,
            libc::MSG_DONTWAIT,
            none,
            0,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::control_message;
    use super::*;

    /// Reads a message as sendmmsg(2) does: through the pointers of the header alone.
    fn read_message(header: &libc::msghdr) -> (Option<SocketAddr>, Vec<u8>, Vec<usize>) {
        // SAFETY: the name is null or a RawAddress of the sender.
        let name = unsafe { header.msg_name.cast::<RawAddress>().as_ref() };
        let mut bytes = Vec::new();
        let mut lengths = Vec::new();
        for index in 0..header.msg_iovlen {
            // SAFETY: the header has so many vectors.
            let vector = unsafe { header.msg_iov.wrapping_add(index).read() };
            let start = bytes.len();
            bytes.resize(start + vector.iov_len, 0);
            let to = bytes[start..].as_mut_ptr();
            // SAFETY: the vector's memory is readable for its length, and `to` is writable for the same.
            unsafe { to.copy_from(vector.iov_base.cast::<u8>(), vector.iov_len) };
            lengths.push(vector.iov_len);
        }
        (name.and_then(RawAddress::get), bytes, lengths)
    }

    fn control_of(header: &libc::msghdr) -> Vec<u8> {
        let mut control = vec![0; header.msg_controllen];
        let to = control.as_mut_ptr();
        // SAFETY: the control buffer is readable for its length, and `to` is writable for the same.
        unsafe { to.copy_from(header.msg_control.cast::<u8>(), control.len()) };
        control
    }

    /// Every message of a full batch is read as it was written, whatever moved or was borrowed since: addresses,
    /// control messages, copies that lie next to each other, and long pieces where they lie. Miri checks this under its
    /// aliasing rules.
    #[test]
    fn messages_are_read_as_written() {
        let long = vec![9_u8; COPY_MAX_BYTES + 1];
        let mut sender = Sender::new();
        for _ in 0..2 {
            let mut batch = sender.batch();
            for number in 0..64_u8 {
                let to = SocketAddr::from(([192, 0, 2, number], 1_000));
                let sending = Sending {
                    ttl: Some(number),
                    ..Sending::default()
                };
                batch.begin(Some(&to), &sending);
                batch.piece(b"ab");
                batch.piece(b"");
                batch.piece(b"cd");
                batch.piece(&long);
            }
            assert!(batch.is_full());
            for (number, header) in (0..64_u8).zip(batch.linked_headers()) {
                let (to, bytes, lengths) = read_message(&header.msg_hdr);
                assert_eq!(to, Some(SocketAddr::from(([192, 0, 2, number], 1_000))));
                assert_eq!(bytes, [b"abcd", &long[..]].concat());
                assert_eq!(lengths, [4, long.len()]);
                let control = control_message::parse(&control_of(&header.msg_hdr));
                assert_eq!(control.ttl, Some(number));
            }
            sender = std::thread::spawn(|| sender)
                .join()
                .expect("the sender came back");
        }
    }

    /// A piece that does not fit into the copies is sent from where it lies, and a message without pieces has no
    /// vectors.
    #[test]
    fn full_copies_are_passed_over() {
        let piece = [7; COPY_MAX_BYTES];
        let mut sender = Sender::new();
        let mut batch = sender.batch();
        batch.piece(b"no message has begun");
        batch.begin(None, &Sending::default());
        for _ in 0..COPIES_BYTES / COPY_MAX_BYTES {
            batch.piece(&piece);
        }
        batch.piece(&piece);
        batch.piece(b"");
        batch.begin(None, &Sending::default());
        let [first, second] = batch.linked_headers() else {
            panic!("two messages");
        };
        let (to, bytes, lengths) = read_message(&first.msg_hdr);
        assert_eq!(to, None);
        assert!(bytes == vec![7; COPIES_BYTES + COPY_MAX_BYTES]);
        assert_eq!(lengths[..2], [COPIES_BYTES, COPY_MAX_BYTES]);
        assert_eq!(second.msg_hdr.msg_iovlen, 0);
        assert!(second.msg_hdr.msg_control.is_null());
    }
}
