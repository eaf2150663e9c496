//! Clients and upstreams: what they send, and when.

use std::net::SocketAddr;

use udispatch::dispatch::random::Random;

use crate::model::{Flight, Key, Train};
use crate::scenario::{Door, MS, SECOND, Scenario, once_in, pick};

/// How an upstream treats requests for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It replies, mostly after this time.
    Answers(u64),
    Silent,
    /// The port is closed, and the host refuses.
    Refuses,
}

pub fn mood(random: &mut Random) -> Mood {
    match random.below(7) {
        0 => Mood::Silent,
        1 => Mood::Refuses,
        _ => Mood::Answers(pick(
            random,
            &[50_000, MS, MS, 30 * MS, 150 * MS, 3 * SECOND],
        )),
    }
}

/// A client: mostly one of a few that come again and again.
pub fn client(random: &mut Random, is_v4: bool) -> SocketAddr {
    let port = pick(
        random,
        &[4_000, 4_000, 4_000, 4_001, 4_001, 4_002, 4_002, 53],
    );
    let net = random.below(3);
    let host = 1 + random.below(2);
    let subnet = random.below(2);
    let text = if is_v4 {
        format!("10.0.{net}.{host}:{port}")
    } else {
        format!("[2001:db8:1:{net}0{subnet}::{host}]:{port}")
    };
    text.parse().expect("an address")
}

/// A random source address, as a flood of forged datagrams has it.
fn forged(random: &mut Random, is_v4: bool) -> SocketAddr {
    let net = random.below(200);
    let host = 1 + random.below(250);
    let port = 1_024 + random.below(60_000);
    let text = if is_v4 {
        format!("10.{net}.7.{host}:{port}")
    } else {
        format!("[2001:db8:{net:x}:700::{host}]:{port}")
    };
    text.parse().expect("an address")
}

/// Numbers payloads.
#[derive(Default)]
pub struct Press {
    printed: u64,
}

impl Press {
    /// A train to a listener, of at most `datagrams_max` datagrams. `is_forged` gives it a random source.
    pub fn train(
        &mut self,
        random: &mut Random,
        scenario: &Scenario,
        door: Door,
        datagrams_max: usize,
        is_forged: bool,
    ) -> Train {
        let local = scenario.local(door, usize::from(once_in(random, 4)));
        let mut src = if is_forged {
            forged(random, door.is_v4)
        } else {
            client(random, door.is_v4)
        };
        if once_in(random, 40) {
            // The source is a listener of the daemon, or port 0.
            src = if once_in(random, 2) {
                scenario.local(door, 1)
            } else {
                SocketAddr::new(src.ip(), 0)
            };
        }
        let is_to_group = door.is_v4 && once_in(random, 25);
        let dst = if is_to_group {
            SocketAddr::new([239, 1, 2, 3].into(), local.port())
        } else {
            local
        };
        let len = 12 + random.below(30);
        let count = if once_in(random, 3) {
            1 + random.below(datagrams_max)
        } else {
            1
        };
        let word = pick(random, &[*b"aaaa", *b"bbbb", *b"cccc", *b"dddd"]);
        let mut payload = |index: usize| {
            self.printed += 1;
            let mut payload = self.printed.to_be_bytes().to_vec();
            payload.extend(word);
            payload.resize(
                if index + 1 == count {
                    12 + len % 12
                } else {
                    12 + len
                },
                7,
            );
            payload
        };
        Train {
            src,
            dst,
            local,
            interface: random.below(3) as u32,
            ttl: if once_in(random, 25) {
                1
            } else {
                pick(random, &[64, 63])
            },
            payloads: (0..count).map(&mut payload).collect(),
        }
    }
}

/// A request that an upstream received, and the socket that it came from.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub worker: usize,
    pub socket: u32,
    pub incarnation: u64,
    pub number: u64,
    pub place: usize,
    pub is_shadow: bool,
    /// The session that sent the request, and its key.
    pub asker: u64,
    pub key: Key,
}

/// The replies of an upstream: one or several, soon or late. All of them have the same length.
pub fn answers(random: &mut Random, request: &Request, usual: u64, now: u64) -> Vec<Flight> {
    let Request {
        worker,
        socket,
        incarnation,
        number,
        place,
        is_shadow,
        asker,
        key,
    } = *request;
    let copies = pick(random, &[0, 1, 1, 1, 1, 2, 3]);
    let answer = |copy: u8| {
        let delay = match random.below(8) {
            0 => pick(
                random,
                &[
                    110 * MS,
                    1_500 * MS,
                    2_100 * MS,
                    5 * SECOND,
                    9_500 * MS,
                    11 * SECOND,
                    40 * SECOND,
                ],
            ),
            _ => usual + random.below(usual as usize) as u64,
        };
        // A shadow sometimes replies as the first upstream does.
        let signature = if is_shadow && random.below(3) > 0 {
            0
        } else {
            place
        };
        let payload = [&number.to_be_bytes()[..], &[copy, signature as u8]].concat();
        Flight {
            at: now + delay,
            worker,
            socket,
            incarnation,
            payload,
            asker,
            key,
        }
    };
    (0..copies).map(answer).collect()
}
