//! Reads numbers, addresses and byte strings from the input of a fuzz target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The rest of the input. Beyond its end it reads as zeros.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Returns a reader that begins at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Returns whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next bytes; fewer if the input ends before.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Returns the next `N` bytes, padded with zeros.
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// Returns the next byte.
    pub(super) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Returns the lowest bit of the next byte.
    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Returns the next two bytes, little-endian.
    pub(super) fn number16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Returns the next four bytes, little-endian.
    pub(super) fn number32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Returns the next eight bytes, little-endian.
    pub(super) fn number64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Returns an address of either family.
    pub(super) fn ip(&mut self) -> IpAddr {
        if self.flag() {
            Ipv6Addr::from(self.array::<16>()).into()
        } else {
            Ipv4Addr::from(self.array::<4>()).into()
        }
    }

    /// Returns an address of either family with a port.
    pub(super) fn socket_address(&mut self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.number16())
    }

    /// Reads a flag, and the value if the flag is set.
    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Input<'a>) -> T) -> Option<T> {
        if self.flag() { Some(read(self)) } else { None }
    }

    /// Returns all bytes that were not read yet.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.bytes(self.0.len())
    }
}
