//! Counters of the control socket's clients. `admin` increments them, and every snapshot shows them.

use crate::dispatch::counters::{SharedFamily, counters};

/// What was refused. Each counter belongs to one limit or rule.
const REFUSED: SharedFamily = SharedFamily {
    name: "admin_refused_total",
    help: "Refusals of the control socket and the HTTP port, by limit.",
    label: "by",
};

counters! {
    /// The counters of the control socket and of the HTTP port.
    pub struct AdminRow shared AdminStats {
        /// Open connections to the control socket and the HTTP port.
        connections: gauge("connections", metric "admin_connections");
        /// Connected viewers of the live view.
        viewers: gauge("viewers", metric "admin_viewers");
        /// Connections accepted so far.
        accepted: counter("accepted", metric "admin_connections_total");
        /// Failures to accept a connection; each is retried.
        failed_accepts: counter("failed accepts", metric "admin_failed_accepts_total");
        /// Requests responded to so far, including refusals.
        requests: counter("requests", metric "admin_requests_total");
        /// Requests refused because too many others waited for the supervisor.
        refused_busy: counter("refused: busy", part "busy" of REFUSED);
        /// Connections closed at once because the maximum number was open.
        refused_connections: counter("refused: connections", part "connections" of REFUSED);
        /// Requests refused because their `Host` is not allowed.
        refused_hosts: counter("refused: hosts", part "host" of REFUSED);
        /// Requests over TCP refused because they would change something.
        refused_methods: counter("refused: methods", part "method" of REFUSED);
        /// Requests refused because they were too large, too slow, or not HTTP.
        refused_requests: counter("refused: requests", part "request" of REFUSED);
        /// Viewers refused because the maximum number was connected.
        refused_viewers: counter("refused: viewers", part "viewers" of REFUSED);
    }
}
