//! A worker's listener: its socket, and how what the kernel brings becomes trains.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::send_socket::SendSocket;
use super::worker_state::{ListenerState, SocketSlot};
use crate::datagram::{Envelope, Region, Span, Train};
use crate::dispatch::verdict::DropReason;
use crate::net::control_message::Received;
use crate::net::option;
use crate::net::receive::{LONG_BYTES, SLOTS, SLOTS_FOR_LONG, Slot};
use crate::net::socket::{ListenerOptions, bind, granted_receive_buffer, settle, unlock};

/// The source of a datagram where nobody asked for it.
const UNKNOWN_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const UNKNOWN_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// What an upstream answered, as a train. Whose it is, the socket says: nothing else was asked of the kernel.
pub fn reply_train(slot: &Slot<'_>) -> Train {
    let envelope = Envelope {
        src: UNKNOWN_V4,
        dst: UNKNOWN_V4,
        local: UNKNOWN_V4,
        interface: 0,
        ttl: None,
        time_ns: None,
    };
    let span = Span {
        region: Region::Arena,
        offset: slot.offset,
        len: slot.len,
    };
    Train {
        envelope,
        span,
        segment: slot.control_data().segment,
    }
}

/// One bound socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket; answers leave through it too.
    pub send_socket: SendSocket,
    /// What it is bound to: the destination of every datagram where the kernel is not asked for it.
    pub address: SocketAddr,
    /// How its socket is made.
    options: ListenerOptions,
    /// Whether it is not bound yet: see [`Listener::bind_late`].
    is_late: bool,
    /// Whether the kernel is asked who sent each datagram.
    pub receives_source: bool,
    /// Whether it is asked for each datagram's destination.
    pub receives_destination: bool,
    /// Which of the configuration's sockets it is.
    pub slot: SocketSlot,
    /// How many trains the next receive call asks for.
    pub trains_max: usize,
    /// The kernel's drop counter when it was last read.
    drops_seen: u32,
}

impl Listener {
    /// Around a socket that is bound, or will be when it is late.
    pub fn new(
        slot: SocketSlot,
        socket: UdpSocket,
        address: SocketAddr,
        options: ListenerOptions,
        receives_source: bool,
        is_late: bool,
    ) -> Listener {
        let send_socket = SendSocket::of_listener(socket, address);
        let receives_destination = options.destination;
        let (trains_max, drops_seen) = (SLOTS, 0);
        Listener {
            send_socket,
            address,
            options,
            is_late,
            receives_source,
            receives_destination,
            slot,
            trains_max,
            drops_seen,
        }
    }

    /// Whether it is not bound yet.
    pub fn is_late(&self) -> bool {
        self.is_late
    }

    /// Binds it, beside others of its address that serve. They are told nothing, and the kernel spreads flows over one more
    /// from now on: so this is done when nothing can fail any more.
    pub fn bind_late(&mut self) -> io::Result<()> {
        self.is_late = false;
        bind(self.send_socket.socket(), self.address)
    }

    /// Lets further sockets of ours bind beside it, until it is settled.
    pub fn unlock(&self) -> io::Result<()> {
        unlock(self.send_socket.socket())
    }

    /// Sets everything on its socket as it is meant to be, whoever has used that before.
    pub fn settle(&self) -> io::Result<()> {
        settle(
            self.send_socket.socket(),
            self.address.is_ipv6(),
            &self.options,
        )
    }

    /// The receive buffer that the kernel granted, in bytes; 0 where it does not say.
    pub fn receive_buffer(&self) -> usize {
        granted_receive_buffer(self.send_socket.socket()).unwrap_or(0)
    }

    /// A second descriptor of its socket, and which one it is.
    pub fn lend(&self) -> io::Result<(SocketSlot, UdpSocket)> {
        Ok((self.slot, self.send_socket.socket().try_clone()?))
    }

    /// What is known of its socket.
    pub fn save(&self) -> ListenerState {
        ListenerState {
            slot: self.slot,
            drops_seen: self.drops_seen,
            sticky: self.send_socket.sticky(),
        }
    }

    /// Goes on with a socket that another has read until now.
    pub fn inherit(&mut self, left: &ListenerState) {
        self.drops_seen = left.drops_seen;
        self.send_socket.restore(left.sticky);
    }

    /// Adapts the next receive call to what the last one brought.
    pub fn adapt(&mut self, last: &Slot<'_>) {
        self.trains_max = if last.len < LONG_BYTES {
            SLOTS
        } else {
            SLOTS_FOR_LONG
        };
    }

    /// What the kernel dropped since the last call. The kernel's counter has 32 bits and may wrap.
    pub fn new_kernel_drops(&mut self) -> u64 {
        let Ok(drops) = option::kernel_drops(self.send_socket.socket()) else {
            return 0;
        };
        let new = drops.wrapping_sub(self.drops_seen);
        self.drops_seen = drops;
        u64::from(new)
    }

    /// Makes a train of a slot, at the end of `trains`, and says why if it cannot be handled: then it is to be taken
    /// off again.
    #[inline]
    pub fn train(&self, slot: &Slot<'_>, trains: &mut Vec<Train>) -> Result<(), DropReason> {
        let control = slot.control_data();
        let src = slot.src();
        let span = Span {
            region: Region::Arena,
            offset: slot.offset,
            len: slot.len,
        };
        let lost = (self.receives_source && src.is_none())
            || (self.receives_destination && control.destination.is_none());
        let refused = match slot.is_truncated() {
            true => Some(DropReason::Truncated),
            false => (slot.is_control_truncated() || lost).then_some(DropReason::ControlLost),
        };
        // Made where it stays: a train is two cache lines, and there is one for every datagram of a plain sender.
        trains.push(Train {
            envelope: self.envelope(src, &control),
            span,
            segment: control.segment,
        });
        refused.map_or(Ok(()), Err)
    }

    #[inline]
    fn envelope(&self, src: Option<SocketAddr>, control: &Received) -> Envelope {
        let here = |ip| SocketAddr::new(ip, self.address.port());
        let dst = control.destination.map_or(self.address, here);
        // A datagram that came before the kernel was asked for it has no local address: what it was sent to is one then, unless
        // that is a group, where the kernel chooses.
        let is_known = |local: &IpAddr| !local.is_unspecified() || dst.ip().is_multicast();
        let local = control.local.filter(is_known).map_or(dst, here);
        Envelope {
            src: src.unwrap_or(if self.address.is_ipv4() {
                UNKNOWN_V4
            } else {
                UNKNOWN_V6
            }),
            dst,
            local,
            interface: control.interface,
            ttl: control.ttl,
            time_ns: control.time_ns,
        }
    }
}
