//! What the kernel reports about a datagram beside its payload: recvmsg(2), cmsg(3).
#![expect(unsafe_code, reason = "recvmsg(2) with control data")]

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use udispatch::net::option::set_int;

use super::client::Client;

/// Receives one datagram with its TTL or hop limit, and its DSCP (differentiated services code point).
pub fn receive_with_class(client: &Client) -> (Vec<u8>, u8, u8) {
    let (level, ask, ttl, class) = match client.address() {
        SocketAddr::V4(_) => (
            libc::IPPROTO_IP,
            [libc::IP_RECVTTL, libc::IP_RECVTOS],
            libc::IP_TTL,
            libc::IP_TOS,
        ),
        SocketAddr::V6(_) => {
            let ask = [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS];
            (
                libc::IPPROTO_IPV6,
                ask,
                libc::IPV6_HOPLIMIT,
                libc::IPV6_TCLASS,
            )
        }
    };
    // The options also apply to a datagram that is in the socket's queue already.
    ask.iter()
        .for_each(|option| set_int(&client.0, level, *option, 1).unwrap());
    let mut payload = vec![0_u8; 65_536];
    let mut control = [0_u64; 16];
    let mut piece = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to one writable piece and to a writable control buffer, with their lengths.
    let len = unsafe { libc::recvmsg(client.0.as_raw_fd(), &raw mut header, 0) };
    payload.truncate(usize::try_from(len).expect("a datagram comes"));
    let told: Vec<u8> = control
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take(header.msg_controllen)
        .collect();
    let find = |kind| find(&told, level, kind).unwrap_or_else(|| panic!("{kind} is not told"));
    (payload, find(ttl), find(class) >> 2)
}

/// Returns the first byte of a control message's data, an integer or a byte whose other bytes are 0. Before the data
/// come its length, level and type.
fn find(mut bytes: &[u8], level: i32, kind: i32) -> Option<u8> {
    let word =
        |bytes: &[u8], at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    while let Some(len) = word(bytes, 0)
        .and_then(|len| usize::try_from(len).ok())
        .filter(|len| *len > 0)
    {
        if (word(bytes, 8)?, word(bytes, 12)?) == (level, kind) {
            let data = bytes.get(16..len)?;
            return if cfg!(target_endian = "big") {
                data.last()
            } else {
                data.first()
            }
            .copied();
        }
        bytes = bytes.get(len.next_multiple_of(8)..)?;
    }
    None
}
