//! The place of a run: the processor that forwards, the one that loads, and another host to send to, if there is one.

use crate::sys::{self, Namespaces};
use std::io;

/// The processors and the namespaces of a run.
pub(crate) struct Place {
    pub(crate) forwarder_cpu: usize,
    pub(crate) load_cpu: usize,
    /// Largest number of files that a process may have open.
    pub(crate) files_max: u64,
    namespaces: Result<Namespaces, String>,
}

impl Place {
    /// Pins this thread to the load's processor, and moves to namespaces of its own if it may.
    pub(crate) fn find() -> io::Result<Self> {
        let (forwarder_cpu, load_cpu) = if let [first, .., last] = sys::allowed_cpus()?.as_slice() {
            (*last, *first)
        } else {
            let reason = "two processors are needed: one to forward, one to send and receive";
            return Err(io::Error::other(reason));
        };
        sys::pin(load_cpu)?;
        let files_max = sys::raise_file_limit()?;
        let namespaces = Namespaces::enter(load_cpu).map_err(|error| error.to_string());
        Ok(Self {
            forwarder_cpu,
            load_cpu,
            files_max,
            namespaces,
        })
    }

    /// The other host, or the reason why there is none.
    pub(crate) fn namespaces(&self) -> io::Result<&Namespaces> {
        self.namespaces
            .as_ref()
            .map_err(|reason| io::Error::other(format!("no other host: {reason}")))
    }

    /// Whether the run is in network namespaces of its own.
    pub(crate) fn is_private(&self) -> bool {
        self.namespaces.is_ok()
    }
}
