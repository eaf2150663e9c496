//! Why the daemon cannot start, or does not do what it is asked for: errors in words, for people.

use std::io;

use crate::config::kind::BuildError;
use crate::config::{LoadError, Problems};

/// Why the daemon cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The file does not fit this machine.
    #[error("{0}")]
    Configuration(Box<Problems>),
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// Something could not be bound, joined, resolved or opened.
    #[error("{0}")]
    Start(#[from] BuildError),
    /// The system refused something that it never should.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The running process has not given everything.
    #[error("cannot take over: {0}")]
    Takeover(String),
    /// A worker panicked: a defect.
    #[error("a worker ended by a defect; the message above says where. Please report it")]
    Worker,
}

impl From<LoadError> for DaemonError {
    fn from(error: LoadError) -> DaemonError {
        match error {
            LoadError::Wrong(problems) => DaemonError::Configuration(problems),
            LoadError::Unreadable { .. } => DaemonError::File(error.to_string()),
        }
    }
}

/// Turns an error of a system call into a failure that says `what` was being done.
pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |error| match error.raw_os_error() {
        Some(libc::EMFILE) => DaemonError::Start(explain(what.to_owned(), &error)),
        _ => DaemonError::System { what, error },
    }
}

/// Why a request was not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it names is not there; a sentence, with what was probably meant.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done now; a sentence.
    #[error("{0}")]
    Unable(String),
}

/// What to do when a process may have no more files open.
pub(crate) const TOO_MANY_FILES: &str = "this process may have no more files open. Raise the limit (`ulimit -n`, or LimitNOFILE= in \
     a unit), or name fewer ports, upstreams or workers";

/// What failed and why, in words.
pub(crate) fn explain(what: String, error: &io::Error) -> BuildError {
    match error.raw_os_error() {
        Some(libc::EMFILE) => BuildError(format!("{what}: {TOO_MANY_FILES}")),
        _ => BuildError(format!("{what}: {error}")),
    }
}
