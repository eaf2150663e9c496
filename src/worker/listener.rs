//! A worker's listener: its socket, and the conversion of received slots to trains.

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

/// Placeholder for the source of a datagram when the kernel was not asked for it.
const UNKNOWN_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const UNKNOWN_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Makes a train of an upstream's reply. The socket identifies the upstream, so the kernel was asked for no addresses,
/// and all of them are unspecified here.
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

/// A worker's socket for one listener of the plan.
#[derive(Debug)]
pub struct Listener {
    /// The socket, which also sends the replies.
    pub send_socket: SendSocket,
    /// The bound address; it is the destination of every datagram if the kernel is not asked for one.
    pub address: SocketAddr,
    /// The options that the socket is made with.
    options: ListenerOptions,
    /// Whether the socket is not bound yet: see [`Listener::bind_late`].
    is_late: bool,
    /// Whether the kernel is asked for the source of each datagram.
    pub receives_source: bool,
    /// Whether the kernel is asked for the destination of each datagram.
    pub receives_destination: bool,
    /// The slot of the socket in the configuration.
    pub slot: SocketSlot,
    /// The most trains that the next receive call accepts.
    pub trains_max: usize,
    /// The value of the kernel's drop counter when it was last read.
    drops_seen: u32,
}

/// The parts of a listener, besides its socket.
#[derive(Debug)]
pub struct ListenerParts {
    /// The slot of the socket in the configuration.
    pub slot: SocketSlot,
    /// The bound address.
    pub address: SocketAddr,
    /// The options that the socket is made with.
    pub options: ListenerOptions,
    /// Whether the kernel is asked for the source of each datagram.
    pub receives_source: bool,
    /// Whether the socket is not bound yet; [`Listener::bind_late`] binds it.
    pub is_late: bool,
}

impl Listener {
    /// Wraps a socket.
    pub fn new(socket: UdpSocket, parts: ListenerParts) -> Listener {
        let ListenerParts {
            slot,
            address,
            options,
            receives_source,
            is_late,
        } = parts;
        Listener {
            send_socket: SendSocket::of_listener(socket, address),
            address,
            is_late,
            receives_source,
            receives_destination: options.destination,
            options,
            slot,
            trains_max: SLOTS,
            drops_seen: 0,
        }
    }

    /// Returns whether the socket is not bound yet.
    pub fn is_late(&self) -> bool {
        self.is_late
    }

    /// Binds the socket beside others of its address that are in use. From then on, the kernel spreads flows over one
    /// more socket. The owners of the other sockets are not notified, so the socket is bound when nothing else can
    /// fail.
    ///
    /// # Errors
    ///
    /// Fails if bind(2) fails, for example with EADDRINUSE.
    pub fn bind_late(&mut self) -> io::Result<()> {
        self.is_late = false;
        bind(self.send_socket.socket(), self.address)
    }

    /// Lets further sockets of this daemon bind beside this one, until [`Listener::settle`] is called.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the socket option.
    pub fn unlock(&self) -> io::Result<()> {
        unlock(self.send_socket.socket())
    }

    /// Restores all options of the socket, which another process may have changed.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses a socket option.
    pub fn settle(&self) -> io::Result<()> {
        settle(
            self.send_socket.socket(),
            self.address.is_ipv6(),
            &self.options,
        )
    }

    /// Returns the receive buffer that the kernel granted, in bytes; 0 if it cannot be read.
    pub fn receive_buffer(&self) -> usize {
        granted_receive_buffer(self.send_socket.socket()).unwrap_or(0)
    }

    /// Returns a duplicated descriptor of the socket, with its slot.
    ///
    /// # Errors
    ///
    /// Fails if no descriptor is left (EMFILE, ENFILE).
    pub fn lend(&self) -> io::Result<(SocketSlot, UdpSocket)> {
        Ok((self.slot, self.send_socket.socket().try_clone()?))
    }

    /// Exports the state of the socket for the next worker.
    pub fn save(&self) -> ListenerState {
        ListenerState {
            slot: self.slot,
            drops_seen: self.drops_seen,
            sticky: self.send_socket.sticky(),
        }
    }

    /// Continues with a socket that another worker has read until now.
    pub fn inherit(&mut self, saved: &ListenerState) {
        self.drops_seen = saved.drops_seen;
        self.send_socket.restore(saved.sticky);
    }

    /// Adapts the size of the next receive call to the last received slot.
    pub fn adapt(&mut self, last: &Slot<'_>) {
        self.trains_max = if last.len < LONG_BYTES {
            SLOTS
        } else {
            SLOTS_FOR_LONG
        };
    }

    /// Returns the number of datagrams that the kernel dropped since the last call. The kernel's counter has 32 bits
    /// and may wrap.
    pub fn new_kernel_drops(&mut self) -> u64 {
        let Ok(drops) = option::kernel_drops(self.send_socket.socket()) else {
            return 0;
        };
        let new = drops.wrapping_sub(self.drops_seen);
        self.drops_seen = drops;
        u64::from(new)
    }

    /// Appends the train of a slot to `trains`.
    ///
    /// # Errors
    ///
    /// Returns the reason if the train cannot be handled. It has been appended even then, and the caller removes it.
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
        let refused = if slot.is_truncated() {
            Some(DropReason::Truncated)
        } else {
            (slot.is_control_truncated() || lost).then_some(DropReason::ControlLost)
        };
        // Written in place: a train is two cache lines, and a sender without GSO causes one per datagram.
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
        // A datagram that arrived before the socket option was set has no local address. Its destination then serves as
        // the local address. If the destination is a group, the kernel chooses.
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
