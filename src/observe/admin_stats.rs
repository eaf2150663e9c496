//! Counters of the control socket's clients. `admin` increments them, and every snapshot shows them.

use crate::dispatch::counters::{SharedFamily, counters};

/// What was refused. Each counter belongs to one limit or rule.
const REFUSED: SharedFamily = SharedFamily {
    name: "admin_refused_total",
    help: "What a limit or a rule of the control socket or the HTTP port refused, by which.",
    label: "by",
};

counters! {
    /// The counters of the control socket and of the HTTP port.
    pub struct AdminRow shared AdminStats {
        /// Connections to the control socket and the HTTP port now.
        connections: gauge("connections", metric "admin_connections");
        /// Viewers of the live view now.
        viewers: gauge("viewers", metric "admin_viewers");
        /// Connections that were ever accepted.
        accepted: counter("accepted", metric "admin_connections_total");
        /// Times that a connection could not be accepted, as a rule since no more files may be open.
        failed_accepts: counter("failed accepts", metric "admin_failed_accepts_total");
        /// Requests that were ever answered, refusals among them.
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
