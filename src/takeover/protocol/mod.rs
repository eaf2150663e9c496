//! The decisions of a takeover, as state machines without sockets, clocks, threads or log. A driver performs the actions that
//! a machine returns, in order. It reports the outcome of the last one as the next event; `now` is the time of that report.
//!
//! Each side has two machines. The server still serves during the handshake. No process serves during the switchover.
//! [`crate::takeover`] has the tables of their states and events.

pub mod client;
pub mod server;

use std::time::Duration;

use crate::takeover::error::{TakeoverError, WireError};
use crate::takeover::messages::MessageKind;

/// Longest time for which either side waits for the other while one of them serves.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the supervisor's description of what it serves; a reload may be in progress.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the end of a client after SIGKILL. The kernel needs some milliseconds to close its files.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest number of times that a client connects. A server that is being taken over may still accept a client, and then end.
pub const CONNECT_TRIES: u32 = 3;
/// Time between two attempts to connect. A server that ends has closed its takeover socket by then.
pub const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Returns the longest time in which the server sends its state, and again in which the client starts. No process serves
/// meanwhile.
///
/// The export and import of a session takes 5 µs (measured).
pub fn switchover_timeout(sessions: u64) -> Duration {
    let of_sessions = Duration::from_micros(100) * u32::try_from(sessions).unwrap_or(u32::MAX);
    MESSAGE_TIMEOUT.min(Duration::from_secs(1) + of_sessions)
}

/// A received message, reduced to what the decisions depend on. The driver keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The client's first message, with the version of the protocol that it uses.
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
    /// Returns the kind of this message.
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

/// Checks what was received while a message of this kind was expected, and returns the message.
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

/// Returns the error for an event that is not the outcome of the last action, which is a defect of the driver.
fn misplaced(event: &impl std::fmt::Debug) -> TakeoverError {
    TakeoverError::Malformed(format!("unexpected event {event:?}"))
}
