//! A client with a socket of its own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use udispatch::net::control_message::Sending;
use udispatch::net::option::set_int;
use udispatch::net::receive::Receiver;
use udispatch::net::send::Sender;

use super::{TIMEOUT, eventually};

/// A client, which sends and receives by one socket.
pub struct Client(pub UdpSocket);

impl Client {
    /// Binds a client to an address. Port 0 lets the kernel choose.
    pub fn bind(address: &str) -> Client {
        let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Client::of(socket)
    }

    /// A client with an address that no other newcomer of this process has had, so that no session of an earlier client
    /// can be mistaken for its own.
    pub fn newcomer() -> Client {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let [high, low] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Client::bind(&SocketAddr::from(([127, 3, high, low], 0)).to_string())
    }

    /// A client with this socket, which gets the largest receive buffer that the system allows, and a read timeout.
    pub fn of(socket: UdpSocket) -> Client {
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(4 << 20)
            .unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client(socket)
    }

    /// The address that the client's socket is bound to.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Sends one datagram.
    pub fn send(&self, bytes: &[u8], to: &str) {
        let sent = self
            .0
            .send_to(bytes, to)
            .unwrap_or_else(|error| panic!("to {to}: {error}"));
        assert_eq!(sent, bytes.len());
    }

    /// Sends all bytes in one call, cut into datagrams of this size by the kernel (UDP_SEGMENT). The last one may be
    /// shorter.
    pub fn send_segmented(&self, bytes: &[u8], segment: u16, to: &str) {
        let to: SocketAddr = to.parse().unwrap();
        let mut sender = Sender::new();
        let mut batch = sender.batch();
        let v6 = to.is_ipv6();
        let sending = Sending {
            segment,
            v6,
            ..Sending::default()
        };
        batch.begin(Some(&to), &sending);
        batch.piece(bytes);
        let sent = batch.send(&self.0, 0);
        assert_eq!(
            sent.unwrap_or_else(|error| panic!("{} bytes by {segment}: {error}", bytes.len())),
            1
        );
    }

    /// Receives this many datagrams, each with its remaining TTL or hop limit.
    pub fn receive_with_ttl(&self, count: usize) -> Vec<(Vec<u8>, u8)> {
        let (level, option) = match self.address() {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
        };
        // The option also applies to a datagram that is in the socket's queue already.
        set_int(&self.0, level, option, 1).unwrap();
        let mut receiver = Receiver::new();
        let mut got = Vec::new();
        while got.len() < count {
            self.0.peek(&mut [0; 1]).expect("a datagram comes");
            receiver.receive(&self.0, 128, true).unwrap();
            for slot in receiver.slots() {
                let bytes = &receiver.arena()[slot.offset as usize..][..slot.len as usize];
                got.push((
                    bytes.to_vec(),
                    slot.control_data().ttl.expect("a TTL is told"),
                ));
            }
        }
        got
    }

    /// Receives one datagram. Panics if none comes.
    pub fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_536];
        let (len, from) = self.0.recv_from(&mut buffer).expect("a datagram comes");
        buffer.truncate(len);
        (buffer, from)
    }

    /// Receives one datagram, if one comes within this time.
    pub fn receive_within(&self, limit: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = vec![0; 65_536];
        let received = self.0.recv(&mut buffer);
        self.0.set_read_timeout(Some(TIMEOUT)).unwrap();
        buffer.truncate(received.ok()?);
        Some(buffer)
    }

    /// Sends one datagram, and receives one if one comes within this time.
    pub fn try_ask(&self, bytes: &[u8], to: &str, limit: Duration) -> Option<Vec<u8>> {
        self.send(bytes, to);
        self.receive_within(limit)
    }

    /// Sends one datagram and receives one.
    pub fn ask(&self, bytes: &[u8], to: &str) -> (Vec<u8>, SocketAddr) {
        self.send(bytes, to);
        self.receive()
    }

    /// Whether no datagram has come. Call it only after an event that proves that one would have come by now.
    pub fn is_empty(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let empty = self.0.recv_from(&mut [0; 1]).is_err();
        self.0.set_nonblocking(false).unwrap();
        empty
    }
}

/// The datagrams that each of the clients receives until this many have come to all of them together.
pub fn gather(clients: &[Client], total: usize) -> Vec<Vec<Vec<u8>>> {
    let mut got = vec![Vec::new(); clients.len()];
    let mut buffer = vec![0; 65_536];
    let set_nonblocking = |nonblocking| {
        for client in clients {
            client.0.set_nonblocking(nonblocking).unwrap();
        }
    };
    set_nonblocking(true);
    eventually(format!("{total} datagrams"), || {
        for (client, got) in clients.iter().zip(&mut got) {
            while let Ok(len) = client.0.recv(&mut buffer) {
                got.push(buffer[..len].to_vec());
            }
        }
        if got.iter().map(Vec::len).sum::<usize>() >= total {
            return Ok(());
        }
        Err(format!("{got:?}"))
    });
    set_nonblocking(false);
    got
}
