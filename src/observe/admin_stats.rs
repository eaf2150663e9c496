//! Counters of the control socket's clients. `admin` increments them, and every snapshot shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::observe::snapshot::AdminRow;

/// The counters. `AdminRow` in `snapshot/rows.rs` documents each of them.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct AdminStats {
    pub connections: Count,
    pub viewers: Count,
    pub accepted: Count,
    pub failed_accepts: Count,
    pub requests: Count,
    pub refused_connections: Count,
    pub refused_hosts: Count,
    pub refused_methods: Count,
    pub refused_requests: Count,
    pub refused_viewers: Count,
    pub refused_busy: Count,
}

/// A counter or gauge that any thread may change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts one, for gauges such as open connections.
    pub fn less(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl AdminStats {
    /// Returns the current values of all counters.
    pub fn row(&self) -> AdminRow {
        AdminRow {
            connections: self.connections.get(),
            viewers: self.viewers.get(),
            accepted: self.accepted.get(),
            failed_accepts: self.failed_accepts.get(),
            requests: self.requests.get(),
            refused_connections: self.refused_connections.get(),
            refused_hosts: self.refused_hosts.get(),
            refused_methods: self.refused_methods.get(),
            refused_requests: self.refused_requests.get(),
            refused_viewers: self.refused_viewers.get(),
            refused_busy: self.refused_busy.get(),
        }
    }
}
