//! A set of sockets to wait for, each with a number that the caller chooses.

use super::checked;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// One epoll instance and the events of its last wait.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An instance for at most this many events at once.
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        // SAFETY: the call touches no memory.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new, and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; events],
        })
    }

    /// Watches a socket for datagrams, level-triggered, until the socket is closed.
    pub(crate) fn add(&self, socket: &impl AsRawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: number,
        };
        let epoll = self.epoll.as_raw_fd();
        let socket = socket.as_raw_fd();
        // SAFETY: the kernel only reads `event`.
        checked(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) })
            .map(drop)
    }

    /// Waits until at least one socket is ready. Returns how many are.
    pub(crate) fn wait(&mut self) -> io::Result<usize> {
        let events = self.events.as_mut_ptr();
        let room = self.events.len() as libc::c_int;
        // SAFETY: the kernel writes at most `room` events, which is how many there are.
        Ok(
            checked(unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, room, -1) })?
                as usize,
        )
    }

    /// The number of a socket that the last wait found ready.
    pub(crate) fn ready(&self, event: usize) -> u64 {
        self.events[event].u64
    }
}
