//! Errors with texts for people: the reasons why the daemon cannot start, or refuses a request.

use std::io;

use crate::config::kind::BuildError;
use crate::config::{LoadError, Problems};

/// The reason why the daemon cannot start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The file does not fit this machine.
    #[error("{0}")]
    Configuration(Box<Problems>),
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// A socket, group, name or file could not be bound, joined, resolved or opened.
    #[error("{0}")]
    Start(#[from] BuildError),
    /// The kernel refused an operation that should always succeed.
    #[error("{what}: {error}")]
    System {
        /// The operation that failed.
        what: &'static str,
        /// The error that the kernel returned.
        error: io::Error,
    },
    /// The running process did not hand over everything.
    #[error("cannot take over: {0}")]
    Takeover(String),
    /// A worker panicked, which is a defect.
    #[error(
        "a worker panicked; the message above says where. This is a defect of udispatch: please report it"
    )]
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

/// Returns a function that turns an I/O error into a [`DaemonError::System`]. `what` names the operation.
pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |error| match error.raw_os_error() {
        Some(libc::EMFILE) => DaemonError::Start(explain(what.to_owned(), &error)),
        _ => DaemonError::System { what, error },
    }
}

/// The reason why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request names an object that does not exist. The sentence also suggests the object that was probably meant.
    #[error("{0}")]
    Unknown(String),
    /// The request cannot be fulfilled now; the sentence states the reason.
    #[error("{0}")]
    Unable(String),
}

/// The cause and the cure when the process has no file descriptor left.
pub(crate) const TOO_MANY_FILES: &str = "the limit of open files is reached. Raise it (`ulimit -n`, or LimitNOFILE= in \
     a unit), or name fewer ports, upstreams or workers";

/// Returns an error that states what failed, the cause, and what to do.
pub(crate) fn explain(what: String, error: &io::Error) -> BuildError {
    match error.raw_os_error() {
        Some(libc::EMFILE) => BuildError(format!("{what}: {TOO_MANY_FILES}")),
        _ => BuildError(format!("{what}: {error}")),
    }
}
