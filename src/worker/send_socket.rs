//! A socket to send through, and what is known about it.

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

/// Datagrams that are thrown away at most; more than a receive buffer of a session holds.
const DISCARDED_MAX: usize = 4_096;

/// A way out.
#[derive(Debug)]
pub struct SendSocket {
    socket: UdpSocket,
    v6: bool,
    /// What is not known to be refused on this way.
    pub(super) limits: SegmentLimits,
    /// Whether all goes to one peer, so that what its path refuses is worth remembering.
    is_connected: bool,
    /// The TTL that the socket sends with, where we have set it.
    ttl: Option<u8>,
    /// The TTL that it was made with; `None`: the host's default.
    own_ttl: Option<u8>,
    /// The address that everything leaves from anyway.
    bound: Option<IpAddr>,
    /// Whether datagrams of one flow may be received together.
    gathers: bool,
    /// Where a connected socket leads, and how it is made anew.
    renewable: Option<Box<Pattern>>,
    /// Why there is no connection to the upstream, as an errno.
    unreachable: Option<i32>,
    /// Whether the address that a connected socket sends from may be gone.
    doubts_source: bool,
}

/// What has been set on a socket while it was used, and stays set wherever it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// The TTL that it sends with, where one was set.
    ttl: Option<u8>,
    /// Whether datagrams of one flow may be received together.
    gathers: bool,
    /// Whether it is an IPv6 one. Asking thousands of sockets takes milliseconds.
    v6: bool,
}

/// How a socket to an upstream is made.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    upstream: SocketAddr,
    options: UpstreamSocketOptions,
    /// What leaves through it names its sender as source.
    keeps_source: bool,
}

impl Pattern {
    fn make(&self) -> io::Result<UdpSocket> {
        match self.keeps_source {
            false => upstream::upstream_socket(self.upstream, &self.options),
            true => kept_source_socket(self.upstream, &self.options),
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

    /// A way out through a listener that is bound to `address`.
    pub fn of_listener(socket: UdpSocket, address: SocketAddr) -> SendSocket {
        let ip = address.ip();
        // A zone needs its interface with each datagram; a group is nothing to send from.
        let is_plain = !ip.is_unspecified() && !ip.is_multicast() && !is_link_local(ip);
        SendSocket {
            bound: is_plain.then_some(ip),
            ..SendSocket::new(socket, address.is_ipv6())
        }
    }

    /// A way to an upstream. That there is no route to it yet is no error: it is tried again with each flush.
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
                send_socket.unreachable = error.raw_os_error()
            }
            connected => connected?,
        }
        send_socket.doubts_source = send_socket.unreachable.is_some();
        Ok(send_socket)
    }

    /// A way to an upstream whose address nobody knows yet.
    pub fn nowhere(options: UpstreamSocketOptions) -> io::Result<SendSocket> {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let socket = upstream::upstream_socket(nobody, &options)?;
        Ok(SendSocket {
            unreachable: Some(libc::EDESTADDRREQ),
            ..SendSocket::new(socket, false)
        })
    }

    /// A way to an upstream and back, with a source port of its own.
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
        // From here on the kernel takes from the upstream alone. What came before, when there was a port and no peer, is
        // none of ours.
        send_socket.discard_queue();
        Ok(send_socket)
    }

    /// A way to an upstream and back that another worker has used until now.
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

    /// What is set on the socket.
    pub fn sticky(&self) -> Sticky {
        Sticky {
            ttl: self.ttl,
            gathers: self.gathers,
            v6: self.v6,
        }
    }

    /// The socket has been used before.
    pub fn restore(&mut self, sticky: Sticky) {
        self.ttl = sticky.ttl;
        self.gathers = sticky.gathers;
    }

    /// Takes the socket that led to the same upstream until now, with its source port, in place of the new one. Whether it
    /// still does.
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

    /// The socket alone.
    pub fn into_socket(self) -> UdpSocket {
        self.socket
    }

    /// Throws away what the socket has received. Returns how much that was; several that came together are one.
    pub(super) fn discard_queue(&self) -> u64 {
        let mut discarded = 0;
        for _ in 0..DISCARDED_MAX {
            match self.socket.recv(&mut []) {
                Ok(_) => discarded += 1,
                // An error that was left there is taken, and may have something behind it.
                Err(error) if errno::of_receive(&error) == ReceiveError::Again => {}
                Err(_) => break,
            }
        }
        discarded
    }

    /// Lets datagrams of a segmenting upstream come together. From then on the socket is read with its control messages.
    pub(super) fn gather_trains(&mut self) {
        if !std::mem::replace(&mut self.gathers, true) {
            // Kernels before 5.0 do not know it, and we do not need it.
            let _ = set_int(&self.socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        }
    }

    /// Whether datagrams may come together.
    pub fn gathers(&self) -> bool {
        self.gathers
    }

    /// The upstream that a socket of its own leads to.
    pub(super) fn upstream(&self) -> Option<SocketAddr> {
        self.renewable.as_deref().map(|pattern| pattern.upstream)
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Why the upstream cannot be reached now, as an errno.
    pub fn unreachable(&self) -> Option<i32> {
        self.unreachable
    }

    /// Where the last flush left doubts, takes a new socket if that helps. Whether there were any.
    pub(super) fn renew_if_doubted(&mut self) -> bool {
        let doubted = self.doubts_source;
        if doubted {
            self.renew();
        }
        doubted
    }

    /// Takes a new socket to the upstream if that would send from another address than the old one: connect(2) chooses
    /// that once, and when it goes (DHCP, a VPN that reconnects) the old socket fails for ever. Where none can be had now,
    /// the next flush asks again.
    pub(super) fn renew(&mut self) -> bool {
        // Where the source is the sender's, an address that is gone is the sender's business.
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

    /// Makes a TTL the socket's own: most of what leaves has the same one. Told with a message, it would cost the kernel more
    /// each time, and on a connected socket a search for the route (udp_sendmsg in net/ipv4/udp.c keeps the connection's
    /// only where nothing is told). `None` is the one that the socket was made with, whatever it has adopted since.
    pub(super) fn adopt(&mut self, ttl: Option<u8>) {
        let wanted = ttl.or(self.own_ttl);
        if self.ttl == wanted || self.is_group() {
            return;
        }
        // Should the kernel refuse, one that is asked for goes with a message; the socket's own cannot, and is not worth
        // a datagram.
        if upstream::set_ttl(&self.socket, self.v6, wanted).is_ok() || ttl.is_none() {
            self.ttl = wanted;
        }
    }

    /// What goes to a group has a TTL of its own in the kernel.
    fn is_group(&self) -> bool {
        self.upstream()
            .is_some_and(|upstream| upstream.ip().is_multicast())
    }

    /// Whether a TTL can be sent with now. The one that the socket was made with cannot be told with a message.
    pub(super) fn can_send_with(&self, ttl: Option<u8>) -> bool {
        ttl.is_some() || self.ttl == self.own_ttl
    }

    /// What still has to be told with a message.
    pub(super) fn spare(&self, mut sending: Sending) -> Sending {
        sending.v6 = self.v6;
        if sending.ttl == self.ttl {
            sending.ttl = None;
        }
        if sending.from == self.bound {
            sending.from = None;
        }
        sending
    }

    /// Remembers that segments larger than `smaller` were refused.
    pub(super) fn learn(&mut self, error: &io::Error, smaller: u32) {
        match errno::is_about_size(error) {
            false => self.limits.bytes_max = 0,
            // A listener answers many: one client's narrow path says nothing of the next one's.
            true if self.is_connected => self.limits.bytes_max = smaller,
            true => {}
        }
    }

    /// Sends one datagram. `false` if that takes more care than this.
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
        // Reported once is gone from the socket: whoever tries again finds out about this datagram itself.
        if errno::of_send(&error) == SendError::Pending && errno::is_report(&error) {
            settle(Sent::Reported(error.raw_os_error().unwrap_or(0)));
        }
        false
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
