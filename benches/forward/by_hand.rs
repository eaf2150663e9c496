//! The yardstick: the fastest forwarder that we can write by hand, with nothing in it but the forwarding.
//!
//! One blocking recvmmsg (MSG_WAITFORONE) takes up to 64 messages, with whole trains of segments (UDP_GRO). Neighbours
//! of equal size are sent as one gathered UDP_SEGMENT send on the connected socket of each upstream. It counts nothing,
//! checks nothing and ignores errors: what udispatch costs more than this is the price of its features. It runs as a
//! process of its own, the benchmark's own binary started with the word `by-hand`.
//!
//! Two parts of it are not obvious, and each pays (measured on loopback, one core with 2 MiB of second-level cache):
//!
//! - After a long train it asks for few messages. 64 of them would be 4 MiB, and would have left the cache before they
//!   are sent, which costs 40 % more.
//! - Small datagrams are copied next to each other, so that a send gathers one piece instead of 64. That is 6 % cheaper
//!   with one upstream, and 13 % with three.

use crate::sys::{self, PAYLOAD_MAX_BYTES, ReceiveBatch, SEGMENTS_MAX, SegmentedSend};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Number of messages taken at once, usually and after a long train.
const SLOTS: usize = 64;
const SLOTS_FOR_TRAINS: usize = 8;
/// A slot holds the longest message. With UDP_GRO the kernel silently cuts off what does not fit.
const SLOT_BYTES: usize = 64 * 1024;
/// Smallest length in bytes of a message that counts as a long train.
const LONG_BYTES: usize = 4097;
/// Largest length in bytes for which a copy is cheaper than one more piece to gather.
const COPY_MAX_BYTES: usize = 512;

/// Forwards from `listen` to all `upstreams`, forever.
pub(crate) fn run(listen: SocketAddr, upstreams: &[SocketAddr]) -> io::Result<()> {
    let listener = UdpSocket::bind(listen)?;
    sys::set_int(&listener, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    sys::set_int(
        &listener,
        libc::SOL_SOCKET,
        libc::SO_RCVBUF,
        libc::c_int::MAX / 2,
    )?;
    let mut senders = Vec::new();
    for upstream in upstreams {
        let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        sender.connect(upstream)?;
        senders.push(sender);
    }

    let mut batch = ReceiveBatch::new(SLOTS, SLOT_BYTES);
    let mut segmented = SegmentedSend::new();
    let mut run = Run::new();
    let mut slots = SLOTS;
    loop {
        let received = batch.receive(listener.as_raw_fd(), slots, libc::MSG_WAITFORONE);
        let Ok(filled) = received else { continue };
        slots = if batch.len(filled - 1) < LONG_BYTES {
            SLOTS
        } else {
            SLOTS_FOR_TRAINS
        };
        for slot in 0..filled {
            let segment = batch.take_segment(slot);
            if !run.takes(segment, batch.len(slot)) {
                run.send(&senders, &mut segmented);
                run.segment = segment;
            }
            run.push(&batch, slot);
        }
        run.send(&senders, &mut segmented);
    }
}

/// Neighbours that are sent together.
struct Run {
    /// Length of every datagram in the run. Only the last one may be shorter.
    segment: usize,
    total: usize,
    iovecs: Vec<libc::iovec>,
    copies: Vec<u8>,
}

impl Run {
    fn new() -> Self {
        // The copies never grow: a run has at most 64 datagrams of at most 512 B.
        let copies = Vec::with_capacity(SEGMENTS_MAX * COPY_MAX_BYTES);
        Self {
            segment: 0,
            total: 0,
            iovecs: Vec::with_capacity(SLOTS),
            copies,
        }
    }

    /// Whether a message may join the run.
    #[inline]
    fn takes(&self, segment: usize, len: usize) -> bool {
        let joined = self.total + len;
        let fits = joined <= PAYLOAD_MAX_BYTES && joined <= segment * SEGMENTS_MAX;
        // `total` is never 0 in a run that another may join, so `segment` is not 0 either.
        segment == self.segment && self.total > 0 && fits && self.total.is_multiple_of(segment)
    }

    #[inline]
    fn push(&mut self, batch: &ReceiveBatch, slot: usize) {
        self.total += batch.len(slot);
        if batch.len(slot) > COPY_MAX_BYTES {
            self.iovecs.push(batch.iovec(slot));
            return;
        }
        let start = self.copies.len();
        self.copies.extend_from_slice(batch.bytes(slot));
        let copy = &mut self.copies[start..];
        let iov_base = copy.as_mut_ptr().cast();
        let iov_len = copy.len();
        match self.iovecs.last_mut() {
            Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == iov_base => {
                last.iov_len += iov_len;
            }
            _ => self.iovecs.push(libc::iovec { iov_base, iov_len }),
        }
    }

    /// Sends the run, if there is one, to every upstream, and begins a new one.
    #[inline]
    fn send(&mut self, senders: &[UdpSocket], segmented: &mut SegmentedSend) {
        if self.iovecs.is_empty() {
            return;
        }
        let cut = if self.total > self.segment {
            self.segment as u16
        } else {
            0
        };
        for sender in senders {
            let _ = segmented.send(sender.as_raw_fd(), &mut self.iovecs, cut);
        }
        self.total = 0;
        self.iovecs.clear();
        self.copies.clear();
    }
}
