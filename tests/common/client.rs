//! A client with a socket of its own.

use std::net::{SocketAddr, UdpSocket};

use super::daemon::PATIENCE;

/// Sends and receives.
pub struct Client(pub UdpSocket);

impl Client {
    /// Bound to an address; port 0 lets the kernel choose.
    pub fn bind(address: &str) -> Client {
        let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(socket)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Sends one datagram.
    pub fn send(&self, bytes: &[u8], to: &str) {
        let sent = self.0.send_to(bytes, to).unwrap_or_else(|error| panic!("to {to}: {error}"));
        assert_eq!(sent, bytes.len());
    }

    /// Receives one datagram, which must come.
    pub fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_536];
        let (len, from) = self.0.recv_from(&mut buffer).expect("a datagram comes");
        buffer.truncate(len);
        (buffer, from)
    }

    /// Sends one datagram and receives one.
    pub fn ask(&self, bytes: &[u8], to: &str) -> (Vec<u8>, SocketAddr) {
        self.send(bytes, to);
        self.receive()
    }

    /// Whether nothing has come. Only after something else has shown that it would have.
    pub fn is_empty(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let empty = self.0.recv_from(&mut [0; 1]).is_err();
        self.0.set_nonblocking(false).unwrap();
        empty
    }
}
