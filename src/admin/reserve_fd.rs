//! A descriptor held in reserve, so that one client can connect when the process has no descriptor left. Operators need
//! a response in just that situation.

use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The reserved descriptor; `None` while it is lent.
#[derive(Debug, Default)]
pub(super) struct ReserveFd(Mutex<Option<UnixDatagram>>);

impl ReserveFd {
    /// Opens the descriptor, if possible.
    pub(super) fn new() -> ReserveFd {
        let reserve_fd = ReserveFd::default();
        reserve_fd.keep();
        reserve_fd
    }

    /// Opens the descriptor again, if it is lent and a descriptor is available.
    pub(super) fn keep(&self) {
        let mut file = self.file();
        if file.is_none() {
            *file = UnixDatagram::unbound().ok();
        }
    }

    /// Closes the descriptor, so that the next file that is opened can use its place. Returns `false` if it is lent
    /// already.
    pub(super) fn lend(&self) -> bool {
        self.file().take().is_some()
    }

    fn file(&self) -> MutexGuard<'_, Option<UnixDatagram>> {
        // A panic while the lock is held cannot leave the value half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
