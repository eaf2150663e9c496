//! The process that serves at first: the state machines of the server, and the effects of their actions in this model.

use std::collections::VecDeque;
use std::time::Duration;

use udispatch::dispatch::random::Random;
use udispatch::takeover::protocol::Message;
use udispatch::takeover::protocol::server::{
    Peer, ServerHandshake, ServerHandshakeAction, ServerHandshakeEvent, ServerSwitchover,
    ServerSwitchoverAction, ServerSwitchoverEvent, SwitchoverConditions,
};

use crate::client::Kill;
use crate::covered::Covered;
use crate::world::{PARK_MAX, Pending, Process, World, outcome};

const CLIENT: Peer = Peer { pid: 2, user: 1000 };
const USER: u32 = 1000;

/// An event for the state machines.
#[derive(Debug)]
pub enum Event {
    Handshake(ServerHandshakeEvent),
    Switchover(ServerSwitchoverEvent),
}

#[derive(Debug)]
enum Action {
    Handshake(ServerHandshakeAction),
    Switchover(ServerSwitchoverAction),
}

/// The time since which no process serves.
pub struct Gap {
    pub begun: Duration,
    /// For how long the server had been stopped before.
    pub stopped: Duration,
}

/// The process that serves at first.
pub struct Server {
    pub process: Process,
    pub pending: Pending<Event>,
    pub connection: Option<usize>,
    handshake: Option<ServerHandshake>,
    switchover: ServerSwitchover,
    actions: VecDeque<Action>,
    sessions: u64,
    pub gap: Option<Gap>,
    pub has_sockets: bool,
    /// Whether the options of its sockets are as it has set them.
    pub is_restored: bool,
    pub announced: u32,
    pub is_taken_over: bool,
}

impl Server {
    pub fn new(random: &mut Random) -> Server {
        Server {
            process: Process {
                is_alive: true,
                is_serving: true,
                ..Process::default()
            },
            pending: Pending::Nothing,
            connection: None,
            handshake: None,
            switchover: ServerSwitchover::default(),
            actions: VecDeque::new(),
            sessions: random.below(150_000) as u64,
            gap: None,
            has_sockets: true,
            is_restored: true,
            announced: 0,
            is_taken_over: false,
        }
    }

    /// The documented bound: the limits for sending the state, for the start and for the end of the client, and the
    /// time that parking takes.
    pub fn gap_max(&self) -> Duration {
        let each = Duration::from_secs(1) + Duration::from_micros(100 * self.sessions);
        2 * each.min(Duration::from_secs(10)) + Duration::from_secs(1) + PARK_MAX
    }
}

impl World {
    /// A client has connected.
    pub fn accept(&mut self, connection: usize, covered: &mut Covered) {
        let is_alone = self.server.connection.is_none() && !self.fails_once_in(48);
        let mut handshake = ServerHandshake::new(CLIENT, USER);
        let accepted = ServerHandshakeEvent::Accepted { is_alone };
        let actions = handshake.step(accepted, self.instant());
        if !is_alone {
            let [ServerHandshakeAction::Refuse(reason)] = &actions[..] else {
                panic!("{actions:?}");
            };
            self.send_refusal(connection, reason, covered);
            let pipes = &mut self.connections[connection];
            pipes.to_client.close_writer(self.now);
            pipes.to_server.close_reader();
            return;
        }
        self.server.connection = Some(connection);
        self.server.handshake = Some(handshake);
        self.server.switchover = ServerSwitchover::default();
        self.server.actions = actions.into_iter().map(Action::Handshake).collect();
        self.perform_server(covered);
    }

    pub fn step_server(&mut self, covered: &mut Covered) {
        let server = &mut self.server;
        let Some(connection) = server.connection else {
            return;
        };
        let pipes = &mut self.connections[connection];
        let pipes = (Some(&mut pipes.to_server), Some(&mut pipes.to_client));
        let now = self.now;
        let random = &mut self.random;
        let event = outcome(
            now,
            &server.process,
            &mut server.pending,
            pipes,
            random,
            self.is_hostile,
        );
        let Some(event) = event else {
            return;
        };
        self.tell(format!("server: {event:?}"));
        let now = self.instant();
        match event {
            Event::Handshake(event) => {
                // A message that was sent may have been read, and used.
                if matches!(event, ServerHandshakeEvent::Sent(_)) {
                    self.server.is_restored = false;
                }
                let handshake = self.server.handshake.as_mut().expect("it is under way");
                let actions = handshake.step(event, now);
                self.server
                    .actions
                    .extend(actions.into_iter().map(Action::Handshake));
            }
            Event::Switchover(event) => {
                let actions = self.server.switchover.step(event, now);
                self.server
                    .actions
                    .extend(actions.into_iter().map(Action::Switchover));
            }
        }
        self.perform_server(covered);
    }

    fn perform_server(&mut self, covered: &mut Covered) {
        while matches!(self.server.pending, Pending::Nothing) && self.server.process.is_alive {
            let Some(action) = self.server.actions.pop_front() else {
                return self.hang_up();
            };
            self.tell(format!("server: {action:?}"));
            self.server.pending = match action {
                Action::Handshake(action) => self.shake_hands(action, covered),
                Action::Switchover(action) => self.switch_over(action, covered),
            };
        }
    }

    /// No action is left. The connection is closed, and a process that was taken over ends.
    fn hang_up(&mut self) {
        if let Some(connection) = self.server.connection.take() {
            let pipes = &mut self.connections[connection];
            pipes.to_client.close_writer(self.now);
            pipes.to_server.close_reader();
        }
        self.server.is_taken_over = self.server.switchover.is_taken_over();
        if self.server.is_taken_over {
            self.server.process.end();
        }
    }

    /// Another process ends this one.
    pub fn end_server(&mut self) {
        self.server.process.end();
        self.hang_up();
    }

    fn shake_hands(
        &mut self,
        action: ServerHandshakeAction,
        covered: &mut Covered,
    ) -> Pending<Event> {
        use ServerHandshakeAction as Action;
        use ServerHandshakeEvent as Told;
        match action {
            Action::Receive { deadline } => Pending::Read(self.time_of(deadline), |received| {
                Event::Handshake(Told::Received(received))
            }),
            Action::Describe { deadline } => {
                let soon = self.now + self.random_ms(100);
                let (at, told) = match self.random.below(40) {
                    0 if self.is_hostile => (soon, Told::NotDescribed("no files".to_owned())),
                    1 if self.is_hostile => (
                        self.time_of(deadline),
                        Told::NotDescribed("late".to_owned()),
                    ),
                    2 if self.is_hostile => (soon, Told::Stopping),
                    _ => (soon, Told::Described(7)),
                };
                Pending::Work(at, Event::Handshake(told))
            }
            Action::SendManifest { deadline } => self.write(Message::Manifest, deadline, |sent| {
                Event::Handshake(Told::Sent(sent))
            }),
            Action::BeginSwitchover { generation } => {
                let conditions = SwitchoverConditions {
                    prepared_for: generation,
                    generation: generation + u64::from(self.fails_once_in(32)),
                    is_reloading: self.fails_once_in(32),
                    awaits_final_counts: self.fails_once_in(32),
                };
                let at = self.now + self.random_ms(20);
                Pending::Work(
                    at,
                    Event::Switchover(ServerSwitchoverEvent::Begun(conditions)),
                )
            }
            Action::Refuse(reason) => {
                let connection = self.server.connection.expect("there is one");
                self.send_refusal(connection, &reason, covered);
                Pending::Nothing
            }
            Action::RestoreListeners => {
                self.server.is_restored = true;
                Pending::Nothing
            }
            Action::ReportFailure(error) => {
                covered.meet(format!("server failed: {error:?}"));
                Pending::Nothing
            }
            Action::ReportRequest => Pending::Nothing,
        }
    }

    fn send_refusal(&mut self, connection: usize, reason: &str, covered: &mut Covered) {
        covered.meet(format!("refused: {reason}"));
        let reason = reason.to_owned();
        let pipe = &mut self.connections[connection].to_client;
        if !pipe.is_unread() {
            pipe.write(
                self.now,
                Message::Refused { reason },
                &mut self.random,
                self.is_hostile,
            );
        }
    }

    fn switch_over(
        &mut self,
        action: ServerSwitchoverAction,
        covered: &mut Covered,
    ) -> Pending<Event> {
        use ServerSwitchoverAction as Action;
        use ServerSwitchoverEvent as Told;
        match action {
            Action::PrepareThreads => {
                let threads = if self.fails_once_in(32) {
                    Err("no threads".to_owned())
                } else {
                    Ok(())
                };
                Pending::Work(self.now, Event::Switchover(Told::Prepared(threads)))
            }
            Action::ParkWorkers => {
                self.server.process.is_serving = false;
                self.server.gap = Some(Gap {
                    begun: self.now,
                    stopped: self.server.process.stopped,
                });
                let at = self.now + self.random_ms(PARK_MAX.as_millis() as usize);
                let sessions = self.server.sessions;
                Pending::Work(at, Event::Switchover(Told::Parked { sessions }))
            }
            Action::SendState { deadline } => self.write(Message::Released, deadline, |sent| {
                Event::Switchover(Told::Sent(sent))
            }),
            Action::Receive { deadline } => Pending::Read(self.time_of(deadline), |received| {
                Event::Switchover(Told::Received(received))
            }),
            Action::KillPeer { deadline } => self.kill_client(self.time_of(deadline), covered),
            Action::SendFinalCounts { deadline } => {
                self.write(Message::FinalCounts, deadline, |sent| {
                    Event::Switchover(Told::Sent(sent))
                })
            }
            other => {
                self.switch_over_at_once(other, covered);
                Pending::Nothing
            }
        }
    }

    /// Performs the actions that have no outcome.
    fn switch_over_at_once(&mut self, action: ServerSwitchoverAction, covered: &mut Covered) {
        use ServerSwitchoverAction as Action;
        let server = &mut self.server;
        match action {
            Action::ResumeServing => {
                assert!(
                    server.has_sockets && !server.process.is_serving,
                    "it can resume"
                );
                server.process.is_serving = true;
                server.gap = None;
            }
            Action::RestoreListeners => server.is_restored = true,
            Action::Refuse(reason) => {
                let connection = server.connection.expect("there is one");
                self.send_refusal(connection, &reason, covered);
            }
            Action::ReportFailure(error) => covered.meet(format!("server failed: {error:?}")),
            Action::ReportSurvivor(_) => covered.meet("client survives SIGKILL"),
            Action::ReportTakenOver => covered.meet("taken over"),
            Action::AnnounceMainPid => server.announced += 1,
            Action::CloseSockets => {
                server.has_sockets = false;
                server.gap = None;
            }
            Action::ReportLostCounts(_) => covered.meet("final counts lost by the server"),
            other => panic!("{other:?} has an outcome"),
        }
    }

    /// SIGKILL stops the client within milliseconds, but its files may be closed much later. It may not be permitted.
    fn kill_client(&mut self, deadline: Duration, covered: &mut Covered) -> Pending<Event> {
        let wrap = |killed| Event::Switchover(ServerSwitchoverEvent::Killed(killed));
        if self.client.process.is_alive && self.fails_once_in(8) {
            self.client.is_survivor = true;
            return Pending::Work(self.now, wrap(Err("not permitted".to_owned())));
        }
        if self.client.process.is_alive && self.client.connection == self.server.connection {
            let stops_at = self.now + self.random_ms(10);
            let is_late = self.once_in(6);
            let closing = self.random_ms(if is_late { 4_000 } else { 40 });
            covered.meet(if stops_at + closing > deadline {
                "client ends late after SIGKILL"
            } else {
                "client killed in time"
            });
            self.client.kill = Some(Kill {
                stops_at: Some(stops_at),
                closes_at: stops_at + closing,
            });
        }
        Pending::End(deadline, wrap)
    }
}
