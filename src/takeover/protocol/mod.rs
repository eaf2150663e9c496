//! The decisions of a takeover, as state machines without sockets, clocks, threads or log. A driver performs the actions that
//! a machine returns, in order, and reports the outcome of the last one as the next event; `now` is the time of that report.
//!
//! Each side has two machines. The handshake lasts while the server still serves; the switchover is the time in which nobody
//! does. The tables of their states and events stand in [`crate::takeover`].

pub mod client;
pub mod server;

use std::time::Duration;

use crate::takeover::error::{TakeoverError, WireError};
use crate::takeover::messages::MessageKind;

/// Longest time in which either side waits for the other while somebody serves.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time in which the supervisor describes what it serves; a reload may be under way.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time in which a client ends after SIGKILL. The kernel needs some milliseconds to close its files.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of times that a client connects. A server that is being taken over at that moment may still accept it, and end.
pub const CONNECT_TRIES: u32 = 3;
/// Time between two tries. A server that ends has closed its takeover socket by then.
pub const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Longest time in which the server sends its state, and again in which the client starts. Nobody serves meanwhile.
///
/// To export and to import a session was measured to take 5 µs.
pub fn switchover_timeout(sessions: u64) -> Duration {
    let of_sessions = Duration::from_micros(100) * u32::try_from(sessions).unwrap_or(u32::MAX);
    MESSAGE_TIMEOUT.min(Duration::from_secs(1) + of_sessions)
}

/// A received message, as far as decisions depend on it. The driver keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The client speaks this version of the protocol.
    Hello {
        /// The version.
        version: u32,
    },
    /// The server does not hand over.
    Refused {
        /// The reason, as a sentence.
        reason: String,
    },
    /// The server describes what it serves.
    Manifest,
    /// The client is prepared.
    Ready,
    /// The server has stopped its workers, and hands over their state.
    Released,
    /// The client's workers run.
    Started,
    /// The server's last counts.
    FinalCounts,
}

impl Message {
    /// The kind of this message.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Hello { .. } => MessageKind::Hello,
            Message::Refused { .. } => MessageKind::Refused,
            Message::Manifest => MessageKind::Manifest,
            Message::Ready => MessageKind::Ready,
            Message::Released => MessageKind::Released,
            Message::Started => MessageKind::Started,
            Message::FinalCounts => MessageKind::FinalCounts,
        }
    }
}

/// Judges what was received while a message of this kind was expected.
///
/// # Errors
///
/// The reason for which the takeover fails: a refusal, another message, or an error of the connection.
pub fn expect(
    kind: MessageKind,
    timeout: Duration,
    received: Result<Message, WireError>,
) -> Result<Message, TakeoverError> {
    let message = received.map_err(|error| TakeoverError::receiving(kind, timeout, error))?;
    match message {
        message if message.kind() == kind => Ok(message),
        Message::Refused { reason } => Err(TakeoverError::Refused(reason)),
        message => Err(TakeoverError::Malformed(format!(
            "received `{:?}` instead of `{kind:?}`",
            message.kind()
        ))),
    }
}

/// The error for an event that does not answer the last action: a defect of the driver.
fn misplaced(event: &impl std::fmt::Debug) -> TakeoverError {
    TakeoverError::Malformed(format!("unexpected event {event:?}"))
}
