//! What the process lacks while it runs: files that it may open, room for its log. Looked at once a second, and told as a
//! trouble as long as it lasts; datagrams flow meanwhile.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::build::log_writer;
use crate::net::{errno, limits};
use crate::observe::conditions::Troubles;

/// Time between two looks.
const STEP: Duration = Duration::from_secs(1);
/// Files were there at every look for so long: the shortage is over. Sessions that come and go would otherwise begin and
/// end it each second.
const CALM: Duration = Duration::from_secs(5);

/// The names of the troubles.
const FILES: &str = "files";
const LOG: &str = "log";

/// What is lacking now.
pub struct Shortages {
    next: Instant,
    /// When no file could be opened last, as long as that is a trouble.
    files: Option<Instant>,
    is_mute: bool,
}

impl Shortages {
    /// Nothing is, so far.
    pub(crate) fn new() -> Shortages {
        Shortages {
            next: Instant::now(),
            files: None,
            is_mute: false,
        }
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Looks, where it is time to.
    pub fn look(&mut self, now: Instant, troubles: &Troubles) {
        if now < self.next {
            return;
        }
        self.next = now + STEP;
        self.look_at_files(now, troubles);
        self.look_at_log(troubles);
    }

    fn look_at_files(&mut self, now: Instant, troubles: &Troubles) {
        // A socket, since sessions are sockets; closed at once.
        match (UnixDatagram::unbound(), self.files) {
            (Err(error), since) if errno::lacks_file(&error) => {
                self.files = Some(now);
                let trouble = explain(&error);
                if since.is_none() {
                    log::warn!("{trouble}");
                }
                troubles.begin(FILES, trouble);
            }
            (_, Some(last)) if now.saturating_duration_since(last) >= CALM => {
                self.files = None;
                log::info!("files can be opened again");
                troubles.end(FILES);
            }
            _ => {}
        }
    }

    fn look_at_log(&mut self, troubles: &Troubles) {
        let trouble = log_writer::trouble();
        match (&trouble, self.is_mute) {
            (Some(trouble), _) => troubles.begin(LOG, trouble.clone()),
            (None, true) => {
                log::info!("the log can be written again");
                troubles.end(LOG);
            }
            (None, false) => {}
        }
        self.is_mute = trouble.is_some();
    }
}

fn explain(error: &io::Error) -> String {
    format!(
        "no more files can be opened: {error}; {} are the limit now. Sessions that are there go on, new ones are refused as \
         `no_port`, and visitors are let in one at a time. Raise `LimitNOFILE=` of the unit (or `ulimit -n`), or shorten \
         `session_idle`",
        limits::open_files()
    )
}
