//! The decisions of the server, which serves and hands over to a client.

use std::time::{Duration, Instant};

use super::{DESCRIBE_TIMEOUT, KILL_TIMEOUT, MESSAGE_TIMEOUT, Message};
use super::{expect, misplaced, switchover_timeout};
use crate::takeover::error::{TakeoverError, WireError};
use crate::takeover::messages::{MessageKind, VERSION};

/// The process at the other end of a connection, as the kernel reports it (SO_PEERCRED in unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 if it is in another PID namespace.
    pub pid: u32,
    /// The user that it runs as.
    pub user: u32,
}

/// An event that the driver reports during the handshake.
#[derive(Debug)]
pub enum ServerHandshakeEvent {
    /// A client has connected.
    Accepted {
        /// Whether no other takeover is under way.
        is_alone: bool,
    },
    /// The supervisor has described the configuration of this generation.
    Described(u64),
    /// The supervisor cannot describe what it serves. The text is a sentence that says why.
    NotDescribed(String),
    /// The supervisor is ending this process.
    Stopping,
    /// `SendManifest` is done.
    Sent(Result<(), WireError>),
    /// `Receive` is done.
    Received(Result<Message, WireError>),
}

/// An action that the driver performs during the handshake.
#[derive(Debug)]
pub enum ServerHandshakeAction {
    /// Wait for a message.
    Receive {
        /// Longest wait.
        deadline: Instant,
    },
    /// Log that the client requests a takeover.
    ReportRequest,
    /// Request the description of what is served from the supervisor.
    Describe {
        /// Longest wait.
        deadline: Instant,
    },
    /// Send the description, with duplicates of all listening sockets.
    SendManifest {
        /// Longest wait.
        deadline: Instant,
    },
    /// Pass the connection to the supervisor for the switchover, if it still serves this generation.
    BeginSwitchover {
        /// The generation that the client has prepared for.
        generation: u64,
    },
    /// Log the reason, and send it if possible.
    Refuse(String),
    /// Set all options of the listeners' sockets again: the client has duplicates and may have changed them.
    RestoreListeners,
    /// Log that the takeover has failed, and that this process continues to serve.
    ReportFailure(TakeoverError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerHandshakeState {
    Connected,
    AwaitingHello,
    Describing,
    SendingManifest(u64),
    AwaitingReady(u64),
    Ended,
}

/// The handshake, during which the server serves.
#[derive(Debug)]
pub struct ServerHandshake {
    state: ServerHandshakeState,
    peer: Peer,
    own_user: u32,
}

impl ServerHandshake {
    /// Returns the machine before its first event, `Accepted`. `own_user` is the user that this process runs as.
    pub fn new(peer: Peer, own_user: u32) -> ServerHandshake {
        ServerHandshake {
            state: ServerHandshakeState::Connected,
            peer,
            own_user,
        }
    }

    /// Decides what follows from an event.
    pub fn step(
        &mut self,
        event: ServerHandshakeEvent,
        now: Instant,
    ) -> Vec<ServerHandshakeAction> {
        use ServerHandshakeAction as Action;
        use ServerHandshakeEvent as Event;
        use ServerHandshakeState as State;
        match (self.state, event) {
            (State::Connected, Event::Accepted { is_alone: false }) => {
                self.state = State::Ended;
                let reason = "another process is already taking over; only one can";
                vec![Action::Refuse(reason.to_owned())]
            }
            (State::Connected, Event::Accepted { is_alone: true }) => {
                self.state = State::AwaitingHello;
                let deadline = now + MESSAGE_TIMEOUT;
                vec![Action::Receive { deadline }]
            }
            (State::AwaitingHello, Event::Received(received)) => {
                match expect(MessageKind::Hello, MESSAGE_TIMEOUT, received) {
                    Ok(hello) => self.on_hello(&hello, now),
                    Err(error) => self.fail(error),
                }
            }
            (State::Describing, Event::Described(generation)) => {
                self.state = State::SendingManifest(generation);
                let deadline = now + MESSAGE_TIMEOUT;
                vec![Action::SendManifest { deadline }]
            }
            (State::Describing, Event::NotDescribed(reason)) => self.refuse(reason),
            // The client connects again, to the next server if there is one.
            (State::Describing, Event::Stopping) => {
                self.fail(TakeoverError::ClosedDuring(MessageKind::Manifest))
            }
            (State::SendingManifest(generation), Event::Sent(Ok(()))) => {
                self.state = State::AwaitingReady(generation);
                let deadline = now + MESSAGE_TIMEOUT;
                vec![Action::Receive { deadline }]
            }
            (State::SendingManifest(_), Event::Sent(Err(error))) => self.fail(
                TakeoverError::sending(MessageKind::Manifest, MESSAGE_TIMEOUT, error),
            ),
            (State::AwaitingReady(generation), Event::Received(received)) => {
                match expect(MessageKind::Ready, MESSAGE_TIMEOUT, received) {
                    Ok(_) => {
                        self.state = State::Ended;
                        vec![Action::BeginSwitchover { generation }]
                    }
                    Err(error) => self.fail(error),
                }
            }
            (_, event) => self.fail(misplaced(&event)),
        }
    }

    fn on_hello(&mut self, hello: &Message, now: Instant) -> Vec<ServerHandshakeAction> {
        if let Some(reason) = self.objection(hello) {
            return self.refuse(reason);
        }
        self.state = ServerHandshakeState::Describing;
        let deadline = now + DESCRIBE_TIMEOUT;
        vec![
            ServerHandshakeAction::ReportRequest,
            ServerHandshakeAction::Describe { deadline },
        ]
    }

    /// Returns the reason for which this client may not take over, if there is one.
    fn objection(&self, hello: &Message) -> Option<String> {
        // If such a client became silent, this process could not end it, because it cannot send it a signal.
        if self.peer.pid == 0 {
            let reason = "it runs in another PID namespace, such as another container's";
            return Some(reason.to_owned());
        }
        if self.peer.user != 0 && self.peer.user != self.own_user {
            return Some("it runs as another user".to_owned());
        }
        match hello {
            Message::Hello { version } if *version != VERSION => Some(format!(
                "it uses version {version} of the takeover protocol, this process uses version {VERSION}; stop this process and start the other"
            )),
            _ => None,
        }
    }

    fn refuse(&mut self, reason: String) -> Vec<ServerHandshakeAction> {
        let mut actions = vec![ServerHandshakeAction::Refuse(reason.clone())];
        actions.extend(self.fail(TakeoverError::Refused(reason)));
        actions
    }

    fn fail(&mut self, error: TakeoverError) -> Vec<ServerHandshakeAction> {
        self.state = ServerHandshakeState::Ended;
        vec![
            ServerHandshakeAction::RestoreListeners,
            ServerHandshakeAction::ReportFailure(error),
        ]
    }
}

/// The conditions that decide whether the server can hand over at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchoverConditions {
    /// The generation that the client has prepared for.
    pub prepared_for: u64,
    /// The generation that is served.
    pub generation: u64,
    /// Whether a reload is in progress or waits.
    pub is_reloading: bool,
    /// Whether the final counts of the process that this one has taken over are still missing.
    pub awaits_final_counts: bool,
}

impl SwitchoverConditions {
    /// Returns the reason for which the server cannot hand over now, if there is one.
    fn objection(&self) -> Option<&'static str> {
        if self.prepared_for != self.generation {
            return Some("the configuration has changed since; try again");
        }
        // The operator who requested the reload expects its result from this process.
        if self.is_reloading {
            return Some("a reload is in progress; try again");
        }
        // The final counts use row numbers that only this process can interpret.
        let reason = "the previous process has not sent its final counts yet; try again";
        self.awaits_final_counts.then_some(reason)
    }
}

/// An event that the driver reports during the switchover.
#[derive(Debug)]
pub enum ServerSwitchoverEvent {
    /// The supervisor has the connection.
    Begun(SwitchoverConditions),
    /// `PrepareThreads` is done, or has failed; the text is a sentence that says why.
    Prepared(Result<(), String>),
    /// `ParkWorkers` is done: no process serves.
    Parked {
        /// Number of sessions and of source ports in use, all of which are handed over.
        sessions: u64,
    },
    /// `SendState` or `SendFinalCounts` is done.
    Sent(Result<(), WireError>),
    /// `Receive` is done.
    Received(Result<Message, WireError>),
    /// `KillPeer` is done, and the client has ended; otherwise the reason for which it may still run.
    Killed(Result<(), String>),
}

/// An action that the driver performs during the switchover.
#[derive(Debug)]
pub enum ServerSwitchoverAction {
    /// Start the threads that would resume serving, so that this cannot fail later.
    PrepareThreads,
    /// Stop all workers and export their state. Their sockets stay open and queue what arrives.
    ParkWorkers,
    /// Send the state, with the sockets of all upstreams.
    SendState {
        /// Longest wait.
        deadline: Instant,
    },
    /// Wait for a message.
    Receive {
        /// Longest wait.
        deadline: Instant,
    },
    /// Send SIGKILL to the client, and wait until the kernel has closed its end of the connection.
    KillPeer {
        /// Longest wait.
        deadline: Instant,
    },
    /// Log that the client could not be ended, and why.
    ReportSurvivor(String),
    /// Let the parked workers serve again.
    ResumeServing,
    /// Set all options of the listeners' sockets again: the client has duplicates and may have changed them.
    RestoreListeners,
    /// Log the reason, and send it if possible.
    Refuse(String),
    /// Log that the takeover has failed, and that this process continues to serve.
    ReportFailure(TakeoverError),
    /// Log that the client has taken over.
    ReportTakenOver,
    /// Notify the service manager that the client is the main process. This must happen before this process ends.
    AnnounceMainPid,
    /// Read and count all datagrams of the listeners that the client does not have, and close all sockets.
    CloseSockets,
    /// Send what was counted since the state was exported.
    SendFinalCounts {
        /// Longest wait.
        deadline: Instant,
    },
    /// Log that the final counts did not reach the client.
    ReportLostCounts(TakeoverError),
}

#[derive(Debug)]
enum ServerSwitchoverState {
    Waiting,
    Preparing,
    Parking,
    SendingState(Duration),
    AwaitingStarted(Duration),
    Killing(TakeoverError),
    SendingFinalCounts,
    Failed,
    TakenOver,
}

/// The switchover: the server stops, and then either the client serves or the server resumes.
#[derive(Debug)]
pub struct ServerSwitchover {
    state: ServerSwitchoverState,
}

impl Default for ServerSwitchover {
    /// Returns the machine before its first event, `Begun`.
    fn default() -> ServerSwitchover {
        ServerSwitchover {
            state: ServerSwitchoverState::Waiting,
        }
    }
}

impl ServerSwitchover {
    /// Returns whether the client serves now, so that this process must end.
    pub fn is_taken_over(&self) -> bool {
        use ServerSwitchoverState as State;
        matches!(self.state, State::SendingFinalCounts | State::TakenOver)
    }

    /// Decides what follows from an event.
    pub fn step(
        &mut self,
        event: ServerSwitchoverEvent,
        now: Instant,
    ) -> Vec<ServerSwitchoverAction> {
        use ServerSwitchoverAction as Action;
        use ServerSwitchoverEvent as Event;
        use ServerSwitchoverState as State;
        match (std::mem::replace(&mut self.state, State::Failed), event) {
            (State::Waiting, Event::Begun(conditions)) => match conditions.objection() {
                Some(reason) => refuse(reason.to_owned()),
                None => self.enter(State::Preparing, vec![Action::PrepareThreads]),
            },
            (State::Preparing, Event::Prepared(Err(reason))) => refuse(reason),
            (State::Preparing, Event::Prepared(Ok(()))) => {
                self.enter(State::Parking, vec![Action::ParkWorkers])
            }
            (State::Parking, Event::Parked { sessions }) => {
                let timeout = switchover_timeout(sessions);
                let deadline = now + timeout;
                self.enter(
                    State::SendingState(timeout),
                    vec![Action::SendState { deadline }],
                )
            }
            (State::SendingState(timeout), Event::Sent(Ok(()))) => {
                let deadline = now + timeout;
                self.enter(
                    State::AwaitingStarted(timeout),
                    vec![Action::Receive { deadline }],
                )
            }
            // A client that has not received all of the state cannot start.
            (State::SendingState(timeout), Event::Sent(Err(error))) => resume(
                TakeoverError::sending(MessageKind::Released, timeout, error),
            ),
            (State::AwaitingStarted(timeout), Event::Received(received)) => {
                match expect(MessageKind::Started, timeout, received) {
                    Ok(_) => self.finish(now),
                    // A client that may serve keeps the connection open until it has ended.
                    Err(error @ TakeoverError::ClosedBefore(_)) => resume(error),
                    // The client has the state. It may have started, or may start at any time. Two processes must not serve.
                    Err(error) => self.kill(error, now),
                }
            }
            (State::Killing(error), Event::Killed(Ok(()))) => resume(error),
            (State::Killing(error), Event::Killed(Err(reason))) => {
                let mut actions = vec![Action::ReportSurvivor(reason)];
                actions.extend(resume(error));
                actions
            }
            (State::SendingFinalCounts, Event::Sent(sent)) => self.on_final_counts_sent(sent),
            (state, event) => self.on_misplaced(state, &event, now),
        }
    }

    fn enter(
        &mut self,
        state: ServerSwitchoverState,
        actions: Vec<ServerSwitchoverAction>,
    ) -> Vec<ServerSwitchoverAction> {
        self.state = state;
        actions
    }

    fn finish(&mut self, now: Instant) -> Vec<ServerSwitchoverAction> {
        let deadline = now + MESSAGE_TIMEOUT;
        let actions = vec![
            ServerSwitchoverAction::ReportTakenOver,
            ServerSwitchoverAction::AnnounceMainPid,
            ServerSwitchoverAction::CloseSockets,
            ServerSwitchoverAction::SendFinalCounts { deadline },
        ];
        self.enter(ServerSwitchoverState::SendingFinalCounts, actions)
    }

    fn on_final_counts_sent(&mut self, sent: Result<(), WireError>) -> Vec<ServerSwitchoverAction> {
        let lost = sent
            .err()
            .map(|error| TakeoverError::sending(MessageKind::FinalCounts, MESSAGE_TIMEOUT, error));
        let report = lost.map(ServerSwitchoverAction::ReportLostCounts);
        self.enter(
            ServerSwitchoverState::TakenOver,
            report.into_iter().collect(),
        )
    }

    fn kill(&mut self, error: TakeoverError, now: Instant) -> Vec<ServerSwitchoverAction> {
        let deadline = now + KILL_TIMEOUT;
        let actions = vec![ServerSwitchoverAction::KillPeer { deadline }];
        self.enter(ServerSwitchoverState::Killing(error), actions)
    }

    /// Handles an event that does not fit the state, which is a defect of the driver. The defect must not leave the daemon
    /// without workers, or with two processes that serve.
    fn on_misplaced(
        &mut self,
        state: ServerSwitchoverState,
        event: &ServerSwitchoverEvent,
        now: Instant,
    ) -> Vec<ServerSwitchoverAction> {
        use ServerSwitchoverState as State;
        let error = misplaced(event);
        match state {
            State::Waiting | State::Preparing => fail(error),
            State::Parking | State::SendingState(_) => resume(error),
            State::AwaitingStarted(_) => self.kill(error, now),
            State::Killing(_) => resume(error),
            State::SendingFinalCounts | State::TakenOver => {
                self.enter(State::TakenOver, Vec::new())
            }
            State::Failed => Vec::new(),
        }
    }
}

fn refuse(reason: String) -> Vec<ServerSwitchoverAction> {
    vec![
        ServerSwitchoverAction::Refuse(reason),
        ServerSwitchoverAction::RestoreListeners,
    ]
}

fn resume(error: TakeoverError) -> Vec<ServerSwitchoverAction> {
    let mut actions = vec![ServerSwitchoverAction::ResumeServing];
    actions.extend(fail(error));
    actions
}

fn fail(error: TakeoverError) -> Vec<ServerSwitchoverAction> {
    vec![
        ServerSwitchoverAction::RestoreListeners,
        ServerSwitchoverAction::ReportFailure(error),
    ]
}
