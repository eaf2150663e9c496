//! A socket to send through, with its known limits and options.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::datagram::Span;
use crate::dispatch::ledger::Sent;
use crate::dispatch::outbox::{Parcel, SegmentLimits};
use crate::net::control_message::Sending;
use crate::net::errno::{self, ReceiveError, SendError};
use crate::net::kept_source::kept_source_socket;
use crate::net::option::set_int;
use crate::net::send::send_one;
use crate::net::upstream::{self, UpstreamSocketOptions};

/// The most datagrams that one call discards; more than the receive buffer of a session's socket holds.
const DISCARDED_MAX: usize = 4_096;

/// A socket to send through: a listener's, or one towards an upstream.
#[derive(Debug)]
pub struct SendSocket {
    socket: UdpSocket,
    v6: bool,
    /// The segment sizes and counts that the kernel has not refused on this socket.
    pub(super) limits: SegmentLimits,
    /// Whether all datagrams go to one peer, so that a limit of the path to it is recorded.
    is_connected: bool,
    /// The TTL that the socket sends with, if the daemon has set it.
    ttl: Option<u8>,
    /// The TTL that the socket was made with; `None` means the host's default.
    own_ttl: Option<u8>,
    /// The source address of everything that leaves, if the socket is bound to a usable one.
    bound: Option<IpAddr>,
    /// Whether UDP GRO may join received datagrams of one flow.
    gathers: bool,
    /// The parameters to replace a connected socket to an upstream.
    renewable: Option<Box<Pattern>>,
    /// The reason why there is no connection to the upstream, as an errno.
    unreachable: Option<i32>,
    /// Whether the source address of a connected socket may no longer exist.
    doubts_source: bool,
}

/// The options that were set on a socket during use, and stay set when another worker or process takes it over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// The TTL that the socket sends with, if one was set.
    ttl: Option<u8>,
    /// Whether UDP GRO may join received datagrams of one flow.
    gathers: bool,
    /// Whether the socket is an IPv6 one. Reading this from the kernel for thousands of sockets takes milliseconds.
    v6: bool,
}

/// The parameters to make a socket to an upstream.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    upstream: SocketAddr,
    options: UpstreamSocketOptions,
    /// Whether datagrams leave with their sender's address as source.
    keeps_source: bool,
}

impl Pattern {
    fn make(&self) -> io::Result<UdpSocket> {
        if self.keeps_source {
            kept_source_socket(self.upstream, &self.options)
        } else {
            upstream::upstream_socket(self.upstream, &self.options)
        }
    }
}

impl SendSocket {
    fn new(socket: UdpSocket, v6: bool) -> SendSocket {
        SendSocket {
            socket,
            v6,
            limits: SegmentLimits::UNKNOWN,
            is_connected: false,
            ttl: None,
            own_ttl: None,
            bound: None,
            gathers: false,
            renewable: None,
            unreachable: None,
            doubts_source: false,
        }
    }

    /// Wraps the socket of a listener that is bound to `address`.
    pub fn of_listener(socket: UdpSocket, address: SocketAddr) -> SendSocket {
        let ip = address.ip();
        // A link-local address needs its interface with each datagram; a group cannot be a source address.
        let is_plain = !ip.is_unspecified() && !ip.is_multicast() && !is_link_local(ip);
        SendSocket {
            bound: is_plain.then_some(ip),
            ..SendSocket::new(socket, address.is_ipv6())
        }
    }

    /// Makes a one-way socket to an upstream. A missing route to it is not an error, because each flush tries again.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be made (for example EMFILE), or cannot be connected for a reason other than a
    /// missing route or source address.
    pub fn to_upstream(
        upstream: SocketAddr,
        options: UpstreamSocketOptions,
        keeps_source: bool,
    ) -> io::Result<SendSocket> {
        let pattern = Pattern {
            upstream,
            options,
            keeps_source,
        };
        let socket = pattern.make()?;
        let connected = socket.connect(upstream);
        let mut send_socket = SendSocket {
            is_connected: true,
            ttl: options.ttl,
            own_ttl: options.ttl,
            renewable: Some(Box::new(pattern)),
            ..SendSocket::new(socket, upstream.is_ipv6())
        };
        match connected {
            Err(error) if errno::may_lack_source(&error) => {
                send_socket.unreachable = error.raw_os_error();
            }
            connected => connected?,
        }
        send_socket.doubts_source = send_socket.unreachable.is_some();
        Ok(send_socket)
    }

    /// Makes a socket for an upstream that has not been resolved yet. Every send through it fails with EDESTADDRREQ.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be made, for example with EMFILE.
    pub fn unresolved(options: UpstreamSocketOptions) -> io::Result<SendSocket> {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let socket = upstream::upstream_socket(unspecified, &options)?;
        Ok(SendSocket {
            unreachable: Some(libc::EDESTADDRREQ),
            ..SendSocket::new(socket, false)
        })
    }

    /// Makes a socket to an upstream that also receives, with its own source port.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be made or connected. `errno::lacks_port` returns whether the cause is a lack of
    /// source ports.
    pub fn for_session(
        upstream: SocketAddr,
        options: UpstreamSocketOptions,
    ) -> io::Result<SendSocket> {
        let socket = upstream::upstream_socket(
            upstream,
            &UpstreamSocketOptions {
                receives: true,
                ..options
            },
        )?;
        socket.connect(upstream)?;
        let ttl = options.ttl;
        let send_socket = SendSocket {
            is_connected: true,
            ttl,
            own_ttl: ttl,
            ..SendSocket::new(socket, upstream.is_ipv6())
        };
        // Once connected, the socket receives from the upstream alone. Datagrams that arrived between bind and connect
        // may come from any sender, so they are discarded.
        send_socket.discard_queue();
        Ok(send_socket)
    }

    /// Wraps a session's socket that another worker has used until now.
    pub fn for_inherited(
        socket: UdpSocket,
        options: UpstreamSocketOptions,
        sticky: Sticky,
    ) -> SendSocket {
        let mut send_socket = SendSocket {
            is_connected: true,
            own_ttl: options.ttl,
            ..SendSocket::new(socket, sticky.v6)
        };
        send_socket.restore(sticky);
        send_socket
    }

    /// Returns the options that are set on the socket.
    pub fn sticky(&self) -> Sticky {
        Sticky {
            ttl: self.ttl,
            gathers: self.gathers,
            v6: self.v6,
        }
    }

    /// Records the options that are set on a socket that has been used before.
    pub fn restore(&mut self, sticky: Sticky) {
        self.ttl = sticky.ttl;
        self.gathers = sticky.gathers;
    }

    /// Replaces the socket by `socket` of an earlier worker, if that one is connected to the same upstream. The source
    /// port that the upstream has seen then stays in use. Returns whether the socket was replaced.
    pub fn replace_socket(&mut self, socket: UdpSocket, sticky: Sticky) -> bool {
        let same = self.unreachable.is_none()
            && self.upstream().is_some()
            && socket.peer_addr().ok() == self.upstream();
        if same {
            self.socket = socket;
            self.restore(sticky);
        }
        same
    }

    /// Returns the socket alone, without its limits and options.
    pub fn into_socket(self) -> UdpSocket {
        self.socket
    }

    /// Discards the datagrams that the socket has received. Returns the number of reads; a train counts once.
    pub(super) fn discard_queue(&self) -> u64 {
        let mut discarded = 0;
        for _ in 0..DISCARDED_MAX {
            match self.socket.recv(&mut []) {
                Ok(_) => discarded += 1,
                // The call consumed a pending error. Datagrams may be queued behind it.
                Err(error) if errno::of_receive(&error) == ReceiveError::Again => {}
                Err(_) => break,
            }
        }
        discarded
    }

    /// Lets UDP GRO join datagrams of a segmenting upstream. From then on the socket is read with its control messages.
    pub(super) fn gather_trains(&mut self) {
        if !std::mem::replace(&mut self.gathers, true) {
            // Kernels before 5.0 do not have the option, and the daemon works without it.
            let _ = set_int(&self.socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        }
    }

    /// Returns whether UDP GRO may join received datagrams.
    pub fn gathers(&self) -> bool {
        self.gathers
    }

    /// Returns the address of the upstream, if this socket was made by [`SendSocket::to_upstream`].
    pub(super) fn upstream(&self) -> Option<SocketAddr> {
        self.renewable.as_deref().map(|pattern| pattern.upstream)
    }

    /// Returns the socket itself.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Returns the reason why the upstream cannot be reached now, as an errno.
    pub fn unreachable(&self) -> Option<i32> {
        self.unreachable
    }

    /// Tries to replace the socket if its source address may no longer exist since the last flush. Returns whether that
    /// was the case.
    pub(super) fn renew_if_doubted(&mut self) -> bool {
        let doubted = self.doubts_source;
        if doubted {
            self.renew();
        }
        doubted
    }

    /// Replaces the socket to the upstream if a new one would send from another address. connect(2) chooses the source
    /// address once. When that address is removed (DHCP, a VPN that reconnects), every send through the old socket
    /// fails. If no socket can be made now, the next flush tries again. Returns whether the socket was replaced.
    pub(super) fn renew(&mut self) -> bool {
        // If the source is the sender's address, another socket would not help.
        let Some(pattern) = self
            .renewable
            .as_deref()
            .filter(|pattern| !pattern.keeps_source)
        else {
            return false;
        };
        let anew = pattern
            .make()
            .and_then(|anew| anew.connect(pattern.upstream).map(|()| anew));
        self.doubts_source = anew.is_err();
        let ttl = pattern.options.ttl;
        let Ok(anew) = anew else { return false };
        let source = |socket: &UdpSocket| socket.local_addr().ok().map(|address| address.ip());
        if self.unreachable.take().is_none() && source(&anew) == source(&self.socket) {
            return false;
        }
        self.socket = anew;
        self.ttl = ttl;
        true
    }

    /// Sets a TTL on the socket, because most datagrams that leave have the same one. As control data it would cost the
    /// kernel more for each message, and on a connected socket also a route lookup. `udp_sendmsg` in net/ipv4/udp.c
    /// uses the connection's route only without control data. `None` is the TTL that the socket was made with, whatever
    /// has been set since.
    pub(super) fn adopt(&mut self, ttl: Option<u8>) {
        let target = ttl.or(self.own_ttl);
        if self.ttl == target || self.is_group() {
            return;
        }
        // If the kernel refuses, a given TTL is sent as control data. The socket's own TTL cannot be sent that way. The
        // datagram is then sent with the TTL that the socket has.
        if upstream::set_ttl(&self.socket, self.v6, target).is_ok() || ttl.is_none() {
            self.ttl = target;
        }
    }

    /// Returns whether the destination is a multicast group, for which the kernel has a separate TTL.
    fn is_group(&self) -> bool {
        self.upstream()
            .is_some_and(|upstream| upstream.ip().is_multicast())
    }

    /// Returns whether a TTL can be used now. The TTL that the socket was made with cannot be sent as control data.
    pub(super) fn can_send_with(&self, ttl: Option<u8>) -> bool {
        ttl.is_some() || self.ttl == self.own_ttl
    }

    /// Returns `sending` without the control data that the socket's own options already provide.
    pub(super) fn without_implied(&self, mut sending: Sending) -> Sending {
        sending.v6 = self.v6;
        if sending.ttl == self.ttl {
            sending.ttl = None;
        }
        if sending.from == self.bound {
            sending.from = None;
        }
        sending
    }

    /// Records that segments larger than `smaller` bytes were refused.
    pub(super) fn learn(&mut self, error: &io::Error, smaller: u32) {
        if !errno::is_about_size(error) {
            self.limits.bytes_max = 0;
        } else if self.is_connected {
            // A listener sends to many clients, and a limit of the path to one does not hold for the others.
            self.limits.bytes_max = smaller;
        }
    }

    /// Sends one datagram without a batch. Returns `false` if it was not sent and needs the general path.
    pub(super) fn send_alone<'a>(
        &mut self,
        parcel: &Parcel,
        payload: impl Fn(Span) -> &'a [u8],
        settle: &mut impl FnMut(Sent),
    ) -> bool {
        self.adopt(parcel.ttl);
        if (parcel.ttl.is_some() && parcel.ttl != self.ttl)
            || self.doubts_source
            || self.unreachable.is_some()
        {
            return false;
        }
        let Err(error) = send_one(&self.socket, payload(parcel.span)) else {
            settle(Sent::Taken(1));
            return true;
        };
        // A reported error is cleared from the socket, so the next attempt concerns this datagram itself.
        if errno::of_send(&error) == SendError::Pending && errno::is_report(&error) {
            settle(Sent::Reported(error.raw_os_error().unwrap_or(0)));
        }
        false
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
