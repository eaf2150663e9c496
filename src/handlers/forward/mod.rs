//! `forward`: passes datagrams on to upstreams, to all of them or to a picked one, one way.

pub mod settings;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::kind::{BuildError, Kind, Needs, Recipe, Setting, Site, Upstream};
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::upstream::Host;
use crate::config::value::{self, Value};
use crate::config::words::Mistake;
use crate::datagram::{Datagram, Envelope, Train};
use crate::dispatch::guard::damp;
use crate::dispatch::handler::{Batch, Cx, Handler};
use crate::dispatch::maglev::Maglev;
use crate::dispatch::outbox::Lane;
use crate::dispatch::random::Random;
use crate::dispatch::verdict::{DropReason, Verdict};

/// The entry in the list of kinds.
pub const KIND: Kind = Kind {
    name: "forward",
    summary: "passes datagrams on to upstreams: to all of them, or to one that is picked; one way",
    settings: &[
        Setting {
            key: "upstreams",
            values: r#"list of "ADDRESS:PORT" or "NAME:PORT""#,
            default: "required",
            meaning: "where to; a name is resolved once, at start",
        },
        Setting {
            key: "pick",
            values: r#""all", "round_robin", "random" or "hash""#,
            default: r#""round_robin""#,
            meaning: "which upstreams get a datagram: each of them, the next one, any one, or always the same one for the \
                      same hash_on",
        },
        Setting {
            key: "hash_on",
            values: r#""source", "source_address" or "destination""#,
            default: r#""source""#,
            meaning: "what decides under pick = \"hash\" (Maglev: several machines with the same upstreams pick alike)",
        },
        Setting {
            key: "ttl",
            values: "1 to 255",
            default: "received less one",
            meaning: "TTL or hop limit to send with; the default lets every forwarding loop die",
        },
    ],
    example: r#"[[route]]
destination = "0.0.0.0:2055"
handler = "collectors"

[handler.collectors]
kind = "forward"
upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"]
pick = "all"
"#,
    read,
};

/// Upstreams of one handler: each is a socket in every worker.
const UPSTREAMS_MAX: usize = 1_024;

const PICKS: &[(&str, Pick)] = &[
    ("all", Pick::All),
    ("round_robin", Pick::RoundRobin),
    ("random", Pick::Random),
    ("hash", Pick::Hash(HashOn::Source)),
];

const HASH_ON: &[(&str, HashOn)] =
    &[("source", HashOn::Source), ("source_address", HashOn::SourceAddress), ("destination", HashOn::Destination)];

fn read(section: &mut Section<'_>) -> Option<Box<dyn Recipe>> {
    let upstreams = section.required_list("upstreams", unicast_upstream);
    let pick = section.or("pick", value::choice(PICKS), Pick::RoundRobin);
    let hash_on = section.optional("hash_on", value::choice(HASH_ON));
    let ttl = section.optional("ttl", value::integer(1..=255));
    let is_hash = matches!(pick, Pick::Hash(_));
    if section.has("hash_on") && !is_hash {
        section.problem("hash_on", "means something only with pick = \"hash\"", "add pick = \"hash\", or leave it out");
    }
    let upstreams = upstreams?;
    report_repeated(section, &upstreams);
    if upstreams.len() > UPSTREAMS_MAX {
        section.problem("upstreams", format!("more than {UPSTREAMS_MAX}, the limit of one handler"), "");
    }
    let pick = if is_hash { Pick::Hash(hash_on.unwrap_or(HashOn::Source)) } else { pick };
    Some(Box::new(Forward { upstreams, pick, ttl }))
}

/// The same upstream twice gets every datagram twice: a mistake, and in a loop a storm.
fn report_repeated(section: &mut Section<'_>, upstreams: &[Upstream]) {
    let mut seen: HashMap<(&Host, u16), &Upstream> = HashMap::new();
    for upstream in upstreams {
        if let Some(first) = seen.insert((&upstream.host, upstream.port), upstream) {
            let problem = Problem::error(upstream.at.clone(), format!("`upstreams`: {upstream} is there twice"));
            section.report(problem.and_at(first.at.clone(), "first here").hint("leave one out"));
        }
    }
}

/// An upstream that is one host: a group needs an interface and a TTL to be chosen, which this version cannot.
fn unicast_upstream(value: Value<'_>) -> Result<Upstream, Mistake> {
    let upstream = value::upstream(value)?;
    if upstream.is_group() {
        let message = format!("{upstream} is a multicast group, which this version cannot forward to");
        return Err(Mistake::new(message).hint("name the receivers one by one"));
    }
    Ok(upstream)
}

/// Which upstreams get a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    All,
    RoundRobin,
    Random,
    Hash(HashOn),
}

/// What decides under `pick = "hash"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashOn {
    Source,
    SourceAddress,
    Destination,
}

#[derive(Debug)]
struct Forward {
    upstreams: Vec<Upstream>,
    pick: Pick,
    ttl: Option<u8>,
}

impl Recipe for Forward {
    fn needs(&self) -> Needs {
        let source = matches!(self.pick, Pick::Hash(HashOn::Source | HashOn::SourceAddress));
        let destination = self.pick == Pick::Hash(HashOn::Destination);
        Needs { source, destination, ttl: self.ttl.is_none(), ..Needs::NOTHING }
    }

    fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    fn describe(&self) -> String {
        let pick = match self.pick {
            _ if self.upstreams.len() == 1 => return format!("forwards to {}", self.upstreams[0]),
            Pick::All => "to all of".to_owned(),
            Pick::RoundRobin => "in turn to".to_owned(),
            Pick::Random => "at random to one of".to_owned(),
            Pick::Hash(on) => format!("by a hash of the {} to one of", on.words()),
        };
        let upstreams: Vec<_> = self.upstreams.iter().map(Upstream::to_string).collect();
        format!("forwards {pick} {}", upstreams.join(", "))
    }

    fn build(&self, site: &mut dyn Site) -> Result<Box<dyn Handler>, BuildError> {
        let lanes = (0..self.upstreams.len())
            .map(|place| Ok(site.upstream(place)?.1))
            .collect::<Result<Vec<_>, BuildError>>()?;
        let maglev = match self.pick {
            Pick::Hash(_) if lanes.len() > 1 => {
                Maglev::new(&self.upstreams.iter().map(|upstream| (upstream.to_string(), 1)).collect::<Vec<_>>())
            }
            _ => Maglev::default(),
        };
        let random = Random::new(site.seed());
        Ok(Box::new(Forwarder { lanes, pick: self.pick, ttl: self.ttl, turn: 0, maglev, random }))
    }
}

impl HashOn {
    fn words(self) -> &'static str {
        match self {
            HashOn::Source => "source address and port",
            HashOn::SourceAddress => "source address",
            HashOn::Destination => "destination",
        }
    }
}

struct Forwarder {
    lanes: Vec<Lane>,
    pick: Pick,
    ttl: Option<u8>,
    /// The upstream whose turn it is.
    turn: usize,
    maglev: Maglev,
    random: Random,
}

impl Handler for Forwarder {
    fn on_datagram(&mut self, datagram: &Datagram<'_>, cx: &mut Cx<'_>) -> Verdict {
        let train = Train { envelope: datagram.envelope, span: datagram.span, segment: 0 };
        match self.pass_on(&train, cx) {
            Ok(()) => Verdict::Handled,
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Cx<'_>) {
        let mut index = 0;
        for train in batch.trains() {
            let datagrams = train.datagrams();
            if let Err(reason) = self.pass_on(train, cx) {
                for dropped in index..index + datagrams {
                    cx.verdict(dropped, Verdict::Dropped(reason));
                }
            }
            index += datagrams;
        }
    }
}

impl Forwarder {
    fn pass_on(&mut self, train: &Train, cx: &mut Cx<'_>) -> Result<(), DropReason> {
        let ttl = self.ttl_for(&train.envelope)?;
        match self.pick {
            _ if self.lanes.len() == 1 => cx.forward(self.lanes[0], train, ttl),
            Pick::All => {
                for &lane in &self.lanes {
                    cx.forward(lane, train, ttl);
                }
            }
            Pick::Hash(on) => {
                let lane = self.lanes[self.maglev.pick(hash_of(on, &train.envelope))];
                cx.forward(lane, train, ttl);
            }
            Pick::RoundRobin | Pick::Random => {
                for datagram in train.pieces() {
                    let lane = self.next_lane();
                    cx.forward(lane, &datagram, ttl);
                }
            }
        }
        Ok(())
    }

    fn next_lane(&mut self) -> Lane {
        if self.pick == Pick::Random {
            return self.lanes[self.random.below(self.lanes.len())];
        }
        let lane = self.lanes[self.turn];
        self.turn = (self.turn + 1) % self.lanes.len();
        lane
    }

    /// One less than it arrived with, so that forwarders that point at each other stop; except that senders to groups
    /// use a TTL of 1 as a rule (IP_MULTICAST_TTL in ip(7)), which is where such a datagram begins, not where a loop ends.
    fn ttl_for(&self, envelope: &Envelope) -> Result<Option<u8>, DropReason> {
        if envelope.ttl == Some(1) && envelope.dst.ip().is_multicast() {
            return Ok(self.ttl);
        }
        damp(envelope.ttl, self.ttl)
    }
}

fn hash_of(on: HashOn, envelope: &Envelope) -> u64 {
    let (ip, port) = match on {
        HashOn::Source => (envelope.src.ip(), envelope.src.port()),
        HashOn::SourceAddress => (envelope.src.ip(), 0),
        HashOn::Destination => (envelope.dst.ip(), envelope.dst.port()),
    };
    let (high, low) = match ip {
        IpAddr::V4(ip) => (0, u64::from(u32::from(ip))),
        IpAddr::V6(ip) => ((u128::from(ip) >> 64) as u64, u128::from(ip) as u64),
    };
    crate::dispatch::maglev::mix(crate::dispatch::maglev::mix(high) ^ low ^ u64::from(port).rotate_left(40))
}
