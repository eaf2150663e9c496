//! Random forwarders: the text that the parser gets, and its meaning in the terms of the model.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use udispatch::config::Config;
use udispatch::dispatch::random::Random;
use udispatch::handlers::KINDS;

/// Nanoseconds in a millisecond, and in a second.
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;

pub fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len())]
}

/// Returns true once in this many times, on average.
pub fn once_in(random: &mut Random, times: usize) -> bool {
    random.below(times) == 0
}

/// Which upstreams get a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pick {
    All,
    RoundRobin,
    Random,
    Hash,
    LeastSessions,
    FirstAlive,
}

pub const PICKS: [(Pick, &str); 6] = [
    (Pick::All, "all"),
    (Pick::RoundRobin, "round_robin"),
    (Pick::Random, "random"),
    (Pick::Hash, "hash"),
    (Pick::LeastSessions, "least_sessions"),
    (Pick::FirstAlive, "first_alive"),
];

/// The input of the hash with `pick = "hash"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOn {
    Source,
    SourceAddress,
    Destination,
    /// Bytes 8 to 11, behind the number with which every payload begins.
    Payload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    No,
    First,
    All,
}

/// One upstream.
#[derive(Debug, Clone, Copy)]
pub struct Receiver {
    pub weight: u64,
    pub backup: bool,
    pub drain: bool,
    pub shadow: bool,
    /// Whether its name resolves at the start.
    pub resolved: bool,
    /// The sample: this many of that many datagrams.
    pub sample: Option<(u64, u64)>,
    /// The rate limit, in datagrams a second.
    pub rate: Option<u64>,
}

/// One forwarder.
#[derive(Debug, Clone)]
pub struct Spec {
    pub receivers: Vec<Receiver>,
    pub pick: Pick,
    pub hash_on: HashOn,
    /// Whether a pick holds for the whole session.
    pub by_session: bool,
    pub replies: Replies,
    pub idle: u64,
    pub unreplied: u64,
    pub max: usize,
    pub share: usize,
    pub replies_max: Option<u64>,
    pub requests_max: Option<u64>,
    pub probes: bool,
    pub fail_open: bool,
    pub allow_low_ports: bool,
    pub reply_to_groups: bool,
    pub ttl: Option<u8>,
}

impl Spec {
    pub fn has_sessions(&self) -> bool {
        self.replies != Replies::No || self.is_sticky()
    }

    /// Whether sessions have no ports of their own.
    pub fn is_sticky(&self) -> bool {
        self.replies == Replies::No && self.by_session && self.pick != Pick::All
    }

    /// Two slots of the timer wheel. A slot is a 128th of the longest deadline or an eighth of the shortest, and at
    /// least 10 ms. A session ends at most this much after its deadline.
    pub fn late_max(&self) -> u64 {
        let shortest = if self.is_sticky() {
            self.idle
        } else {
            self.unreplied
        };
        2 * (self.idle / 128).min(shortest / 8).max(10 * MS)
    }

    /// Whether shadows of sessions get their sockets before an upstream is picked. The model sees which ones only if
    /// the pick succeeds, so it always does there.
    pub fn is_delicate(&self) -> bool {
        self.has_sessions()
            && !self.by_session
            && self.pick != Pick::All
            && self.receivers.iter().any(|one| one.shadow)
    }

    /// Whether passive health judges which upstreams are alive.
    pub fn has_passive_health(&self) -> bool {
        !self.probes && self.receivers.len() > 1 && self.pick != Pick::All
    }
}

/// A listener in each worker.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    pub route: usize,
    pub is_v4: bool,
}

/// The parameters of one simulation.
pub struct Scenario {
    pub text: String,
    pub config: Config,
    pub specs: Vec<Spec>,
    /// The handlers of each route.
    pub routes: Vec<Vec<usize>>,
    pub doors: Vec<Door>,
    pub workers: usize,
    /// Number of source ports of each upstream over all workers.
    pub ports: usize,
    /// An attempt to open a socket fails once in this many times, for one reason or another. Datagrams then come one by
    /// one, so that failures can be told apart.
    pub failing: Option<usize>,
    /// Whether handlers are called when their timers are due, or otherwise now and then.
    pub is_punctual: bool,
    /// How far time may jump: one of this many lengths, from microseconds to minutes.
    pub pace: usize,
    /// Once in this many times, an upstream is reported alive.
    pub hope: usize,
}

impl Scenario {
    pub fn new(random: &mut Random) -> Scenario {
        let handlers = 1 + random.below(3);
        let mut text = String::new();
        let mut routes = Vec::new();
        for route in 0..handlers + random.below(2) {
            let mut names = vec![route % handlers];
            if handlers > 1 && once_in(random, 3) {
                names.push((route + 1) % handlers);
            }
            let list: Vec<String> = names.iter().map(|name| format!("h{name}")).collect();
            let _ = writeln!(
                text,
                "[[route]]\ndestination = \"0.0.0.0:{}\"\nhandler = {list:?}\n",
                5_000 + route
            );
            routes.push(names);
        }
        let mut specs: Vec<Spec> = (0..handlers)
            .map(|number| write(random, &mut text, number))
            .collect();
        let config = match Config::parse(Path::new("simulated.toml"), &text, KINDS) {
            Ok(config) => config,
            Err(problems) => panic!("{text}\n{problems:?}"),
        };
        // The handlers of the file may have another order than their numbers.
        let place = |name: usize| {
            config
                .handlers
                .iter()
                .position(|one| one.name == format!("h{name}"))
                .expect("there")
        };
        let routes: Vec<Vec<usize>> = routes
            .into_iter()
            .map(|names| names.into_iter().map(place).collect())
            .collect();
        let order: Vec<usize> = config
            .handlers
            .iter()
            .map(|one| one.name[1..].parse().expect("hN"))
            .collect();
        specs = order.into_iter().map(|name| specs[name].clone()).collect();
        let mut doors = Vec::new();
        for route in 0..routes.len() {
            let is_v4 = !once_in(random, 4);
            (0..=random.below(2)).for_each(|_| doors.push(Door { route, is_v4 }));
        }
        let is_delicate = specs.iter().any(Spec::is_delicate);
        Scenario {
            text,
            config,
            specs,
            routes,
            doors,
            workers: 1 + random.below(3),
            ports: if is_delicate {
                1_000
            } else {
                pick(random, &[3, 6, 12, 1_000, 1_000, 1_000])
            },
            failing: (!is_delicate && once_in(random, 5)).then(|| pick(random, &[2, 5])),
            is_punctual: !once_in(random, 3),
            pace: pick(random, &[5, 7, 8, 9]),
            hope: pick(random, &[2, 3, 20]),
        }
    }

    /// An address at which a listener can be reached. Two routes share it, as routes with different sources may.
    pub fn local(&self, door: Door, which: usize) -> SocketAddr {
        let ip = if door.is_v4 {
            ["192.0.2.1", "192.0.2.2"]
        } else {
            ["2001:db8::1", "2001:db8::2"]
        }[which];
        SocketAddr::new(
            ip.parse().expect("an address"),
            5_000 + door.route as u16 / 2,
        )
    }
}

/// Writes a forwarder as text.
fn write(random: &mut Random, text: &mut String, number: usize) -> Spec {
    let (pick_by, word) = pick(random, &PICKS);
    let replies = match (once_in(random, 4), pick_by) {
        (true, _) => Replies::No,
        (false, Pick::All) => pick(random, &[Replies::First, Replies::All]),
        (false, _) => Replies::All,
    };
    let must_stick = pick_by == Pick::LeastSessions && replies == Replies::No;
    let by_session = match replies {
        _ if must_stick => true,
        Replies::No => pick_by != Pick::All && once_in(random, 2),
        _ => pick_by == Pick::All || !once_in(random, 4),
    };
    let idle = pick(random, &[1, 2, 10, 60]);
    let max = pick(random, &[1, 3, 8, 20, 50, 200, 200]);
    let some = 1 + random.below(max);
    let mut spec = Spec {
        receivers: Vec::new(),
        pick: pick_by,
        hash_on: pick(
            random,
            &[
                HashOn::Source,
                HashOn::SourceAddress,
                HashOn::Destination,
                HashOn::Payload,
            ],
        ),
        by_session,
        replies,
        idle: idle * SECOND,
        unreplied: pick(random, &[1, 2, 5]).min(idle) * SECOND,
        max,
        share: pick(random, &[max, max, max.div_ceil(2), some]),
        replies_max: once_in(random, 2).then(|| pick(random, &[1, 1, 2, 3])),
        requests_max: once_in(random, 6).then(|| pick(random, &[1, 2, 5])),
        probes: once_in(random, 2),
        fail_open: !once_in(random, 3),
        allow_low_ports: once_in(random, 3),
        reply_to_groups: once_in(random, 3),
        ttl: once_in(random, 4).then_some(9),
    };
    spec.receivers = receivers(random, &spec);
    if spec.is_delicate() {
        spec.fail_open = true;
        spec.receivers
            .iter_mut()
            .for_each(|one| (one.drain, one.resolved) = (false, true));
    }
    if replies == Replies::No {
        (spec.replies_max, spec.allow_low_ports, spec.reply_to_groups) = (None, false, false);
        spec.unreplied = spec.idle;
    }
    if !spec.has_sessions() {
        spec.requests_max = None;
    }
    let _ = writeln!(
        text,
        "[handler.h{number}]\nkind = \"forward\"\npick = \"{word}\"\nresolve_optional = true"
    );
    let upstreams: Vec<String> = (0..)
        .zip(&spec.receivers)
        .map(|(place, one)| upstream(&spec, number, place, one))
        .collect();
    let _ = writeln!(text, "upstreams = [\n  {}\n]", upstreams.join(",\n  "));
    let _ = match replies {
        Replies::No => writeln!(text, "replies = false"),
        Replies::First => writeln!(text, "replies = \"first\""),
        Replies::All if pick_by == Pick::All => writeln!(text, "replies = \"all\""),
        Replies::All => writeln!(text, "replies = true"),
    };
    if pick_by != Pick::All {
        let _ = writeln!(
            text,
            "spread = \"{}\"",
            if by_session { "session" } else { "datagram" }
        );
    }
    write_rest(&spec, text);
    spec
}

fn write_rest(spec: &Spec, text: &mut String) {
    if spec.pick == Pick::Hash {
        let _ = match spec.hash_on {
            HashOn::Source => writeln!(text, "hash_on = \"source\""),
            HashOn::SourceAddress => writeln!(text, "hash_on = \"source_address\""),
            HashOn::Destination => writeln!(text, "hash_on = \"destination\""),
            HashOn::Payload => writeln!(text, "hash_on = {{ offset = 8, length = 4 }}"),
        };
    }
    if spec.has_sessions() {
        let _ = writeln!(text, "session_idle = \"{}s\"", spec.idle / SECOND);
        let _ = writeln!(
            text,
            "session_max = {}\nsession_share = {}",
            spec.max, spec.share
        );
        if let Some(max) = spec.requests_max {
            let _ = writeln!(text, "requests_max = {max}");
        }
    }
    if spec.replies != Replies::No {
        let _ = writeln!(text, "session_unreplied = \"{}s\"", spec.unreplied / SECOND);
        let _ = writeln!(
            text,
            "allow_low_ports = {}\nreply_to_groups = {}",
            spec.allow_low_ports, spec.reply_to_groups
        );
        if let Some(max) = spec.replies_max {
            let _ = writeln!(text, "replies_max = {max}");
        }
    }
    let probe = if spec.probes { "probe = \"tcp\", " } else { "" };
    let _ = writeln!(text, "health = {{ {probe}fail_open = {} }}", spec.fail_open);
    if let Some(ttl) = spec.ttl {
        let _ = writeln!(text, "ttl = {ttl}");
    }
}

fn receivers(random: &mut Random, spec: &Spec) -> Vec<Receiver> {
    let count = pick(random, &[1, 2, 2, 3, 3, 5]);
    // If a sample takes nothing, no datagram is sent, and the port that it might have had is not seen. So samples are
    // tested without sessions.
    let is_limited = !spec.has_sessions() && spec.pick == Pick::All && once_in(random, 2);
    let receiver = |place: usize| {
        let is_first = place == 0;
        let shadow = !is_first && once_in(random, 4);
        let may_weigh = !shadow && spec.pick != Pick::All && spec.pick != Pick::FirstAlive;
        let limit = if is_limited { random.below(3) } else { 0 };
        Receiver {
            weight: if may_weigh {
                pick(random, &[1, 1, 1, 2, 3, 5])
            } else {
                1
            },
            backup: !is_first && !shadow && spec.pick != Pick::All && once_in(random, 5),
            drain: once_in(random, 12),
            shadow,
            resolved: !once_in(random, 10),
            sample: (limit == 1).then(|| pick(random, &[(1, 2), (1, 10), (3, 7)])),
            rate: (limit == 2).then(|| pick(random, &[1, 10, 1_000])),
        }
    };
    (0..count).map(receiver).collect()
}

fn upstream(spec: &Spec, handler: usize, place: usize, receiver: &Receiver) -> String {
    let port = 9_000 + place;
    let host = if receiver.resolved {
        format!("198.51.100.{handler}:{port}")
    } else {
        format!("late.example:{port}")
    };
    let mut text = format!("{{ address = \"{host}\"");
    if !receiver.shadow && spec.pick != Pick::All && spec.pick != Pick::FirstAlive {
        let _ = write!(text, ", weight = {}", receiver.weight);
    }
    for (flag, key) in [
        (receiver.backup, "backup"),
        (receiver.drain, "drain"),
        (receiver.shadow, "shadow"),
    ] {
        if flag {
            let _ = write!(text, ", {key} = true");
        }
    }
    if let Some((taken, each)) = receiver.sample {
        let _ = write!(text, ", sample = \"{taken}/{each}\"");
    }
    if let Some(rate) = receiver.rate {
        let _ = write!(text, ", max_rate = \"{rate}/s\"");
    }
    text + " }"
}
