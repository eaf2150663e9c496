//! Classifies every errno of receiving, sending and probing. No other file interprets an errno; the others match on the
//! classification.

use std::io;

/// The meaning of a failed receive call for the listener. None of these ends the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveError {
    /// The socket is empty: wait for the next event.
    Drained,
    /// Call again at once: the call was interrupted, or reported an error that belonged to some datagram and is now
    /// cleared.
    Again,
    /// Call again after a pause: the host lacks memory, or the error is unknown.
    Later,
}

/// The meaning of a failed send call for its datagrams. None of these ends the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The call was interrupted before anything was sent: repeat it.
    Again,
    /// The socket may have held an error that an earlier datagram caused (ICMP), which this call only reported: repeat
    /// the call once. See udp(7), and icmp_err_convert, icmpv6_err_convert and sock_error in the kernel.
    Pending,
    /// The send buffer or the queue of the device is full: the datagrams are lost, and so would be what follows at
    /// once.
    Full,
    /// These datagrams cannot be sent; later ones may.
    Refused,
}

/// The meaning of a failed call for a probe of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// The socket is not ready yet: wait for the next event.
    Wait,
    /// The call was interrupted: repeat it.
    Again,
    /// The upstream's host reports that nothing listens there, or breaks the connection off.
    Refused,
    /// No route leads to the upstream.
    Unreachable,
    /// This host lacks a resource, so the upstream may be alive or dead.
    Ours,
}

/// Classifies an error of a probe's socket: connect(2), send(2), recv(2).
pub fn of_probe(error: &io::Error) -> ProbeError {
    match error.raw_os_error() {
        // ENOTCONN: getpeername(2) while the connection is still under way.
        Some(libc::EAGAIN | libc::EINPROGRESS | libc::ENOTCONN) => ProbeError::Wait,
        Some(libc::EINTR) => ProbeError::Again,
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE) => ProbeError::Refused,
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRINUSE
            | libc::EADDRNOTAVAIL
            | libc::EAFNOSUPPORT
            | libc::ENODEV,
        ) => ProbeError::Ours,
        _ => ProbeError::Unreachable,
    }
}

/// Classifies an error of recvmmsg(2).
pub fn of_receive(error: &io::Error) -> ReceiveError {
    match error.raw_os_error() {
        // EWOULDBLOCK is the same number on Linux.
        Some(libc::EAGAIN) => ReceiveError::Drained,
        Some(libc::EINTR) => ReceiveError::Again,
        // Errors that ICMP or the stack left on the socket (so_error); reading one clears it.
        Some(
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN
            | libc::EMSGSIZE
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENONET,
        ) => ReceiveError::Again,
        _ => ReceiveError::Later,
    }
}

/// Classifies an error of sendmmsg(2), which is about its first message.
pub fn of_send(error: &io::Error) -> SendError {
    match error.raw_os_error() {
        Some(libc::EINTR) => SendError::Again,
        Some(
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENONET
            | libc::EACCES
            | libc::EMSGSIZE,
        ) => SendError::Pending,
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::Full,
        _ => SendError::Refused,
    }
}

/// Returns whether a segmented send that failed with this error may succeed datagram by datagram: the device cannot
/// segment (EIO), or a segment is larger than the path allows (EINVAL until Linux 6.9, EMSGSIZE since; udp_send_skb in
/// net/ipv4/udp.c).
pub fn refuses_segments(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
    )
}

/// Returns whether the error is about the size alone, so that smaller segments may still pass.
pub fn is_about_size(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE))
}

/// Returns whether an error after which the call is repeated reports the loss of an earlier datagram: no listener
/// there, or no route. EMSGSIZE reports the MTU of the path, which is not a loss.
pub fn is_report(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EMSGSIZE))
}

/// Returns whether the reason may be that the source address is no longer an address of this host. Without it there is
/// no route (ip_route_output_key_hash_rcu in net/ipv4/route.c returns ENETUNREACH or EINVAL).
pub fn may_lack_source(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(lacks_source)
}

/// Returns whether this errno may mean that the source address is no longer an address of this host; see
/// [`may_lack_source`].
pub fn lacks_source(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EADDRNOTAVAIL
    )
}

/// The errno that stands for a datagram which could not be built: the address of its sender is of another family than
/// the upstream's, or it is too long for that family.
pub const UNSENDABLE: i32 = libc::EAFNOSUPPORT;

/// Returns whether a socket could not be opened or connected because a resource is exhausted: source ports (EAGAIN from
/// connect(2), EADDRINUSE from bind(2)), open files, memory.
pub fn lacks_port(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::EADDRINUSE
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
        )
    )
}

/// Returns whether a file could not be opened because too many are open, in this process (EMFILE) or on the whole host
/// (ENFILE).
pub fn lacks_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Returns the name of an errno that sending can return, for the ledger; `other` for the rest.
pub fn name(errno: i32) -> &'static str {
    match errno {
        libc::EACCES => "EACCES",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EAGAIN => "EAGAIN",
        libc::EBADF => "EBADF",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EDESTADDRREQ => "EDESTADDRREQ",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENODEV => "ENODEV",
        libc::ENOMEM => "ENOMEM",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::ENXIO => "ENXIO",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EPERM => "EPERM",
        libc::EPROTO => "EPROTO",
        _ => "other",
    }
}

/// Returns a label that is different for every errno, and that [`of_label`] parses.
pub fn label(errno: i32) -> String {
    match name(errno) {
        "other" => format!("errno_{errno}"),
        name => name.to_owned(),
    }
}

/// Returns the errno that a label stands for; 0 if it stands for none.
pub fn of_label(label: &str) -> i32 {
    match label.strip_prefix("errno_") {
        Some(number) => number.parse().unwrap_or(0),
        None => (1..=ERRNO_MAX)
            .find(|errno| self::label(*errno) == label)
            .unwrap_or(0),
    }
}

/// The largest errno of Linux: EHWPOISON is the last one (MAX_ERRNO in include/linux/err.h is far beyond).
const ERRNO_MAX: i32 = libc::EHWPOISON;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each label is parsed back to its errno.
    #[test]
    fn labels_lead_back() {
        for errno in 1..=ERRNO_MAX {
            assert_eq!(of_label(&label(errno)), errno);
        }
        assert_eq!((of_label("other"), of_label("errno_x")), (0, 0));
    }

    /// No errno ends a loop, and the errnos that a batch must survive are distinguished.
    #[test]
    fn meanings() {
        let receive = |errno| of_receive(&io::Error::from_raw_os_error(errno));
        let send = |errno| of_send(&io::Error::from_raw_os_error(errno));
        for (errno, meaning) in [
            (libc::EAGAIN, ReceiveError::Drained),
            (libc::EINTR, ReceiveError::Again),
            (libc::ECONNREFUSED, ReceiveError::Again),
            (libc::EHOSTUNREACH, ReceiveError::Again),
            (libc::ENOMEM, ReceiveError::Later),
            (libc::EBADF, ReceiveError::Later),
        ] {
            assert_eq!(receive(errno), meaning, "{}", name(errno));
        }
        for (errno, meaning) in [
            (libc::EINTR, SendError::Again),
            (libc::ECONNREFUSED, SendError::Pending),
            (libc::EAGAIN, SendError::Full),
            (libc::ENOBUFS, SendError::Full),
            (libc::EPERM, SendError::Refused),
            (libc::EMSGSIZE, SendError::Pending),
            (libc::EACCES, SendError::Pending),
            (libc::EINVAL, SendError::Refused),
        ] {
            assert_eq!(send(errno), meaning, "{}", name(errno));
        }
        let probe = |errno| of_probe(&io::Error::from_raw_os_error(errno));
        for (errno, meaning) in [
            (libc::EINPROGRESS, ProbeError::Wait),
            (libc::EINTR, ProbeError::Again),
            (libc::ECONNREFUSED, ProbeError::Refused),
            (libc::EHOSTUNREACH, ProbeError::Unreachable),
            (libc::EMFILE, ProbeError::Ours),
        ] {
            assert_eq!(probe(errno), meaning, "{}", name(errno));
        }
        assert!(refuses_segments(&io::Error::from_raw_os_error(libc::EIO)));
        assert!(!refuses_segments(&io::Error::from_raw_os_error(
            libc::EPERM
        )));
    }
}
