//! What one worker must do with what it receives, from the text of the rules: routes, verdicts, counters, and all that
//! is sent. It shares the vocabulary with the code under test, but none of its decisions.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crossbeam_channel::{Receiver, TryRecvError};
use udispatch::dispatch::ledger::{Ledger, Tally};
use udispatch::dispatch::random::Random;
use udispatch::dispatch::reply_policy::ReplyPolicy;
use udispatch::dispatch::sink::Job;
use udispatch::dispatch::verdict::{DropReason, Verdict};
use udispatch::plan::Role;

use crate::kernel::{Packet, Socket, TIME_NS, envelope};
use crate::model_of_routes as routes;
use crate::witness::{self, Seen};
use crate::world::{Pick, Spec, World, address_of, ip, once_in};

/// Number of buffers of a printer, and the size in bytes at which one is handed on.
const BUFFERS: usize = 8;
const BUFFER_BYTES: usize = 64 << 10;
/// Largest number of bytes that handlers may make in one turn.
const SCRATCH_BYTES: usize = 4 << 20;

/// One datagram of a turn.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub packet: Packet,
    pub offset: u32,
    pub len: u32,
}

/// A datagram that must be sent to an upstream.
#[derive(Debug, Clone)]
pub struct Passed {
    pub handler: usize,
    pub offset: u32,
    pub len: u32,
    pub ttl: Option<u8>,
    pub way: Way,
}

/// The socket of the handler that it is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    All,
    This(usize),
    Any,
    /// Any socket, but always one and the same for one text.
    SameFor(String),
}

/// A reply that must be sent.
#[derive(Debug, Clone)]
pub struct Answer {
    pub handler: usize,
    pub to: SocketAddr,
    pub from: SocketAddr,
    /// The interface of the request, if the way back depends on it.
    pub interface: Option<u32>,
    pub ttl: u8,
    pub body: Body,
}

/// The payload of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The bytes of the request.
    Same { offset: u32, len: u32 },
    /// Bytes that the handler has.
    Made(Vec<u8>),
}

/// The effects that one turn must have.
#[derive(Debug, Default)]
pub struct Turn {
    pub passed: Vec<Passed>,
    pub answers: Vec<Answer>,
    pub seen: Vec<Seen>,
    scratch: usize,
}

/// The consumer of one worker's printer, and what it must get.
pub struct Printer {
    jobs: Receiver<Job>,
    expected: VecDeque<(Vec<u8>, u64)>,
    current: Option<(Vec<u8>, u64)>,
    free: usize,
    is_closed: bool,
    written: u64,
    lost: u64,
}

impl Printer {
    pub fn new(jobs: Receiver<Job>) -> Printer {
        Printer {
            jobs,
            expected: VecDeque::new(),
            current: None,
            free: BUFFERS,
            is_closed: false,
            written: 0,
            lost: 0,
        }
    }

    fn print(&mut self, piece: &Piece, arena: &[u8]) -> Verdict {
        use std::fmt::Write;
        if self.is_closed {
            return Verdict::Dropped(DropReason::SinkClosed);
        }
        if self.current.is_none() {
            if self.free == 0 {
                return Verdict::Dropped(DropReason::SinkFull);
            }
            self.free -= 1;
        }
        let (mut bytes, datagrams) = self.current.take().unwrap_or_default();
        assert_eq!(TIME_NS, 1_000_000_000_000_001_000);
        let head = format!(
            "2001-09-09T01:46:40.000001Z {} > {} ",
            piece.packet.src, piece.packet.dst
        );
        bytes.extend_from_slice(head.as_bytes());
        let mut digits = String::new();
        for byte in &arena[piece.offset as usize..(piece.offset + piece.len) as usize] {
            let _ = write!(digits, "{byte:02x}");
        }
        bytes.extend_from_slice(digits.as_bytes());
        bytes.push(b'\n');
        self.current = Some((bytes, datagrams + 1));
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.0.len() >= BUFFER_BYTES)
        {
            self.hand_on();
        }
        Verdict::Handled
    }

    /// At the end of a turn, the last buffer stays, to be filled by the next turns.
    fn end_turn(&mut self) {
        if self.free > 0 {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        self.expected.extend(self.current.take());
    }

    /// Takes some of what waits, checks it, and sometimes fails.
    pub fn consume(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            match self.jobs.try_recv() {
                Ok(Job::Lines(lines)) => {
                    let (bytes, datagrams) = self
                        .expected
                        .pop_front()
                        .expect("no lines that nobody printed");
                    assert_eq!(
                        String::from_utf8_lossy(&lines.bytes),
                        String::from_utf8_lossy(&bytes),
                        "printed lines"
                    );
                    let written = !once_in(random, 40);
                    lines.done(written);
                    self.free += 1;
                    self.is_closed |= !written;
                    *(if written {
                        &mut self.written
                    } else {
                        &mut self.lost
                    }) += datagrams;
                }
                Ok(Job::Barrier(_)) => panic!("nobody asked for a barrier"),
                Err(TryRecvError::Empty) => assert!(self.expected.is_empty(), "lines are missing"),
                Err(TryRecvError::Disconnected) => panic!("the printer is gone"),
            }
        }
    }
}

/// One row of counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub received: u64,
    pub handled: u64,
    pub in_flight: u64,
    pub dropped: Vec<u64>,
}

impl Account {
    fn new() -> Account {
        Account {
            received: 0,
            handled: 0,
            in_flight: 0,
            dropped: vec![0; DropReason::ALL.len()],
        }
    }

    fn count(&mut self, verdict: Verdict) {
        self.received += 1;
        match verdict {
            Verdict::Handled => self.handled += 1,
            Verdict::Dropped(reason) => self.dropped[reason as usize] += 1,
        }
    }
}

impl From<&Tally> for Account {
    fn from(tally: &Tally) -> Account {
        let Tally {
            received,
            handled,
            in_flight,
            dropped,
        } = *tally;
        Account {
            received,
            handled,
            in_flight,
            dropped: dropped.to_vec(),
        }
    }
}

/// The model of one worker.
pub struct Model {
    worker: usize,
    listeners: Vec<Account>,
    routes: Vec<Account>,
    handlers: Vec<Account>,
    /// For each handler, the upstream that is next in turn.
    turns: Vec<usize>,
    /// By handler.
    pub printers: Vec<Option<Printer>>,
}

impl Model {
    pub fn new(world: &World, worker: usize, printers: Vec<Option<Printer>>) -> Model {
        let handlers = world.specs.len();
        Model {
            worker,
            listeners: vec![Account::new(); world.plan.listeners.len()],
            routes: vec![Account::new(); world.config.routes.len()],
            handlers: vec![Account::new(); handlers],
            turns: vec![0; handlers],
            printers,
        }
    }

    /// Datagrams that the worker could not make trains of.
    pub fn refuse(&mut self, listener: usize, reason: DropReason, datagrams: u32) {
        for _ in 0..datagrams {
            self.listeners[listener].count(Verdict::Dropped(reason));
        }
    }

    /// What must happen to the trains of one receive call, each in its slot.
    pub fn turn(
        &mut self,
        world: &World,
        socket: &Socket,
        packets: &[(Packet, u32)],
        arena: &[u8],
    ) -> Turn {
        let mut turn = Turn::default();
        let mut rest = packets;
        while let Some((first, _)) = rest.first() {
            let way = route(world, self.worker, socket, first);
            let same = rest
                .iter()
                .take_while(|(packet, _)| route(world, self.worker, socket, packet) == way)
                .count();
            let pieces: Vec<Piece> = rest[..same]
                .iter()
                .flat_map(|(packet, offset)| cut(*packet, *offset))
                .collect();
            match way {
                Err(reason) => self.refuse(socket.listener, reason, pieces.len() as u32),
                Ok(route) => self.run(world, socket, route, &pieces, arena, &mut turn),
            }
            rest = &rest[same..];
        }
        for printer in self.printers.iter_mut().flatten() {
            printer.end_turn();
        }
        turn
    }

    fn run(
        &mut self,
        world: &World,
        socket: &Socket,
        route: usize,
        pieces: &[Piece],
        arena: &[u8],
        turn: &mut Turn,
    ) {
        let mut words: Vec<Vec<Verdict>> = vec![Vec::new(); pieces.len()];
        for handler in world.config.routes[route]
            .handlers
            .iter()
            .map(|handler| handler.index())
        {
            for (piece, words) in pieces.iter().zip(&mut words) {
                let verdict = self.handle(world, socket, handler, piece, arena, turn);
                self.handlers[handler].count(verdict);
                words.push(verdict);
            }
        }
        for words in words {
            // A datagram that one handler handled counts as handled. If none did, the first one's reason counts.
            let is_handled = words.contains(&Verdict::Handled);
            let verdict = if is_handled {
                Verdict::Handled
            } else {
                words[0]
            };
            self.routes[route].count(verdict);
            self.listeners[socket.listener].count(verdict);
        }
    }

    fn handle(
        &mut self,
        world: &World,
        socket: &Socket,
        handler: usize,
        piece: &Piece,
        arena: &[u8],
        turn: &mut Turn,
    ) -> Verdict {
        let &Piece {
            packet,
            offset,
            len,
        } = piece;
        let mut answer = |reply_policy: &ReplyPolicy, body: Body| match permit(
            world,
            &packet,
            reply_policy,
        ) {
            Err(reason) => Verdict::Dropped(reason),
            Ok(_) if matches!(&body, Body::Made(bytes) if turn.scratch + bytes.len() > SCRATCH_BYTES) => {
                Verdict::Dropped(DropReason::OutboxFull)
            }
            Ok(ttl) => {
                turn.scratch += if let Body::Made(bytes) = &body {
                    bytes.len()
                } else {
                    0
                };
                turn.answers
                    .push(answer_to(world, socket, handler, &packet, ttl, body));
                Verdict::Handled
            }
        };
        match &world.specs[handler] {
            Spec::Drop => Verdict::Dropped(DropReason::Discarded),
            Spec::Echo(reply_policy) => answer(reply_policy, Body::Same { offset, len }),
            Spec::Reply {
                bytes,
                amplification_max,
                reply_policy,
            } => {
                if bytes.len() > len as usize * amplification_max {
                    return Verdict::Dropped(DropReason::Amplification);
                }
                answer(reply_policy, Body::Made(bytes.clone()))
            }
            Spec::Print => self.printers[handler]
                .as_mut()
                .expect("a printer")
                .print(piece, arena),
            Spec::Witness { salt } => {
                let seen = Seen {
                    salt: *salt,
                    src: packet.src,
                    offset,
                    len,
                };
                turn.seen.push(seen);
                witness::judge(&seen)
            }
            &Spec::Forward { sockets, pick, ttl } => {
                let ttl = match ttl {
                    Some(ttl) => Some(ttl),
                    // A datagram to a group starts with this TTL, so it is not the end of a loop.
                    None if packet.dst.ip().is_multicast() && packet.ttl == 1 => None,
                    None if packet.ttl < 2 => return Verdict::Dropped(DropReason::TtlSpent),
                    None => Some(packet.ttl - 1),
                };
                let way = match pick {
                    _ if sockets == 1 => Way::This(0),
                    Pick::All => Way::All,
                    Pick::Random => Way::Any,
                    Pick::Source => Way::SameFor(packet.src.to_string()),
                    Pick::SourceAddress => Way::SameFor(packet.src.ip().to_string()),
                    Pick::Destination => Way::SameFor(packet.dst.to_string()),
                    Pick::RoundRobin => {
                        self.turns[handler] += 1;
                        Way::This((self.turns[handler] - 1) % sockets)
                    }
                };
                turn.passed.push(Passed {
                    handler,
                    offset,
                    len,
                    ttl,
                    way,
                });
                Verdict::Handled
            }
        }
    }

    /// Asserts that every counter equals that of the model, and that law 3 holds in every row.
    pub fn check(&self, ledger: &Ledger) {
        for (number, count) in ledger.listeners.iter().enumerate() {
            check_row("listener", number, &count.tally, &self.listeners[number]);
        }
        for (number, tally) in ledger.routes.iter().enumerate() {
            check_row("route", number, tally, &self.routes[number]);
        }
        for (number, count) in ledger.handlers.iter().enumerate() {
            let mut account = self.handlers[number].clone();
            if let Some(printer) = &self.printers[number] {
                account.in_flight = account.handled - printer.written - printer.lost;
                account.dropped[DropReason::SinkClosed as usize] += printer.lost;
                account.handled = printer.written;
            }
            check_row("handler", number, &count.tally, &account);
            assert_eq!(
                (count.counters.sent, count.failed.total()),
                (0, 0),
                "nothing was sent here"
            );
        }
        assert!(ledger.balances(), "the ledger's own word: {ledger:?}");
    }
}

fn check_row(what: &str, number: usize, tally: &Tally, account: &Account) {
    let found = Account::from(tally);
    assert_eq!(found, *account, "{what} {number}");
    assert_eq!(
        found.received,
        found.handled + found.in_flight + found.dropped.iter().sum::<u64>(),
        "law 3: {what} {number}"
    );
    assert!(tally.balances(), "{what} {number}");
}

/// The datagrams of a train.
fn cut(packet: Packet, offset: u32) -> Vec<Piece> {
    if packet.segment == 0 {
        return vec![Piece {
            packet,
            offset,
            len: packet.len,
        }];
    }
    let starts = (0..packet.len).step_by(usize::from(packet.segment));
    let len = |start: u32| u32::from(packet.segment).min(packet.len - start);
    starts
        .map(|start| Piece {
            packet,
            offset: offset + start,
            len: len(start),
        })
        .collect()
}

/// Whether the copy on this socket is the one that counts. Of a broadcast, it is that of its own listener, or else that
/// of the first worker's wildcard. Of a group's datagram, it is the one on the joined interface.
pub fn is_claimed(world: &World, worker: usize, socket: &Socket, packet: &Packet) -> bool {
    match &world.plan.listeners[socket.listener].role {
        Role::Unicast | Role::Absent | Role::Broadcast => true,
        Role::Wildcard { .. } => {
            let has_listener = world
                .plan
                .listeners
                .iter()
                .any(|listener| listener.address == packet.dst);
            !packet.is_broadcast() || (worker == 0 && !has_listener)
        }
        Role::Group { interface, .. } => *interface == packet.interface,
    }
}

/// The route of the copy on this socket, by all facts about the packet.
pub fn route(
    world: &World,
    worker: usize,
    socket: &Socket,
    packet: &Packet,
) -> Result<usize, DropReason> {
    let truth = udispatch::datagram::Envelope {
        dst: packet.dst,
        interface: packet.interface,
        ..envelope(world, socket, packet)
    };
    let found = routes::find(&world.rows, &truth)
        .map(|route| route.0 as usize)
        .ok_or(DropReason::NoRoute);
    match is_claimed(world, worker, socket, packet) {
        true => found,
        // A group's datagram on an interface that no listener has joined is not a copy of another one.
        false if packet.dst.ip().is_multicast() => {
            let joined_there = world.plan.listeners.iter().any(|listener| {
                let here = listener.address.ip() == packet.dst.ip() && listener.address.port() == packet.dst.port();
                here && matches!(listener.role, Role::Group { interface, .. } if interface == packet.interface)
            });
            Err(if joined_there {
                DropReason::DuplicateCopy
            } else {
                DropReason::NoRoute
            })
        }
        false => Err(DropReason::DuplicateCopy),
    }
}

/// Whether a reply may be sent, and with which TTL.
fn permit(world: &World, packet: &Packet, reply_policy: &ReplyPolicy) -> Result<u8, DropReason> {
    let src = packet.src;
    let forged = match src.ip() {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            let broadcasts = ["192.0.2.255", "10.0.0.255", "255.255.255.255"];
            first == 0
                || (224..240).contains(&first)
                || broadcasts.iter().any(|one| ip(one) == src.ip())
        }
        IpAddr::V6(v6) => v6.octets()[0] == 0xff || v6.octets() == [0; 16],
    };
    let own = world.plan.listeners.iter().any(|listener| {
        let is_all =
            listener.address.ip().is_unspecified() && listener.address.is_ipv4() == src.is_ipv4();
        let is_here =
            src.ip().is_loopback() || world.host.addresses().any(|address| address == src.ip());
        listener.address.port() == src.port()
            && (listener.address.ip() == src.ip() || (is_all && is_here))
    });
    let refusals = [
        (src.port() == 0, DropReason::SourcePortZero),
        (forged, DropReason::SourceNotUnicast),
        (own, DropReason::OwnSource),
        (
            src.port() < 1024 && !reply_policy.allow_low_ports,
            DropReason::LowSourcePort,
        ),
        (
            (packet.dst.ip().is_multicast() || packet.is_broadcast())
                && !reply_policy.reply_to_groups,
            DropReason::GroupRequest,
        ),
        (
            reply_policy.ttl.is_none() && packet.ttl < 2,
            DropReason::TtlSpent,
        ),
    ];
    match refusals.iter().find(|refusal| refusal.0) {
        Some(refusal) => Err(refusal.1),
        None => Ok(reply_policy.ttl.unwrap_or_else(|| packet.ttl - 1)),
    }
}

fn answer_to(
    _: &World,
    _: &Socket,
    handler: usize,
    packet: &Packet,
    ttl: u8,
    body: Body,
) -> Answer {
    let dst = packet.dst.ip();
    let from = match dst {
        IpAddr::V6(_) if dst.is_multicast() => ip("::"),
        IpAddr::V4(_) if dst.is_multicast() || packet.is_broadcast() => {
            address_of(packet.interface, true)
        }
        _ => dst,
    };
    Answer {
        handler,
        to: packet.src,
        from: SocketAddr::new(from, packet.dst.port()),
        interface: from.is_unspecified().then_some(packet.interface),
        ttl,
        body,
    }
}
