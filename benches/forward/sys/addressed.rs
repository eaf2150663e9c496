//! Batches of datagrams with addresses: the sender of each one and, with IP_PKTINFO, the local address that it came to,
//! and their counterparts for sending. So one socket can be many clients: on loopback every address of 127.0.0.0/8 is
//! local.

use super::batch::message;
use super::checked;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::RawFd;
use std::ptr;

/// Slots for one recvmmsg or sendmmsg, each with the address of a peer and space for a local one.
pub(crate) struct Datagrams {
    headers: Vec<libc::mmsghdr>,
    // The headers point to these, which are never moved or resized while the headers exist.
    iovecs: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_in>,
    infos: Vec<Info>,
    bytes: Vec<u8>,
    slot_bytes: usize,
    /// Length of the control message in bytes, or 0 without local addresses.
    control_bytes: usize,
}

/// A control message that holds only an in_pktinfo, with the layout of CMSG_SPACE.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Info {
    head: libc::cmsghdr,
    info: libc::in_pktinfo,
}

const NAME_BYTES: usize = size_of::<libc::sockaddr_in>();

impl Datagrams {
    /// `own` says whether local addresses are received and sent. For receiving them, the socket needs IP_PKTINFO.
    pub(crate) fn new(slots: usize, slot_bytes: usize, own: bool) -> Self {
        // SAFETY: a sockaddr_in is made of integers, for which zero is a value.
        let mut names: Vec<libc::sockaddr_in> = vec![unsafe { mem::zeroed() }; slots];
        // SAFETY: so are a cmsghdr and an in_pktinfo.
        let mut infos: Vec<Info> = vec![unsafe { mem::zeroed() }; slots];
        let mut bytes = vec![0; slots * slot_bytes];
        let mut iovecs: Vec<_> = bytes
            .chunks_mut(slot_bytes)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let control_bytes = if own { size_of::<Info>() } else { 0 };
        let parts = iovecs.iter_mut().zip(&mut names).zip(&mut infos);
        let headers = parts
            .map(|((iovec, name), info)| {
                let mut header = message(iovec, 1, ptr::from_mut(info).cast(), control_bytes);
                header.msg_hdr.msg_name = ptr::from_mut(name).cast();
                header.msg_hdr.msg_namelen = NAME_BYTES as _;
                header
            })
            .collect();
        Self {
            headers,
            iovecs,
            names,
            infos,
            bytes,
            slot_bytes,
            control_bytes,
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Makes one recvmmsg into the first `slots` slots. Returns how many it filled.
    #[inline]
    pub(crate) fn receive(&mut self, socket: RawFd, slots: usize) -> io::Result<usize> {
        for (header, iovec) in self.headers[..slots].iter_mut().zip(&mut self.iovecs) {
            iovec.iov_len = self.slot_bytes;
            header.msg_hdr.msg_namelen = NAME_BYTES as _;
            header.msg_hdr.msg_controllen = self.control_bytes as _;
        }
        let first = self.headers.as_mut_ptr();
        let count = slots as libc::c_uint;
        // SAFETY: each header points to an iovec, a name and a control buffer that `self` owns, with their true
        // lengths.
        let filled = checked(unsafe {
            libc::recvmmsg(socket, first, count, libc::MSG_DONTWAIT, ptr::null_mut())
        })? as usize;
        for (header, iovec) in self.headers[..filled].iter().zip(&mut self.iovecs) {
            iovec.iov_len = header.msg_len as usize;
        }
        Ok(filled)
    }

    /// Makes one sendmmsg of the slots from `first` until `end`, as they were received or set. Returns how many the
    /// kernel took.
    #[inline]
    pub(crate) fn send(&mut self, socket: RawFd, first: usize, end: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..end];
        // SAFETY: each header points to an iovec, a name and a control buffer that `self` owns, with their true
        // lengths.
        Ok(checked(unsafe {
            libc::sendmmsg(
                socket,
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                0,
            )
        })? as usize)
    }

    /// The sender of the datagram in a slot, or its destination.
    #[inline]
    pub(crate) fn peer(&self, slot: usize) -> SocketAddrV4 {
        let name = &self.names[slot];
        SocketAddrV4::new(
            Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()),
            u16::from_be(name.sin_port),
        )
    }

    #[inline]
    pub(crate) fn set_peer(&mut self, slot: usize, peer: SocketAddrV4) {
        let name = &mut self.names[slot];
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_addr.s_addr = u32::from_ne_bytes(peer.ip().octets());
        name.sin_port = peer.port().to_be();
        self.headers[slot].msg_hdr.msg_namelen = NAME_BYTES as _;
    }

    /// The local address that the datagram in a slot came to, if the kernel reported it.
    #[inline]
    pub(crate) fn own(&self, slot: usize) -> Option<Ipv4Addr> {
        let Info { head, info } = &self.infos[slot];
        let told = self.headers[slot].msg_hdr.msg_controllen >= size_of::<Info>() - 4
            && head.cmsg_level == libc::IPPROTO_IP
            && head.cmsg_type == libc::IP_PKTINFO;
        told.then(|| Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()))
    }

    #[inline]
    pub(crate) fn set_own(&mut self, slot: usize, own: Ipv4Addr) {
        let Info { head, info } = &mut self.infos[slot];
        head.cmsg_level = libc::IPPROTO_IP;
        head.cmsg_type = libc::IP_PKTINFO;
        // SAFETY: CMSG_LEN is arithmetic on its argument.
        head.cmsg_len =
            unsafe { libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as libc::c_uint) } as _;
        info.ipi_ifindex = 0;
        info.ipi_spec_dst.s_addr = u32::from_ne_bytes(own.octets());
        self.headers[slot].msg_hdr.msg_controllen = self.control_bytes as _;
    }

    /// The bytes of the datagram in a slot.
    #[inline]
    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        let start = slot * self.slot_bytes;
        &self.bytes[start..start + self.iovecs[slot].iov_len]
    }

    /// The whole space of a slot, to be filled by other means. `set_len` then sets the length.
    #[inline]
    pub(crate) fn room(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * self.slot_bytes..][..self.slot_bytes]
    }

    #[inline]
    pub(crate) fn set_len(&mut self, slot: usize, len: usize) {
        self.iovecs[slot].iov_len = len.min(self.slot_bytes);
    }

    #[inline]
    pub(crate) fn set_bytes(&mut self, slot: usize, bytes: &[u8]) {
        let start = slot * self.slot_bytes;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.iovecs[slot].iov_len = bytes.len();
    }
}
