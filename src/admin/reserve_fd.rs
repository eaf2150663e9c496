//! A file that is held open for nothing, so that a client can be let in when no more may be opened: who wants to know what is
//! the matter must be answered just then.

use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The file, as long as nobody has its place.
#[derive(Debug, Default)]
pub(super) struct ReserveFd(Mutex<Option<UnixDatagram>>);

impl ReserveFd {
    /// Opened now, where that can be.
    pub(super) fn new() -> ReserveFd {
        let reserve_fd = ReserveFd::default();
        reserve_fd.keep();
        reserve_fd
    }

    /// Opens it again where it is lent and its place is free.
    pub(super) fn keep(&self) {
        let mut file = self.file();
        if file.is_none() {
            *file = UnixDatagram::unbound().ok();
        }
    }

    /// Closes it: what is opened next has its place. `false` where it is lent already.
    pub(super) fn lend(&self) -> bool {
        self.file().take().is_some()
    }

    fn file(&self) -> MutexGuard<'_, Option<UnixDatagram>> {
        // Nothing that holds it can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
