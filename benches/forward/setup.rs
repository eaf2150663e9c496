//! The work that a forwarder has to do.

use crate::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;

/// The work that a forwarder has to do.
pub(crate) struct Setup<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) upstreams: &'a [SocketAddr],
    pub(crate) cell: &'a Cell,
    /// An empty folder for its configuration.
    pub(crate) folder: &'a Path,
    /// The largest receive buffer that setsockopt grants without privilege, in bytes.
    pub(crate) receive_buffer: usize,
    /// Largest number of files that the forwarder may have open.
    pub(crate) files_max: u64,
}
