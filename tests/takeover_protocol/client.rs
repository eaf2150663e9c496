//! The process that takes over: the state machines of the client, and the effects of their actions in this model.

use std::time::Duration;

use udispatch::takeover::error::TakeoverError;
use udispatch::takeover::messages::{MessageKind, VERSION};
use udispatch::takeover::protocol::client::{
    ClientHandshake, ClientHandshakeAction, ClientHandshakeEvent, ClientSwitchover,
    ClientSwitchoverAction, ClientSwitchoverEvent,
};
use udispatch::takeover::protocol::{MESSAGE_TIMEOUT, Message, expect};

use crate::connection::Connection;
use crate::covered::Covered;
use crate::world::{Pending, Process, World, outcome};

/// An event for the state machines.
#[derive(Debug)]
pub enum Event {
    Handshake(ClientHandshakeEvent),
    Switchover(ClientSwitchoverEvent),
    /// The message that came in the place of the final counts.
    FinalCounts(Result<Message, TakeoverError>),
    /// The process ended by itself.
    Ended,
}

/// The effects of a SIGKILL that was sent.
pub struct Kill {
    /// When its threads stop, if they still run.
    pub stops_at: Option<Duration>,
    /// When its connection is closed.
    pub closes_at: Duration,
}

/// The process that takes over.
pub struct Client {
    pub process: Process,
    pub pending: Pending<Event>,
    pub connection: Option<usize>,
    handshake: ClientHandshake,
    switchover: ClientSwitchover,
    pub kill: Option<Kill>,
    pub has_started: bool,
    /// Whether SIGKILL was not permitted.
    pub is_survivor: bool,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            process: Process {
                is_alive: true,
                ..Process::default()
            },
            pending: Pending::Nothing,
            connection: None,
            handshake: ClientHandshake::default(),
            switchover: ClientSwitchover::default(),
            kill: None,
            has_started: false,
            is_survivor: false,
        }
    }
}

impl World {
    pub fn begin_client(&mut self, covered: &mut Covered) {
        self.handle_client(Event::Handshake(ClientHandshakeEvent::Begun), covered);
    }

    pub fn step_client(&mut self, covered: &mut Covered) {
        let client = &mut self.client;
        let (inbound, outbound) = match client.connection {
            Some(connection) => {
                let pipes = &mut self.connections[connection];
                (Some(&mut pipes.to_client), Some(&mut pipes.to_server))
            }
            None => (None, None),
        };
        let pipes = (inbound, outbound);
        let now = self.now;
        let random = &mut self.random;
        let event = outcome(
            now,
            &client.process,
            &mut client.pending,
            pipes,
            random,
            self.is_hostile,
        );
        if let Some(event) = event {
            self.tell(format!("client: {event:?}"));
            self.handle_client(event, covered);
        }
    }

    fn handle_client(&mut self, event: Event, covered: &mut Covered) {
        let now = self.instant();
        self.client.pending = match event {
            Event::Handshake(event) => {
                let action = self.client.handshake.step(event, now);
                self.tell(format!("client: {action:?}"));
                self.client_handshake(action, covered)
            }
            Event::Switchover(event) => {
                let action = self.client.switchover.step(event, now);
                self.tell(format!("client: {action:?}"));
                self.client_switchover(action, covered)
            }
            Event::FinalCounts(counts) => {
                covered.meet(match counts {
                    Ok(_) => "final counts received",
                    Err(_) => "final counts lost by the client",
                });
                Pending::Nothing
            }
            Event::Ended => {
                self.end_client();
                Pending::Nothing
            }
        };
    }

    fn client_handshake(
        &mut self,
        action: ClientHandshakeAction,
        covered: &mut Covered,
    ) -> Pending<Event> {
        use ClientHandshakeAction as Action;
        use ClientHandshakeEvent as Told;
        match action {
            Action::Connect => {
                let connected = self.connect(covered);
                let at = self.now + self.random_ms(1);
                Pending::Work(at, Event::Handshake(Told::Connected(connected)))
            }
            Action::SendHello { deadline } => {
                let version = VERSION + u32::from(self.fails_once_in(32));
                self.write(Message::Hello { version }, deadline, |sent| {
                    Event::Handshake(Told::Sent(sent))
                })
            }
            Action::Receive { deadline } => Pending::Read(self.time_of(deadline), |received| {
                Event::Handshake(Told::Received(received))
            }),
            Action::Pause { until } => {
                covered.meet("client retries");
                Pending::Work(self.time_of(until), Event::Handshake(Told::Paused))
            }
            Action::Prepare => {
                let most = if self.once_in(6) { 15_000 } else { 300 };
                let duration = self.random_ms(most);
                let event = if self.fails_once_in(24) {
                    Event::Ended
                } else {
                    Event::Switchover(ClientSwitchoverEvent::Prepared)
                };
                Pending::Work(self.now + duration, event)
            }
            Action::Fail(error) => {
                covered.meet(format!("client failed: {error:?}"));
                self.end_client();
                Pending::Nothing
            }
        }
    }

    fn client_switchover(
        &mut self,
        action: ClientSwitchoverAction,
        covered: &mut Covered,
    ) -> Pending<Event> {
        use ClientSwitchoverAction as Action;
        use ClientSwitchoverEvent as Told;
        match action {
            Action::SendReady { deadline } => self.write(Message::Ready, deadline, |sent| {
                Event::Switchover(Told::Sent(sent))
            }),
            Action::Receive { deadline } => Pending::Read(self.time_of(deadline), |received| {
                Event::Switchover(Told::Received(received))
            }),
            Action::StartWorkers => {
                self.client.process.is_serving = true;
                self.client.has_started = true;
                let at = self.now + self.random_ms(50);
                Pending::Work(at, Event::Switchover(Told::WorkersStarted))
            }
            Action::SendStarted { deadline } => self.write(Message::Started, deadline, |sent| {
                Event::Switchover(Told::Sent(sent))
            }),
            Action::CheckServer => {
                let is_running = self.server.process.is_alive;
                Pending::Work(
                    self.now,
                    Event::Switchover(Told::ServerChecked { is_running }),
                )
            }
            Action::ReceiveFinalCounts { deadline } => {
                Pending::Read(self.time_of(deadline), |received| {
                    let kind = MessageKind::FinalCounts;
                    Event::FinalCounts(expect(kind, MESSAGE_TIMEOUT, received))
                })
            }
            Action::ServeAlone(_) => {
                covered.meet("client serves alone");
                Pending::Nothing
            }
            Action::Fail(error) => {
                covered.meet(format!("client failed: {error:?}"));
                assert!(
                    !self.client.process.is_serving,
                    "it serves, and closes its connection"
                );
                self.end_client();
                Pending::Nothing
            }
            Action::Exit(_) => {
                covered.meet("client exits");
                // Its workers serve until it has ended, and its connection is open until then.
                Pending::Work(self.now + self.random_ms(500), Event::Ended)
            }
        }
    }

    /// Opens a new connection, sometimes to a process that ends at that moment.
    fn connect(&mut self, covered: &mut Covered) -> Result<(), TakeoverError> {
        self.close_client_connection();
        if !self.server.process.is_alive {
            return Err(TakeoverError::Refused("nobody runs".to_owned()));
        }
        let connection = self.connections.len();
        self.connections.push(Connection::default());
        self.client.connection = Some(connection);
        if self.fails_once_in(12) {
            let pipes = &mut self.connections[connection];
            pipes.to_client.close_writer(self.now);
            pipes.to_server.close_reader();
        } else {
            self.accept(connection, covered);
        }
        Ok(())
    }

    fn close_client_connection(&mut self) {
        if let Some(connection) = self.client.connection.take() {
            let pipes = &mut self.connections[connection];
            pipes.to_server.close_writer(self.now);
            pipes.to_client.close_reader();
        }
    }

    /// The process ends, and the kernel closes its connection then.
    pub fn end_client(&mut self) {
        self.client.process.end();
        self.client.kill = None;
        self.close_client_connection();
    }

    /// Applies the effects of SIGKILL that are due.
    pub fn finish_kill(&mut self) {
        let Some(kill) = &mut self.client.kill else {
            return;
        };
        if kill.stops_at.is_some_and(|stops_at| stops_at <= self.now) {
            kill.stops_at = None;
            self.client.process.end();
        }
        if kill.stops_at.is_none() && kill.closes_at <= self.now {
            self.end_client();
        }
    }
}
