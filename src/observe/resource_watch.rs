//! Checks once a second for resources that the process lacks while it runs: file descriptors, and space for its log. A
//! shortage is reported as a condition as long as it lasts, while datagrams still flow.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::build::log_writer;
use crate::net::{errno, limits};
use crate::observe::conditions::Conditions;

/// Time between two checks.
const STEP: Duration = Duration::from_secs(1);
/// A shortage of descriptors ends when every check has succeeded for this time. Otherwise it would begin and end each second
/// while sessions open and close.
const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// The names of the conditions.
const FILES: &str = "files";
const LOG: &str = "log";

/// The current shortages.
pub struct ResourceWatch {
    next: Instant,
    /// When opening a file last failed; `None` while there is no shortage.
    files: Option<Instant>,
    /// Whether the last check found that the log cannot be written.
    is_log_failing: bool,
}

impl ResourceWatch {
    /// Returns the state without any shortage.
    pub(crate) fn new() -> ResourceWatch {
        ResourceWatch {
            next: Instant::now(),
            files: None,
            is_log_failing: false,
        }
    }

    /// Returns the time of the next check.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Performs the check if it is due.
    pub fn check(&mut self, now: Instant, conditions: &Conditions) {
        if now < self.next {
            return;
        }
        self.next = now + STEP;
        self.check_files(now, conditions);
        self.check_log(conditions);
    }

    fn check_files(&mut self, now: Instant, conditions: &Conditions) {
        // Test with a socket, since sessions need sockets. It is closed at once.
        match (UnixDatagram::unbound(), self.files) {
            (Err(error), since) if errno::lacks_file(&error) => {
                self.files = Some(now);
                let condition = explain(&error);
                if since.is_none() {
                    log::warn!("{condition}");
                }
                conditions.begin(FILES, condition);
            }
            (_, Some(last)) if now.saturating_duration_since(last) >= QUIET_PERIOD => {
                self.files = None;
                log::info!("files can be opened again");
                conditions.end(FILES);
            }
            _ => {}
        }
    }

    fn check_log(&mut self, conditions: &Conditions) {
        let condition = log_writer::last_error();
        match (&condition, self.is_log_failing) {
            (Some(condition), _) => conditions.begin(LOG, condition.clone()),
            (None, true) => {
                log::info!("the log can be written again");
                conditions.end(LOG);
            }
            (None, false) => {}
        }
        self.is_log_failing = condition.is_some();
    }
}

fn explain(error: &io::Error) -> String {
    format!(
        "no more files can be opened: {error}; the limit is {}. Open sessions continue, new ones are refused as `no_port`, \
         and clients of the control socket are accepted one at a time. Raise `LimitNOFILE=` of the unit (or `ulimit -n`), or shorten \
         `session_idle`",
        limits::open_files()
    )
}
