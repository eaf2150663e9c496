//! Sending: many messages in one sendmmsg(2), each gathered from wherever its bytes lie, each perhaps many datagrams
//! (UDP_SEGMENT).

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

// As in receive.rs: without the C library's cancellation points.
use libc::syscall;

use super::address::RawAddress;
use super::control_message::{SEND_BYTES, Sending};

/// Messages in one call; the kernel's own limit is UIO_MAXIOV, 1,024.
pub const MESSAGES_MAX: usize = 64;

/// Pieces up to this length are copied next to each other: a copy is cheaper than one more piece for the kernel to gather
/// (measured: 6 % of a small datagram's price). Longer ones are sent from where they lie.
const COPY_MAX_BYTES: usize = 512;
/// Room for copies in one call. What does not fit any more is sent from where it lies.
const COPIES_BYTES: usize = 64 << 10;

/// Aligned as struct cmsghdr is.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SendControl([u8; SEND_BYTES]);

/// Memory for the headers of a call, used again and again.
pub struct Sender {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    /// The first vector of each message.
    starts: Vec<usize>,
    names: Box<[RawAddress]>,
    controls: Box<[SendControl]>,
    /// Short pieces, next to each other.
    copies: Box<[u8]>,
    copied: usize,
}

// SAFETY: its raw pointers are only followed during a `SendBatch`, which borrows both the sender and the payloads, and
// every batch begins by forgetting them.
unsafe impl Send for Sender {}

impl Default for Sender {
    fn default() -> Self {
        Sender::new()
    }
}

impl Sender {
    /// Sets memory aside.
    pub fn new() -> Sender {
        Sender {
            headers: Vec::with_capacity(MESSAGES_MAX),
            vectors: Vec::with_capacity(MESSAGES_MAX * 64),
            starts: Vec::with_capacity(MESSAGES_MAX),
            names: vec![RawAddress::empty(); MESSAGES_MAX].into_boxed_slice(),
            controls: vec![SendControl([0; SEND_BYTES]); MESSAGES_MAX].into_boxed_slice(),
            copies: vec![0; COPIES_BYTES].into_boxed_slice(),
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

/// Messages being gathered and sent.
pub struct SendBatch<'s, 'a> {
    sender: &'s mut Sender,
    payloads: PhantomData<&'a [u8]>,
}

impl<'a> SendBatch<'_, 'a> {
    /// Whether no further message fits.
    pub fn is_full(&self) -> bool {
        self.sender.headers.len() == MESSAGES_MAX
    }

    /// Begins a message; `to` is `None` on a connected socket. Its payload follows in pieces.
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

    /// Appends bytes to the message begun last.
    pub fn piece(&mut self, bytes: &'a [u8]) {
        let sender = &mut *self.sender;
        let Some(header) = sender.headers.last_mut() else {
            return;
        };
        let bytes = match sender
            .copies
            .get_mut(sender.copied..sender.copied + bytes.len())
        {
            Some(copy) if bytes.len() <= COPY_MAX_BYTES => {
                copy.copy_from_slice(bytes);
                sender.copied += bytes.len();
                &*copy
            }
            _ => bytes,
        };
        let iov_base: *mut libc::c_void = bytes.as_ptr().cast_mut().cast();
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

    /// Sends from message `first` on, without waiting. Returns how many messages the kernel took; an error speaks of the
    /// message `first` alone.
    pub fn send(&mut self, socket: impl AsFd, first: usize) -> io::Result<usize> {
        let Sender {
            headers,
            vectors,
            starts,
            ..
        } = &mut *self.sender;
        // The vectors may have moved while they grew, so the headers learn of them only now.
        for (header, &start) in headers.iter_mut().zip(&*starts) {
            header.msg_hdr.msg_iov = vectors[start..].as_mut_ptr();
        }
        let rest = &mut headers[first..];
        let fd = socket.as_fd().as_raw_fd();
        let (pointer, count, flags) = (rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT);
        // SAFETY: each header points to a name, a control buffer and vectors of this sender, and the vectors to payloads
        // that `'a` keeps alive; the kernel only reads them, and writes msg_len.
        let sent = unsafe { syscall(libc::SYS_sendmmsg, fd, pointer, count, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Sends one datagram on a connected socket, without waiting: less for the kernel to read than a batch of one.
pub fn send_one(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let (bytes, len) = (bytes.as_ptr(), bytes.len());
    let nobody = std::ptr::null::<libc::sockaddr>();
    // SAFETY: the descriptor is borrowed for the call and `bytes` are readable for `len`; without an address it is send(2).
    let sent = unsafe {
        syscall(
            libc::SYS_sendto,
            fd,
            bytes,
            len,
            libc::MSG_DONTWAIT,
            nobody,
            0,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
