//! The yardstick: the fastest forwarder that we know how to write by hand, with nothing in it but the forwarding.
//!
//! One blocking recvmmsg (MSG_WAITFORONE) takes up to 32 messages, trains of segments whole (UDP_GRO). Neighbours of equal size leave
//! as one gathered UDP_SEGMENT send on the connected socket of each upstream. It counts nothing, checks nothing and forgets errors:
//! whatever udispatch costs more than this is the price of its features. It runs as a process of its own, the bench's own
//! binary started with the word `by-hand`.

use crate::sys::{self, PAYLOAD_MAX_BYTES, ReceiveBatch, SEGMENTS_MAX, SegmentedSend};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

const SLOTS: usize = 32;
const SLOT_BYTES: usize = 64 * 1024;

/// Forwards from `listen` to all `upstreams`, for ever.
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
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sender.connect(upstream)?;
        senders.push(sender);
    }

    let mut batch = ReceiveBatch::new(SLOTS, SLOT_BYTES);
    let mut segmented = SegmentedSend::new();
    let mut iovecs = Vec::with_capacity(SLOTS);
    loop {
        let Ok(filled) = batch.receive(listener.as_raw_fd(), libc::MSG_WAITFORONE) else {
            continue;
        };
        let mut slot = 0;
        let mut next_segment = batch.take_segment(0);
        while slot < filled {
            let segment = next_segment;
            let mut total = 0;
            iovecs.clear();
            // A shorter datagram may only be the last one of a send, so it ends the run; so does anything that is longer.
            loop {
                let len = batch.len(slot);
                total += len;
                iovecs.push(batch.iovec(slot));
                slot += 1;
                if slot == filled {
                    break;
                }
                next_segment = batch.take_segment(slot);
                let joined = total + batch.len(slot);
                let whole = segment > 0 && total % segment == 0;
                let fits = joined <= PAYLOAD_MAX_BYTES && joined <= segment * SEGMENTS_MAX;
                if !whole || !fits || next_segment != segment {
                    break;
                }
            }
            let cut = if total > segment { segment as u16 } else { 0 };
            for sender in &senders {
                let _ = segmented.send(sender.as_raw_fd(), &mut iovecs, cut);
            }
        }
    }
}
