//! Errors of a takeover: those of the connection, and those that the protocol derives from them.

use std::io;
use std::time::Duration;

use crate::build::error::DaemonError;
use crate::takeover::messages::{BYTES_MAX, FDS_MAX, MessageKind};

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other process has ended, or has closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// The deadline passed before the whole message was sent or received.
    #[error("the deadline has passed")]
    TimedOut,
    /// The bytes are not a message of this protocol.
    #[error("{0}")]
    Malformed(String),
    /// The message exceeds a limit. The fields are its numbers of bytes and of descriptors.
    #[error("{0} bytes and {1} descriptors are too many")]
    TooLarge(usize, usize),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Why a takeover failed.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The connection was closed before this message arrived.
    #[error("the other process ended before it sent `{0:?}`")]
    ClosedBefore(MessageKind),
    /// This message did not arrive in time.
    #[error("the other process sent no `{0:?}` for {1:?}")]
    NotReceived(MessageKind, Duration),
    /// The connection was closed before all of this message was sent.
    #[error("the other process ended before it received `{0:?}`")]
    ClosedDuring(MessageKind),
    /// The other process did not read all of this message in time.
    #[error("the other process did not receive `{0:?}` within {1:?}")]
    NotSent(MessageKind, Duration),
    /// This message would exceed a limit. The numbers are its bytes and its descriptors.
    #[error("{0:?} would have {1} bytes and {2} descriptors, more than {BYTES_MAX} or {FDS_MAX}")]
    TooLarge(MessageKind, usize, usize),
    /// The other process refuses, or cannot be reached. The text is a sentence that says why.
    #[error("{0}")]
    Refused(String),
    /// The other process sent something that the protocol does not allow here.
    #[error("the other process sent an unexpected message: {0}")]
    Malformed(String),
    /// A system call failed.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl TakeoverError {
    /// Returns the error of a takeover in which this message could not be sent within `timeout`.
    pub fn sending(kind: MessageKind, timeout: Duration, error: WireError) -> TakeoverError {
        match error {
            WireError::Closed => TakeoverError::ClosedDuring(kind),
            WireError::TimedOut => TakeoverError::NotSent(kind, timeout),
            WireError::TooLarge(bytes, fds) => TakeoverError::TooLarge(kind, bytes, fds),
            WireError::Malformed(what) => TakeoverError::Malformed(what),
            WireError::System(error) => TakeoverError::System(error),
        }
    }

    /// Returns the error of a takeover in which this message could not be received within `timeout`.
    pub fn receiving(kind: MessageKind, timeout: Duration, error: WireError) -> TakeoverError {
        match error {
            WireError::Closed => TakeoverError::ClosedBefore(kind),
            WireError::TimedOut => TakeoverError::NotReceived(kind, timeout),
            WireError::TooLarge(bytes, fds) => TakeoverError::TooLarge(kind, bytes, fds),
            WireError::Malformed(what) => TakeoverError::Malformed(what),
            WireError::System(error) => TakeoverError::System(error),
        }
    }
}

impl From<TakeoverError> for DaemonError {
    fn from(error: TakeoverError) -> DaemonError {
        DaemonError::Takeover(error.to_string())
    }
}
