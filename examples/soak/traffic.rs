//! The traffic. One thread sends at a fixed rate, replies as the upstream, and records what arrives where. A single
//! thread takes little of a small machine, and its counters need no locks.

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
/// Datagrams that are late by more than this are not sent at all, because they would be a burst that no load requests.
const BEHIND_MAX: Duration = Duration::from_millis(20);
/// Number of datagrams of one flow in a row.
const BURST: u64 = 16;
/// Receive buffers, in bytes: some seconds of traffic.
const BUFFER_BYTES: i32 = 512 << 20;
/// Number of datagrams a second while sessions are opened.
const OPENING_RATE: f64 = 10_000.0;
/// Time without an arrival after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);
/// Addresses of idle sessions, one for each.
const IDLE_NET: u32 = u32::from_be_bytes([127, 64, 0, 0]);

/// The load that is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Number of datagrams a second, without replies.
    pub rate: f64,
    /// Number of flows that send all the time.
    pub flows: usize,
    /// Number of these flows that have sessions.
    pub with_sessions: usize,
    /// Number of sessions that are open and send now and then.
    pub idle: usize,
    /// Number of bytes of a datagram.
    pub size: usize,
    /// Whether the daemon starts with fewer workers than it will have.
    pub begins_small: bool,
}

/// Orders to the thread of the traffic.
pub enum Order {
    /// Begin to measure how long datagrams wait.
    Begin,
    /// Return the measurements since then.
    End(Reply<Window>),
    /// Begin or stop to send to the third listener, and report when that is done.
    Extra(bool, Reply<()>),
    /// Note that no process serves from now on.
    BeginOutage(Reply<()>),
    /// Note that a process serves again.
    EndOutage,
    /// Send nothing more, wait for what is under way, and end.
    Stop,
}

/// The results of the traffic.
pub struct Outcome {
    /// The flows: those that send all the time, then that of the third listener, then the idle ones.
    pub flows: Vec<Flow>,
    /// Number of idle flows.
    pub idle: usize,
    /// Replies that arrived at another socket or address.
    pub to_wrong_client: u64,
    /// Datagrams that this program did not send.
    pub foreign: u64,
    /// Datagrams that this program was too slow to take.
    pub own_drops: u64,
    /// Time for which it sent.
    pub lasted: Duration,
    /// The part of that time for which it was late and did not send what was due.
    pub skipped: Duration,
}

/// The sockets and the counters of the traffic.
pub struct Traffic {
    load: Load,
    places: Places,
    flows: Vec<Flow>,
    /// The socket of each flow that sends all the time, and of the third listener's flow.
    clients: Vec<UdpSocket>,
    idle: UdpSocket,
    one_way: UdpSocket,
    upstream: UdpSocket,
    receiver: Receiver,
    sender: Sender,
    payloads: Vec<u8>,
    has_extra: bool,
    /// The flow that sends the next burst.
    turn: usize,
    idle_turn: usize,
    meter: Meter,
    to_wrong_client: u64,
    foreign: u64,
}

impl Traffic {
    /// Opens all sockets. `one_way` and `upstream` are bound already, because the configuration names them.
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
            replies: (index > load.flows || has_session(index, &load)).then(Seen::default),
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

    /// Opens the sessions: each one sends one datagram and gets its reply.
    pub fn open_sessions(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let idle = self.load.idle;
        let mut last = Instant::now();
        let mut opened = 0;
        while self.idle_replies() < idle as u64 {
            let due = (begun.elapsed().as_secs_f64() * OPENING_RATE) as usize;
            while opened < due.min(idle) {
                self.send_idle(opened)?;
                opened += 1;
            }
            if self.receive()? > 0 {
                last = Instant::now();
            } else if last.elapsed() > 10 * QUIET {
                anyhow::bail!(
                    "only {} of {idle} sessions got a reply",
                    self.idle_replies()
                );
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn idle_replies(&self) -> u64 {
        let idle = &self.flows[self.load.flows + 1..];
        idle.iter()
            .filter_map(|flow| flow.replies.as_ref())
            .map(|replies| replies.came)
            .sum()
    }

    /// Sends until it gets the order to end.
    pub fn run(mut self, orders: &Orders<Order>) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let mut skipped = Duration::ZERO;
        let mut sent = 0_u64;
        loop {
            let turn = Instant::now();
            while let Ok(order) = orders.try_recv() {
                if self.execute(order) {
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

    /// Carries out an order. Returns whether it was the last one.
    fn execute(&mut self, order: Order) -> bool {
        match order {
            Order::Begin => self.meter.begin(),
            // The receiver may have stopped waiting.
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

    /// Sends the next flow's burst, or one datagram of an idle flow. Returns the number of datagrams.
    fn burst(&mut self, most: u64) -> anyhow::Result<u64> {
        let flows = self.load.flows + usize::from(self.has_extra);
        // An idle session sends once in a round, so that idle sessions are a small part of the load.
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
        let count = most.min(BURST);
        let size = self.load.size;
        let first = self.flows[index].sent;
        let sent_ns = now_ns();
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
                Err(error) => check_send_error(error)?,
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
            check_send_error(error)?;
        }
        self.flows[number].sent += 1;
        Ok(())
    }

    /// Takes and replies to everything that has arrived. Returns the number of trains.
    fn receive(&mut self) -> anyhow::Result<usize> {
        let mut trains = self.receive_requests(false)? + self.receive_requests(true)?;
        self.meter.sum_up();
        let load = self.load;
        for index in (0..load.flows).filter(|index| has_session(*index, &load)) {
            trains += self.receive_replies(Some(index))?;
        }
        if self.load.idle > 0 {
            trains += self.receive_replies(None)?;
        }
        Ok(trains)
    }

    /// Takes what arrived at an upstream. The one with sessions replies.
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
                let control_data = slot.control_data();
                let bytes = &self.receiver.arena()[slot.offset as usize..][..slot.len as usize];
                let port = slot.src().filter(|_| is_upstream).map(|src| src.port());
                for (place, mark) in marks(bytes, control_data.segment).enumerate() {
                    let Some((mark, flow)) =
                        mark.and_then(|mark| Some((mark, self.flows.get_mut(mark.flow as usize)?)))
                    else {
                        self.foreign += 1;
                        continue;
                    };
                    flow.arrived(mark.number, port);
                    if place == 0 {
                        self.meter.note(control_data.time_ns, mark.sent_ns);
                    }
                }
            }
            if is_upstream {
                send_replies(&self.receiver, &mut self.sender, socket)?;
            }
            if count < SLOTS {
                break;
            }
        }
        Ok(trains)
    }

    /// Takes the replies to a flow, or to the idle ones.
    fn receive_replies(&mut self, client: Option<usize>) -> anyhow::Result<usize> {
        let socket = client.map_or(&self.idle, |client| &self.clients[client]);
        let mut trains = 0;
        while let Some(count) = take(&mut self.receiver, socket)? {
            trains += count;
            for slot in self.receiver.slots() {
                let control_data = slot.control_data();
                let bytes = &self.receiver.arena()[slot.offset as usize..][..slot.len as usize];
                for mark in marks(bytes, control_data.segment) {
                    let Some(mark) = mark else {
                        self.foreign += 1;
                        continue;
                    };
                    let index = mark.flow as usize;
                    let is_ours = if let Some(client) = client {
                        index == client
                    } else {
                        let at = index.checked_sub(self.load.flows + 1).map(idle_address);
                        at.is_some() && at == control_data.destination
                    };
                    match self
                        .flows
                        .get_mut(index)
                        .and_then(|flow| flow.replies.as_mut())
                    {
                        Some(replies) if is_ours => replies.note(mark.number),
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

/// Flows with sessions are distributed among the others.
fn has_session(index: usize, load: &Load) -> bool {
    index < load.flows
        && (index + 1) * load.with_sessions / load.flows != index * load.with_sessions / load.flows
}

fn idle_address(index: usize) -> IpAddr {
    // The addresses do not end in .0 or .255, although these would work here.
    let high = index as u32 / 254;
    let low = index as u32 % 254 + 1;
    Ipv4Addr::from(IDLE_NET + high * 256 + low).into()
}

fn prepare(socket: &UdpSocket) -> anyhow::Result<()> {
    socket.set_nonblocking(true)?;
    if set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES).is_err() {
        set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER_BYTES)?;
    }
    set_int(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    // GRO delivers trains as they come. Without it, datagrams come one by one.
    let _ = set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(())
}

fn now_ns() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos() as u64)
}

/// Returns the marks of the datagrams of a train.
fn marks(bytes: &[u8], segment: u16) -> impl Iterator<Item = Option<Mark>> {
    let size = if segment == 0 {
        bytes.len()
    } else {
        usize::from(segment)
    };
    bytes.chunks(size.max(1)).map(Mark::read)
}

/// Receives what has arrived, if anything has.
fn take(receiver: &mut Receiver, socket: &UdpSocket) -> anyhow::Result<Option<usize>> {
    loop {
        match receiver.receive(socket, SLOTS, true) {
            Ok(count) => return Ok(Some(count)),
            Err(error) => match of_receive(&error) {
                ReceiveError::Drained => return Ok(None),
                // This is the error of a closed port, as after a kill. The next call returns more.
                ReceiveError::Again => {}
                _ => return Err(error).context("cannot receive"),
            },
        }
    }
}

/// Sends all datagrams back to where they came from, unchanged.
fn send_replies(
    receiver: &Receiver,
    sender: &mut Sender,
    socket: &UdpSocket,
) -> anyhow::Result<()> {
    let mut slots = receiver.slots().peekable();
    while slots.peek().is_some() {
        let mut batch = sender.batch();
        let mut count = 0;
        for slot in slots.by_ref().take(MESSAGES_MAX) {
            let src: Option<SocketAddr> = slot.src();
            let segment = slot.control_data().segment;
            let len = slot.len as usize;
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
                Err(error) => check_send_error(error)?,
            }
        }
    }
    Ok(())
}

/// Returns no error if the send can be tried again: no process listens after a kill, or the buffer is full. Any other
/// error ends the soak.
fn check_send_error(error: std::io::Error) -> anyhow::Result<()> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::EINTR) => Ok(()),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
            thread::sleep(TICK / 10);
            Ok(())
        }
        _ => Err(error).context("cannot send"),
    }
}
