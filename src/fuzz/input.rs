//! Reads numbers, addresses and byte strings from the input of a fuzz target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is left of the input. Beyond its end it reads as zeros.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from the first byte on.
    pub(super) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes; fewer if the input ends before.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// The next `N` bytes, padded with zeros.
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The lowest bit of the next byte.
    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next two bytes, little-endian.
    pub(super) fn number16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four bytes, little-endian.
    pub(super) fn number32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next eight bytes, little-endian.
    pub(super) fn number64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// An address of either family.
    pub(super) fn ip(&mut self) -> IpAddr {
        if self.flag() {
            Ipv6Addr::from(self.array::<16>()).into()
        } else {
            Ipv4Addr::from(self.array::<4>()).into()
        }
    }

    /// An address of either family with a port.
    pub(super) fn socket_address(&mut self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.number16())
    }

    /// Something, or nothing, by the next byte.
    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Input<'a>) -> T) -> Option<T> {
        if self.flag() { Some(read(self)) } else { None }
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.bytes(self.0.len())
    }
}
