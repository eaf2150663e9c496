//! The decisions of the client, which takes over from a server. Each step returns one action.

use std::time::Instant;

use super::{CONNECT_PAUSE, CONNECT_TRIES, MESSAGE_TIMEOUT, Message, expect, misplaced};
use crate::takeover::error::{TakeoverError, WireError};
use crate::takeover::messages::MessageKind;

/// An event that the driver reports during the handshake.
#[derive(Debug)]
pub enum ClientHandshakeEvent {
    /// A takeover is requested.
    Begun,
    /// `Connect` is done.
    Connected(Result<(), TakeoverError>),
    /// `SendHello` is done.
    Sent(Result<(), WireError>),
    /// `Receive` is done.
    Received(Result<Message, WireError>),
    /// `Pause` is done.
    Paused,
}

/// An action that the driver performs during the handshake.
#[derive(Debug)]
pub enum ClientHandshakeAction {
    /// Close the connection, if there is one, and connect to the server's takeover socket.
    Connect,
    /// Send the version of the protocol.
    SendHello {
        /// Longest wait.
        deadline: Instant,
    },
    /// Wait for a message.
    Receive {
        /// Longest wait.
        deadline: Instant,
    },
    /// Do nothing for a while.
    Pause {
        /// End of the pause.
        until: Instant,
    },
    /// Build everything beside the server, which serves meanwhile. The handshake is over.
    Prepare,
    /// Close the connection and end.
    Fail(TakeoverError),
}

#[derive(Debug)]
enum ClientHandshakeState {
    Begun,
    Connecting,
    SendingHello,
    /// The field is the error of `Hello`, if that was not sent: a server that refuses does not wait for it.
    AwaitingManifest(Option<TakeoverError>),
    Pausing,
    Ended,
}

/// The handshake, during which the server serves.
#[derive(Debug)]
pub struct ClientHandshake {
    state: ClientHandshakeState,
    tries: u32,
}

impl Default for ClientHandshake {
    /// Returns the machine before its first event, `Begun`.
    fn default() -> ClientHandshake {
        ClientHandshake {
            state: ClientHandshakeState::Begun,
            tries: 0,
        }
    }
}

impl ClientHandshake {
    /// Decides what follows from an event.
    pub fn step(&mut self, event: ClientHandshakeEvent, now: Instant) -> ClientHandshakeAction {
        use ClientHandshakeAction as Action;
        use ClientHandshakeEvent as Event;
        use ClientHandshakeState as State;
        match (std::mem::replace(&mut self.state, State::Ended), event) {
            (State::Begun, Event::Begun) | (State::Pausing, Event::Paused) => {
                self.tries += 1;
                self.enter(State::Connecting, Action::Connect)
            }
            (State::Connecting, Event::Connected(Err(error))) => Action::Fail(error),
            (State::Connecting, Event::Connected(Ok(()))) => {
                let deadline = now + MESSAGE_TIMEOUT;
                self.enter(State::SendingHello, Action::SendHello { deadline })
            }
            (State::SendingHello, Event::Sent(sent)) => {
                let unsent = sent.err().map(|error| {
                    TakeoverError::sending(MessageKind::Hello, MESSAGE_TIMEOUT, error)
                });
                let deadline = now + MESSAGE_TIMEOUT;
                self.enter(
                    State::AwaitingManifest(unsent),
                    Action::Receive { deadline },
                )
            }
            (State::AwaitingManifest(unsent), Event::Received(received)) => {
                match expect(MessageKind::Manifest, MESSAGE_TIMEOUT, received) {
                    Err(error @ TakeoverError::Refused(_)) => Action::Fail(error),
                    received => match unsent.map_or(received.map(|_| ()), Err) {
                        Ok(()) => Action::Prepare,
                        Err(error) => self.retry(error, now),
                    },
                }
            }
            (_, event) => Action::Fail(misplaced(&event)),
        }
    }

    /// Tries again if the server has ended, since another server may have taken its place.
    fn retry(&mut self, error: TakeoverError, now: Instant) -> ClientHandshakeAction {
        let has_ended = matches!(
            error,
            TakeoverError::ClosedBefore(_) | TakeoverError::ClosedDuring(_)
        );
        if !has_ended || self.tries >= CONNECT_TRIES {
            return ClientHandshakeAction::Fail(error);
        }
        let until = now + CONNECT_PAUSE;
        self.enter(
            ClientHandshakeState::Pausing,
            ClientHandshakeAction::Pause { until },
        )
    }

    fn enter(
        &mut self,
        state: ClientHandshakeState,
        action: ClientHandshakeAction,
    ) -> ClientHandshakeAction {
        self.state = state;
        action
    }
}

/// An event that the driver reports during the switchover.
#[derive(Debug)]
pub enum ClientSwitchoverEvent {
    /// Everything is built. Only the start remains, which cannot fail.
    Prepared,
    /// `SendReady` or `SendStarted` is done.
    Sent(Result<(), WireError>),
    /// `Receive` is done.
    Received(Result<Message, WireError>),
    /// `StartWorkers` is done.
    WorkersStarted,
    /// `CheckServer` is done.
    ServerChecked {
        /// Whether the server still runs.
        is_running: bool,
    },
}

/// An action that the driver performs during the switchover.
#[derive(Debug)]
pub enum ClientSwitchoverAction {
    /// Report that everything is built.
    SendReady {
        /// Longest wait.
        deadline: Instant,
    },
    /// Wait for a message.
    Receive {
        /// Longest wait.
        deadline: Instant,
    },
    /// Import the state and start the workers.
    StartWorkers,
    /// Report that the workers run.
    SendStarted {
        /// Longest wait.
        deadline: Instant,
    },
    /// Check whether the server still runs.
    CheckServer,
    /// Serve, and wait for the server's final counts.
    ReceiveFinalCounts {
        /// Longest wait.
        deadline: Instant,
    },
    /// Serve without final counts, because the server has ended.
    ServeAlone(TakeoverError),
    /// Close the connection and end. The workers have not started.
    Fail(TakeoverError),
    /// End at once, because the server may serve again. The workers run, so the connection must stay open until this process has
    /// ended.
    Exit(TakeoverError),
}

#[derive(Debug)]
enum ClientSwitchoverState {
    Preparing,
    SendingReady,
    AwaitingReleased,
    Starting,
    SendingStarted,
    CheckingServer(TakeoverError),
    Ended,
}

/// The switchover: the server stops, and then either the client serves or the server resumes.
#[derive(Debug)]
pub struct ClientSwitchover {
    state: ClientSwitchoverState,
}

impl Default for ClientSwitchover {
    /// Returns the machine before its first event, `Prepared`.
    fn default() -> ClientSwitchover {
        ClientSwitchover {
            state: ClientSwitchoverState::Preparing,
        }
    }
}

impl ClientSwitchover {
    /// Decides what follows from an event.
    pub fn step(&mut self, event: ClientSwitchoverEvent, now: Instant) -> ClientSwitchoverAction {
        use ClientSwitchoverAction as Action;
        use ClientSwitchoverEvent as Event;
        use ClientSwitchoverState as State;
        let deadline = now + MESSAGE_TIMEOUT;
        match (std::mem::replace(&mut self.state, State::Ended), event) {
            (State::Preparing, Event::Prepared) => {
                self.enter(State::SendingReady, Action::SendReady { deadline })
            }
            (State::SendingReady, Event::Sent(Ok(()))) => {
                self.enter(State::AwaitingReleased, Action::Receive { deadline })
            }
            (State::SendingReady, Event::Sent(Err(error))) => Action::Fail(TakeoverError::sending(
                MessageKind::Ready,
                MESSAGE_TIMEOUT,
                error,
            )),
            (State::AwaitingReleased, Event::Received(received)) => {
                match expect(MessageKind::Released, MESSAGE_TIMEOUT, received) {
                    Ok(_) => self.enter(State::Starting, Action::StartWorkers),
                    Err(error) => Action::Fail(error),
                }
            }
            (State::Starting, Event::WorkersStarted) => {
                self.enter(State::SendingStarted, Action::SendStarted { deadline })
            }
            (State::SendingStarted, Event::Sent(Ok(()))) => Action::ReceiveFinalCounts { deadline },
            (State::SendingStarted, Event::Sent(Err(error))) => {
                let error = TakeoverError::sending(MessageKind::Started, MESSAGE_TIMEOUT, error);
                self.enter(State::CheckingServer(error), Action::CheckServer)
            }
            // The server has stopped waiting and serves again.
            (State::CheckingServer(error), Event::ServerChecked { is_running: true }) => {
                Action::Exit(error)
            }
            // The server has ended, and this process has all of its state.
            (State::CheckingServer(error), Event::ServerChecked { is_running: false }) => {
                Action::ServeAlone(error)
            }
            (State::Starting | State::SendingStarted | State::CheckingServer(_), event) => {
                Action::Exit(misplaced(&event))
            }
            (_, event) => Action::Fail(misplaced(&event)),
        }
    }

    fn enter(
        &mut self,
        state: ClientSwitchoverState,
        action: ClientSwitchoverAction,
    ) -> ClientSwitchoverAction {
        self.state = state;
        action
    }
}
