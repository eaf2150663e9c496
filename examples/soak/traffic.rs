//! The traffic: one thread that sends at a pace, answers as the upstream, and notes what arrives where. One thread, so
//! that it takes little of a small machine, and what it counts belongs to nobody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver as Orders, Sender as Reply};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use udispatch::net::control_message::Sending;
use udispatch::net::errno::{ReceiveError, of_receive};
use udispatch::net::option::{kernel_drops, set_int};
use udispatch::net::receive::{Receiver, SLOTS};
use udispatch::net::send::{MESSAGES_MAX, Sender};

use crate::configuration::Places;
use crate::flow::{Flow, MARK_BYTES, Mark, Seen};
use crate::window::{Meter, Window};

/// Time between two turns.
const TICK: Duration = Duration::from_millis(1);
/// What was not sent in time for longer than this is not made up for: it would be a burst that nobody asked for.
const BEHIND_MAX: Duration = Duration::from_millis(20);
/// Datagrams of one flow in a row.
const BURST: u64 = 16;
/// Receive buffers, in bytes: some seconds of traffic.
const BUFFER_BYTES: i32 = 512 << 20;
/// Datagrams a second while sessions are opened.
const OPENING_RATE: f64 = 10_000.0;
/// After this long without an arrival nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);
/// Addresses that idle sessions come from, one each.
const IDLE_NET: u32 = u32::from_be_bytes([127, 64, 0, 0]);

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Datagrams a second, answers not counted.
    pub rate: f64,
    /// Flows that send all the time.
    pub flows: usize,
    /// How many of those have sessions.
    pub with_sessions: usize,
    /// Sessions that are open and send now and then.
    pub idle: usize,
    /// Bytes of a datagram.
    pub size: usize,
    /// Whether the daemon begins with fewer workers than it will have.
    pub begins_small: bool,
}

/// What the traffic is asked for.
pub enum Order {
    /// Notes from now on how long datagrams wait.
    Begin,
    /// Says what it noted since.
    End(Reply<Window>),
    /// Sends to the third listener too, or not any more; answered once that is so.
    Extra(bool, Reply<()>),
    /// Nobody serves from now on.
    BeginOutage(Reply<()>),
    /// Somebody serves again.
    EndOutage,
    /// Sends nothing more, waits for what is under way, and ends.
    Stop,
}

/// What became of everything.
pub struct Outcome {
    /// By flow: those that send all the time, then the third listener's, then the idle ones.
    pub flows: Vec<Flow>,
    /// How many of them are idle ones.
    pub idle: usize,
    /// Answers that came to somebody else's socket or address.
    pub to_wrong_client: u64,
    /// Datagrams that are none of ours.
    pub foreign: u64,
    /// Datagrams that this program was too slow to take.
    pub own_drops: u64,
    /// For how long it sent.
    pub lasted: Duration,
    /// For how much of that it was late and left out what was due.
    pub skipped: Duration,
}

/// Sockets and accounts.
pub struct Traffic {
    load: Load,
    places: Places,
    flows: Vec<Flow>,
    /// Of each flow that sends all the time, and of the third listener's.
    clients: Vec<UdpSocket>,
    idle: UdpSocket,
    one_way: UdpSocket,
    upstream: UdpSocket,
    receiver: Receiver,
    sender: Sender,
    payloads: Vec<u8>,
    has_extra: bool,
    /// Whose burst is next.
    turn: usize,
    idle_turn: usize,
    meter: Meter,
    to_wrong_client: u64,
    foreign: u64,
}

impl Traffic {
    /// Opens all sockets. `one_way` and `upstream` are bound already, since the configuration names them.
    pub fn new(
        load: Load,
        places: Places,
        one_way: UdpSocket,
        upstream: UdpSocket,
    ) -> anyhow::Result<Traffic> {
        let client = |index: usize| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(match index {
                index if index == load.flows => places.extra,
                index if has_session(index, &load) => places.sessions,
                _ => places.one_way,
            })?;
            anyhow::Ok(socket)
        };
        let clients = (0..=load.flows)
            .map(client)
            .collect::<Result<Vec<_>, _>>()
            .context("cannot open the flows")?;
        let idle = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        set_int(&idle, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        for socket in clients.iter().chain([&idle, &one_way, &upstream]) {
            prepare(socket)?;
        }
        let flow = |index: usize| Flow {
            answers: (index > load.flows || has_session(index, &load)).then(Seen::default),
            ..Flow::default()
        };
        Ok(Traffic {
            flows: (0..=load.flows + load.idle).map(flow).collect(),
            payloads: vec![
                b'.';
                load.size.max(MARK_BYTES) * BURST.max(MESSAGES_MAX as u64) as usize
            ],
            load,
            places,
            clients,
            idle,
            one_way,
            upstream,
            receiver: Receiver::new(),
            sender: Sender::new(),
            has_extra: false,
            turn: 0,
            idle_turn: 0,
            meter: Meter::default(),
            to_wrong_client: 0,
            foreign: 0,
        })
    }

    /// Opens the sessions: each sends one datagram and gets its answer.
    pub fn open_sessions(&mut self) -> anyhow::Result<()> {
        let (begun, idle) = (Instant::now(), self.load.idle);
        let mut last = Instant::now();
        let mut opened = 0;
        while self.idle_answers() < idle as u64 {
            let due = (begun.elapsed().as_secs_f64() * OPENING_RATE) as usize;
            while opened < due.min(idle) {
                self.send_idle(opened)?;
                opened += 1;
            }
            if self.receive()? > 0 {
                last = Instant::now();
            } else if last.elapsed() > 10 * QUIET {
                anyhow::bail!("{} of {idle} sessions were answered", self.idle_answers());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn idle_answers(&self) -> u64 {
        let idle = &self.flows[self.load.flows + 1..];
        idle.iter()
            .filter_map(|flow| flow.answers.as_ref())
            .map(|answers| answers.came)
            .sum()
    }

    /// Sends until told to stop.
    pub fn run(mut self, orders: &Orders<Order>) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let (mut skipped, mut sent) = (Duration::ZERO, 0_u64);
        loop {
            let turn = Instant::now();
            while let Ok(order) = orders.try_recv() {
                if self.obey(order) {
                    let lasted = begun.elapsed();
                    return self.settle(lasted, skipped);
                }
            }
            let due = |skipped: Duration| {
                ((begun.elapsed() - skipped).as_secs_f64() * self.load.rate) as u64
            };
            let most = (BEHIND_MAX.as_secs_f64() * self.load.rate) as u64;
            let late = due(skipped).saturating_sub(sent + most);
            skipped += Duration::from_secs_f64(late as f64 / self.load.rate);
            let goal = due(skipped);
            while sent < goal {
                sent += self.burst(goal - sent)?;
            }
            self.receive()?;
            thread::sleep(TICK.saturating_sub(turn.elapsed()));
        }
    }

    /// Whether that was the last one.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Begin => self.meter.begin(),
            // Whoever asks may have given up.
            Order::End(reply) => drop(reply.send(self.meter.end())),
            Order::Extra(has_extra, reply) => {
                self.has_extra = has_extra;
                let _ = reply.send(());
            }
            Order::BeginOutage(reply) => {
                self.flows.iter_mut().for_each(Flow::begin_outage);
                let _ = reply.send(());
            }
            Order::EndOutage => self.flows.iter_mut().for_each(Flow::end_outage),
            Order::Stop => return true,
        }
        false
    }

    fn settle(mut self, lasted: Duration, skipped: Duration) -> anyhow::Result<Outcome> {
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            if self.receive()? > 0 {
                last = Instant::now();
            }
            thread::sleep(TICK);
        }
        let sockets = self
            .clients
            .iter()
            .chain([&self.idle, &self.one_way, &self.upstream]);
        let own_drops = sockets
            .map(|socket| kernel_drops(socket).map(u64::from))
            .sum::<Result<u64, _>>()?;
        Ok(Outcome {
            flows: self.flows,
            idle: self.load.idle,
            to_wrong_client: self.to_wrong_client,
            foreign: self.foreign,
            own_drops,
            lasted,
            skipped,
        })
    }

    /// The next flow's burst, or one datagram of an idle one. How many that were.
    fn burst(&mut self, most: u64) -> anyhow::Result<u64> {
        let flows = self.load.flows + usize::from(self.has_extra);
        // Once in a round, so that idle sessions are a small part of it.
        if self.turn >= flows {
            self.turn = 0;
            if self.load.idle > 0 {
                self.idle_turn = (self.idle_turn + 1) % self.load.idle;
                self.send_idle(self.idle_turn)?;
                return Ok(1);
            }
        }
        let index = self.turn;
        self.turn += 1;
        let (count, size) = (most.min(BURST), self.load.size);
        let (first, sent_ns) = (self.flows[index].sent, now_ns());
        for (number, payload) in (first..first + count).zip(self.payloads.chunks_exact_mut(size)) {
            Mark {
                flow: index as u32,
                number,
                sent_ns,
            }
            .write(payload);
        }
        let mut batch = self.sender.batch();
        for payload in self.payloads.chunks_exact(size).take(count as usize) {
            batch.begin(None, &Sending::default());
            batch.piece(payload);
        }
        let mut taken = 0;
        while taken < count as usize {
            match batch.send(&self.clients[index], taken) {
                Ok(sent) => taken += sent,
                Err(error) => forgive(error)?,
            }
        }
        self.flows[index].sent += count;
        Ok(count)
    }

    fn send_idle(&mut self, index: usize) -> anyhow::Result<()> {
        let number = self.load.flows + 1 + index;
        let mark = Mark {
            flow: number as u32,
            number: self.flows[number].sent,
            sent_ns: now_ns(),
        };
        let payload = &mut self.payloads[..self.load.size];
        mark.write(payload);
        let mut batch = self.sender.batch();
        let sending = Sending {
            from: Some(idle_address(index)),
            ..Sending::default()
        };
        batch.begin(Some(&self.places.sessions), &sending);
        batch.piece(payload);
        while let Err(error) = batch.send(&self.idle, 0) {
            forgive(error)?;
        }
        self.flows[number].sent += 1;
        Ok(())
    }

    /// Takes and answers everything that has come. How many trains that were.
    fn receive(&mut self) -> anyhow::Result<usize> {
        let mut trains = self.receive_requests(false)? + self.receive_requests(true)?;
        self.meter.sum_up();
        let load = self.load;
        for index in (0..load.flows).filter(|index| has_session(*index, &load)) {
            trains += self.receive_answers(Some(index))?;
        }
        if self.load.idle > 0 {
            trains += self.receive_answers(None)?;
        }
        Ok(trains)
    }

    /// What came to a receiver; the upstream answers.
    fn receive_requests(&mut self, is_upstream: bool) -> anyhow::Result<usize> {
        let socket = if is_upstream {
            &self.upstream
        } else {
            &self.one_way
        };
        let mut trains = 0;
        while let Some(count) = take(&mut self.receiver, socket)? {
            trains += count;
            for slot in self.receiver.slots() {
                let (told, bytes) = (
                    slot.control_data(),
                    &self.receiver.arena()[slot.offset as usize..][..slot.len as usize],
                );
                let port = slot.src().filter(|_| is_upstream).map(|src| src.port());
                for (place, mark) in marks(bytes, told.segment).enumerate() {
                    let Some((mark, flow)) =
                        mark.and_then(|mark| Some((mark, self.flows.get_mut(mark.flow as usize)?)))
                    else {
                        self.foreign += 1;
                        continue;
                    };
                    flow.arrived(mark.number, port);
                    if place == 0 {
                        self.meter.note(told.time_ns, mark.sent_ns);
                    }
                }
            }
            if is_upstream {
                answer(&self.receiver, &mut self.sender, socket)?;
            }
            if count < SLOTS {
                break;
            }
        }
        Ok(trains)
    }

    /// What came back to a flow, or to the idle ones.
    fn receive_answers(&mut self, client: Option<usize>) -> anyhow::Result<usize> {
        let socket = client.map_or(&self.idle, |client| &self.clients[client]);
        let mut trains = 0;
        while let Some(count) = take(&mut self.receiver, socket)? {
            trains += count;
            for slot in self.receiver.slots() {
                let (told, bytes) = (
                    slot.control_data(),
                    &self.receiver.arena()[slot.offset as usize..][..slot.len as usize],
                );
                for mark in marks(bytes, told.segment) {
                    let Some(mark) = mark else {
                        self.foreign += 1;
                        continue;
                    };
                    let index = mark.flow as usize;
                    let is_ours = match client {
                        Some(client) => index == client,
                        None => {
                            let at = index.checked_sub(self.load.flows + 1).map(idle_address);
                            at.is_some() && at == told.destination
                        }
                    };
                    match self
                        .flows
                        .get_mut(index)
                        .and_then(|flow| flow.answers.as_mut())
                    {
                        Some(answers) if is_ours => answers.note(mark.number),
                        _ => self.to_wrong_client += 1,
                    }
                }
            }
            if count < SLOTS {
                break;
            }
        }
        Ok(trains)
    }
}

/// Those with sessions are spread among the others.
fn has_session(index: usize, load: &Load) -> bool {
    index < load.flows
        && (index + 1) * load.with_sessions / load.flows != index * load.with_sessions / load.flows
}

fn idle_address(index: usize) -> IpAddr {
    // Never .0 and .255, although they would do here.
    let (high, low) = (index as u32 / 254, index as u32 % 254 + 1);
    Ipv4Addr::from(IDLE_NET + high * 256 + low).into()
}

fn prepare(socket: &UdpSocket) -> anyhow::Result<()> {
    socket.set_nonblocking(true)?;
    if set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES).is_err() {
        set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER_BYTES)?;
    }
    set_int(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    // Trains come as they are; without it they come one by one.
    let _ = set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(())
}

fn now_ns() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos() as u64)
}

/// The datagrams of a train.
fn marks(bytes: &[u8], segment: u16) -> impl Iterator<Item = Option<Mark>> {
    let size = if segment == 0 {
        bytes.len()
    } else {
        usize::from(segment)
    };
    bytes.chunks(size.max(1)).map(Mark::read)
}

/// What is there, if anything is.
fn take(receiver: &mut Receiver, socket: &UdpSocket) -> anyhow::Result<Option<usize>> {
    loop {
        match receiver.receive(socket, SLOTS, true) {
            Ok(count) => return Ok(Some(count)),
            Err(error) => match of_receive(&error) {
                ReceiveError::Drained => return Ok(None),
                // Word of a port that nobody has, as after a kill; the next call says more.
                ReceiveError::Again => {}
                _ => return Err(error).context("cannot receive"),
            },
        }
    }
}

/// Everything goes back to where it came from, as it came.
fn answer(receiver: &Receiver, sender: &mut Sender, socket: &UdpSocket) -> anyhow::Result<()> {
    let mut slots = receiver.slots().peekable();
    while slots.peek().is_some() {
        let mut batch = sender.batch();
        let mut count = 0;
        for slot in slots.by_ref().take(MESSAGES_MAX) {
            let src: Option<SocketAddr> = slot.src();
            let (segment, len) = (slot.control_data().segment, slot.len as usize);
            let segment = if usize::from(segment) < len {
                segment
            } else {
                0
            };
            batch.begin(
                src.as_ref(),
                &Sending {
                    segment,
                    ..Sending::default()
                },
            );
            batch.piece(&receiver.arena()[slot.offset as usize..][..len]);
            count += 1;
        }
        let mut taken = 0;
        while taken < count {
            match batch.send(socket, taken) {
                Ok(sent) => taken += sent,
                Err(error) => forgive(error)?,
            }
        }
    }
    Ok(())
}

/// Nobody listens, after a kill, or there is no room now: tried again. Anything else is the end.
fn forgive(error: std::io::Error) -> anyhow::Result<()> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::EINTR) => Ok(()),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
            thread::sleep(TICK / 10);
            Ok(())
        }
        _ => Err(error).context("cannot send"),
    }
}
