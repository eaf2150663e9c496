//! The part of the kernel: which sockets get a datagram, and what each of them learns about it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use udispatch::datagram::{Envelope, Region, Span, Train};
use udispatch::dispatch::random::Random;
use udispatch::plan::{ListenerPlan, Plan, Role};

use crate::world::{ETH0, ETH1, LO, World, address_of, ip, once_in, pick};

/// Bytes of a receive slot.
pub const SLOT_BYTES: usize = 1 << 16;
/// Slots of a receive call.
pub const SLOTS: usize = 32;

/// A train on the wire, with all facts about it.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// The number of the train among all trains.
    pub serial: usize,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub interface: u32,
    pub ttl: u8,
    pub len: u32,
    pub segment: u16,
}

impl Packet {
    pub fn is_broadcast(&self) -> bool {
        [ip("192.0.2.255"), ip("10.0.0.255"), ip("255.255.255.255")].contains(&self.dst.ip())
    }
}

/// One socket of one worker.
pub struct Socket {
    pub worker: usize,
    /// The index of its listener in the worker.
    pub local_listener: usize,
    /// The number of its listener in the plan.
    pub listener: usize,
    pub queue: VecDeque<Packet>,
}

/// The sockets as the daemon opens them: unicast and wildcard addresses in each worker, others in one.
pub fn sockets(plan: &Plan) -> Vec<Socket> {
    let mut sockets = Vec::new();
    let mut listeners_each = vec![0; plan.workers];
    let mut owner = 0;
    for (listener, planned) in plan.listeners.iter().enumerate() {
        let workers = match planned.role {
            Role::Unicast | Role::Absent | Role::Wildcard { .. } => 0..plan.workers,
            _ => {
                owner = (owner + 1) % plan.workers;
                owner..owner + 1
            }
        };
        for worker in workers {
            sockets.push(Socket {
                worker,
                local_listener: listeners_each[worker],
                listener,
                queue: VecDeque::new(),
            });
            listeners_each[worker] += 1;
        }
    }
    sockets
}

/// Puts the packet, or copies of it, into the queues. Returns the number of copies.
pub fn deliver(
    world: &World,
    sockets: &mut [Socket],
    random: &mut Random,
    packet: Packet,
) -> usize {
    let takers: Vec<usize> = takers(world, sockets, packet);
    let to_many = packet.dst.ip().is_multicast() || packet.is_broadcast();
    if to_many {
        for &taker in &takers {
            sockets[taker].queue.push_back(packet);
        }
        return takers.len();
    }
    // Of the workers' sockets on one address, the kernel picks one by a hash that does not matter here.
    if let Some(&taker) = takers.get(random.below(takers.len().max(1))) {
        sockets[taker].queue.push_back(packet);
        return 1;
    }
    0
}

fn takers(world: &World, sockets: &[Socket], packet: Packet) -> Vec<usize> {
    let dst = packet.dst.ip();
    let at = |wanted: &dyn Fn(&ListenerPlan) -> bool| -> Vec<usize> {
        let planned = |socket: &Socket| &world.plan.listeners[socket.listener];
        let is_taker = |socket: &Socket| {
            planned(socket).address.port() == packet.dst.port() && wanted(planned(socket))
        };
        (0..sockets.len())
            .filter(|&index| is_taker(&sockets[index]))
            .collect()
    };
    let is_wildcard = |listener: &ListenerPlan| {
        listener.address.ip().is_unspecified() && listener.address.is_ipv4() == dst.is_ipv4()
    };
    if dst.is_multicast() {
        // With IP_MULTICAST_ALL off, a wildcard gets none. IPv6 does not compare interfaces, but only whether any
        // socket has joined there.
        let joined = |listener: &ListenerPlan, anywhere: bool| match &listener.role {
            Role::Group {
                interface, sources, ..
            } => {
                listener.address.ip() == dst
                    && (anywhere || *interface == packet.interface)
                    && (sources.is_empty() || sources.contains(&packet.src.ip()))
            }
            _ => false,
        };
        return at(&|listener| joined(listener, dst.is_ipv6()));
    }
    let exact = at(&|listener| listener.address.ip() == dst);
    if packet.is_broadcast() {
        return at(&|listener| listener.address.ip() == dst || is_wildcard(listener));
    }
    if exact.is_empty() {
        at(&is_wildcard)
    } else {
        exact
    }
}

/// What the listener's socket reports about a packet: only what the plan requested.
pub fn envelope(world: &World, socket: &Socket, packet: &Packet) -> Envelope {
    let listener = &world.plan.listeners[socket.listener];
    let port = listener.address.port();
    let dst = packet.dst.ip();
    let needs = listener.needs;
    let (dst, local, interface) = if listener.receives_destination() {
        let local: IpAddr = match dst {
            IpAddr::V6(_) if dst.is_multicast() => ip("::"),
            IpAddr::V4(_) if dst.is_multicast() || packet.is_broadcast() => {
                address_of(packet.interface, true)
            }
            _ => dst,
        };
        (
            SocketAddr::new(dst, port),
            SocketAddr::new(local, port),
            packet.interface,
        )
    } else {
        (listener.address, listener.address, 0)
    };
    Envelope {
        src: packet.src,
        dst,
        local,
        interface,
        ttl: needs.ttl.then_some(packet.ttl),
        time_ns: needs.time.then_some(TIME_NS),
    }
}

/// The one moment at which everything arrives: 2001-09-09T01:46:40.000001Z.
pub const TIME_NS: u64 = 1_000_000_000_000_001_000;

/// The train as it is in a slot.
pub fn train(world: &World, socket: &Socket, packet: &Packet, slot: usize) -> Train {
    Train {
        envelope: envelope(world, socket, packet),
        span: Span {
            region: Region::Arena,
            offset: (slot * SLOT_BYTES) as u32,
            len: packet.len,
        },
        segment: packet.segment,
    }
}

/// Sources of all kinds: ordinary ones, services, the daemon's own listeners, and addresses that no host can send from.
const SOURCES_V4: &[&str] = &[
    "10.0.0.7:4000",
    "10.0.0.7:4001",
    "10.0.0.8:4000",
    "192.0.2.9:4000",
    "127.0.0.1:4000",
    "203.0.113.5:60000",
    "10.0.0.7:53",
    "10.0.0.7:1023",
    "10.0.0.7:1024",
    "10.0.0.7:0",
    "10.0.0.7:5000",
    "127.0.0.1:5000",
    "127.8.8.8:5000",
    "192.0.2.1:5000",
    "192.0.2.1:5001",
    "10.0.0.1:5001",
    "10.1.0.1:5000",
    "224.0.0.1:4000",
    "255.255.255.255:4000",
    "192.0.2.255:4000",
    "10.0.0.255:5000",
    "0.0.0.0:4000",
    "0.1.2.3:4000",
];
const SOURCES_V6: &[&str] = &[
    "[2001:db8::7]:4000",
    "[2001:db8::7]:4001",
    "[2001:db8::8]:4000",
    "[2001:db8:9::1]:4000",
    "[::1]:4000",
    "[2001:db8::7]:53",
    "[2001:db8::7]:0",
    "[::1]:5000",
    "[2001:db8::1]:5000",
    "[2001:db8:1::1]:5001",
    "[ff02::1]:4000",
    "[::]:4000",
];
const DESTINATIONS_V4: &[&str] = &[
    "127.0.0.1",
    "127.0.0.2",
    "192.0.2.1",
    "10.0.0.1",
    "10.0.0.2",
    "10.1.0.1",
    "192.0.2.255",
    "10.0.0.255",
    "255.255.255.255",
    "239.1.2.3",
    "239.9.9.9",
];
const DESTINATIONS_V6: &[&str] = &[
    "::1",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::1",
    "ff02::fb",
    "ff05::1",
];

/// A random train. Often it continues the flow of the one before, as flows do.
pub fn packet(random: &mut Random, serial: usize, before: Option<Packet>) -> Packet {
    let (segment, len) = size(random);
    if let Some(before) = before.filter(|_| once_in(random, 2)) {
        return Packet {
            serial,
            segment,
            len,
            ..before
        };
    }
    let v4 = random.below(3) > 0;
    let (sources, destinations) = if v4 {
        (SOURCES_V4, DESTINATIONS_V4)
    } else {
        (SOURCES_V6, DESTINATIONS_V6)
    };
    // Most trains come from sources that may get replies.
    let few = if once_in(random, 3) { sources.len() } else { 5 };
    let port = *pick(random, &[5000, 5000, 5001]);
    Packet {
        serial,
        src: pick(random, &sources[..few])
            .parse()
            .expect("an address and a port"),
        dst: SocketAddr::new(ip(destinations[random.below(destinations.len())]), port),
        interface: *pick(random, &[LO, ETH0, ETH0, ETH1]),
        ttl: *pick(random, &[0, 1, 2, 64, 64, 255]),
        len,
        segment,
    }
}

/// Segment and length: single datagrams of all sizes, and trains of up to what 64 KiB hold.
fn size(random: &mut Random) -> (u16, u32) {
    if random.below(3) > 0 {
        let len = *pick(
            random,
            &[
                0, 1, 2, 20, 20, 20, 64, 64, 100, 1_200, 1_472, 9_000, 65_507,
            ],
        );
        return (0, len);
    }
    let segment: u16 = *pick(
        random,
        &[
            1, 20, 64, 64, 100, 1_000, 1_200, 1_472, 32_000, 60_000, 65_510,
        ],
    );
    let whole = (65_527 / u32::from(segment)).min(150);
    let len = (1 + random.below(whole as usize) as u32) * u32::from(segment);
    // The last datagram is as long as the others, or shorter.
    let last = if once_in(random, 2) {
        random.below(usize::from(segment)) as u32
    } else {
        0
    };
    let len = (len + last).min(65_527);
    if len > u32::from(segment) {
        (segment, len)
    } else {
        (0, len)
    }
}
