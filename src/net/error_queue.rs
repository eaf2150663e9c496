//! Drains the error queue of a socket (IP_RECVERR in ip(7)): the errors of datagrams that it sent, as reported by ICMP
//! or by the host's stack.
//!
//! Reading an ICMP error here also clears it from the socket (sock_dequeue_err_skb in the kernel). The next send then
//! does not fail because of it. Control messages are read as bytes, as in `control_message.rs`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::control_message::{next, take};

/// The largest number of errors that one call takes, so that a flood of ICMP delays nothing else.
pub const ERRORS_MAX: usize = 64;

/// Room for struct sock_extended_err with the address of its offender, 16 + 28 bytes, and for the other control data
/// that the socket may report: destination, TTL, time.
const CONTROL_BYTES: usize = 256;

/// A buffer for control messages, aligned as struct cmsghdr is.
#[repr(C, align(8))]
struct ErrorControl([u8; CONTROL_BYTES]);

/// One error of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedError {
    /// The errno that a send would have returned.
    pub errno: i32,
    /// The origin of the error.
    pub origin: Origin,
}

/// The origin of an error: SO_EE_ORIGIN_* of include/uapi/linux/errqueue.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The stack of this host.
    Local,
    /// A message of ICMP or ICMPv6.
    Icmp,
    /// Anything else, such as a timestamp, which is not a failure of a datagram.
    Other,
}

/// Passes the errors of the queue to `each`, oldest first and at most [`ERRORS_MAX`], without waiting. Returns their
/// number; if it is [`ERRORS_MAX`], the queue may hold more.
///
/// # Errors
/// Returns the error of recvmsg(2), except EAGAIN, which ends the queue.
pub fn drain(socket: impl AsFd, mut each: impl FnMut(QueuedError)) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let mut control = ErrorControl([0; CONTROL_BYTES]);
    for count in 0..ERRORS_MAX {
        // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES;
        // SAFETY: the header points to `control`, with its length, and asks for neither payload nor address.
        let received =
            unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if received < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::EAGAIN) {
                Ok(count)
            } else {
                Err(error)
            };
        }
        let len = header.msg_controllen.min(CONTROL_BYTES);
        if let Some(failure) = parse(&control.0[..len]) {
            each(failure);
        }
    }
    Ok(ERRORS_MAX)
}

/// Returns the error among the control messages, if there is one.
fn parse(mut bytes: &[u8]) -> Option<QueuedError> {
    while let Some((kind, data, rest)) = next(bytes) {
        if matches!(
            kind,
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            return read(data);
        }
        bytes = rest;
    }
    None
}

/// Parses struct sock_extended_err: errno, origin, type, code, padding and two more numbers, 16 bytes in all. The
/// address of the offender may follow.
fn read(data: &[u8]) -> Option<QueuedError> {
    let [errno @ .., origin, _, _, _] = take::<8>(data, 0)?;
    let origin = match origin {
        libc::SO_EE_ORIGIN_LOCAL => Origin::Local,
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => Origin::Icmp,
        _ => Origin::Other,
    };
    Some(QueuedError {
        errno: i32::try_from(u32::from_ne_bytes(errno)).ok()?,
        origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::upstream::{UpstreamSocketOptions, upstream_socket};
    use proptest::prelude::*;

    fn message(len: usize, level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn of_error(v6: bool, errno: u32, origin: u8) -> Vec<u8> {
        let (level, kind) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        } else {
            (libc::IPPROTO_IP, libc::IP_RECVERR)
        };
        let mut data = errno.to_ne_bytes().to_vec();
        data.extend_from_slice(&[origin, 3, 3, 0]);
        data.resize(32, 0);
        message(16 + data.len(), level, kind, &data)
    }

    proptest! {
        /// No bytes make the parser fail, read past its input or loop.
        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        /// An error is found behind other messages, and cut off anywhere it is read whole or not at all.
        #[test]
        fn errors_are_found(
            v6: bool, errno in 0u32..200, origin in 0u8..8, before in prop::collection::vec(any::<u8>(), 0..40), cut in 0usize..200
        ) {
            let mut bytes = message(16 + before.len(), libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &before);
            bytes.extend(of_error(v6, errno, origin));
            let expected = parse(&bytes).unwrap();
            prop_assert_eq!(expected.errno, errno as i32);
            prop_assert_eq!(expected.origin, match origin { 1 => Origin::Local, 2 | 3 => Origin::Icmp, _ => Origin::Other });
            let part = parse(&bytes[..cut.min(bytes.len())]);
            prop_assert!(part.is_none() || part == Some(expected));
        }
    }

    /// A datagram to a closed port of loopback comes back through the queue; after that, sending works and the queue is
    /// empty.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn refusals_on_loopback() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(gone) = std::net::UdpSocket::bind((host, 0)) else {
                continue;
            }; // No IPv6 here.
            let closed = gone.local_addr().unwrap();
            drop(gone);
            let options = UpstreamSocketOptions {
                receives: true,
                ..UpstreamSocketOptions::plain(1 << 16)
            };
            let socket = upstream_socket(closed, &options).unwrap();
            socket.connect(closed).unwrap();
            let mut failures = Vec::new();
            for _ in 0..3 {
                socket.send(b"anybody?").unwrap();
                drain(&socket, |failure| failures.push(failure)).unwrap();
            }
            assert_eq!(
                failures,
                [QueuedError {
                    errno: libc::ECONNREFUSED,
                    origin: Origin::Icmp
                }; 3]
            );
            assert_eq!(drain(&socket, |_| ()).unwrap(), 0);
        }
    }

    /// A long queue is drained in parts, and none of its errors is lost.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn parts() {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = gone.local_addr().unwrap();
        drop(gone);
        let socket = upstream_socket(
            closed,
            &UpstreamSocketOptions {
                receives: true,
                ..UpstreamSocketOptions::plain(1 << 16)
            },
        )
        .unwrap();
        socket.connect(closed).unwrap();
        // Every other send reports the one before it instead of sending.
        let sent = (0..200)
            .filter(|_| socket.send(b"anybody?").is_ok())
            .count();
        assert_eq!(sent, 100);
        let mut seen = 0;
        assert_eq!(drain(&socket, |_| seen += 1).unwrap(), ERRORS_MAX);
        assert_eq!(drain(&socket, |_| seen += 1).unwrap(), sent - ERRORS_MAX);
        assert_eq!(seen, sent);
        // The socket itself has no error left.
        assert!(socket.send(b"anybody?").is_ok());
    }
}
