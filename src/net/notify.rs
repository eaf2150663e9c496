//! Messages to a unix datagram socket, with descriptors where needed (SCM_RIGHTS in unix(7)).

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr,
};

use super::fd_passing::FDS_MAX;

/// The longest wait for room in the queue of the receiver, which holds some ten messages (net.unix.max_dgram_qlen).
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The address of a unix datagram socket.
#[derive(Debug, Clone)]
pub struct Mailbox(SocketAddrUnix);

impl Mailbox {
    /// Parses a name in the form of sd_notify(3): a path, or a name in the abstract namespace after `@`.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a name of neither form, or if it is too long.
    pub fn new(name: &OsStr) -> io::Result<Mailbox> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path @ [b'/', ..] => SocketAddrUnix::new(path)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither a path nor an abstract name",
                ));
            }
        };
        Ok(Mailbox(address))
    }

    /// Sends one message. The other side keeps the descriptors when ours are closed.
    ///
    /// # Errors
    /// Returns `InvalidInput` for more than [`FDS_MAX`] descriptors, `WouldBlock` if the queue of the receiver stays
    /// full, or the error of sendmsg(2).
    pub fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(WAIT_MAX))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many descriptors for one message",
            ));
        }
        loop {
            match sendmsg_addr(
                &socket,
                &self.0,
                &[IoSlice::new(text.as_bytes())],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
