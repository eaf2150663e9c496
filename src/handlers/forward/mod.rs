//! `forward`: passes datagrams on to all upstreams or to a picked one, and passes replies back to the client.

mod admission;
pub mod config;
mod fanout;
mod flow_hash;
mod handover;
mod outgoing;
mod shadow;
mod source_ports;
mod stateful;
mod stateless;
mod upstream_handle;
mod upstream_set;

use std::sync::{Arc, OnceLock};

use self::admission::Admission;
use self::config::{Choice, HashOn, Replies, Settings, UpstreamOptions};
use self::flow_hash::key_of;
use self::stateful::Stateful;
use self::stateless::Stateless;
use self::upstream_handle::UpstreamHandle;
use self::upstream_set::UpstreamSet;
use crate::config::kind::{
    BuildContext, BuildError, HandlerSpec, Kind, MonitorSettings, Needs, Upstream,
};
use crate::datagram::Datagram;
use crate::dispatch::handler::Handler;
use crate::dispatch::maglev::{Maglev, hash_bytes};
use crate::dispatch::pool::{Member, Pick, PickRule, Pool};
use crate::dispatch::rate::RateLimit;
use crate::dispatch::sessions::quota::Quota;
use crate::dispatch::time::nanoseconds;

/// The entry of `forward` in the list of kinds.
pub const KIND: Kind = Kind {
    name: "forward",
    summary: "passes datagrams on to upstreams: to all of them, or to one that is picked; replies go back to the sender",
    settings: config::schema::SETTINGS,
    example: r#"[[route]]
destination = "0.0.0.0:5300"
handler = "resolvers"

[handler.resolvers]
kind = "forward"
upstreams = [
    "127.0.0.1:9001",
    { address = "127.0.0.1:9002", weight = 3 },
    { address = "127.0.0.1:9003", backup = true },
]
health = { probe = "tcp", interval = "10s" }
session_idle = "10s"

[[route]]
destination = "0.0.0.0:2055"
handler = "collectors"

[handler.collectors]
kind = "forward"
upstreams = [
    "127.0.0.1:9011",
    { address = "127.0.0.1:9012", sample = "1/100" },
]
pick = "all"
"#,
    read: |section| Some(Box::new(Forward::new(config::parse::read(section)?))),
};

/// The checked settings of a forwarder, with the state that its workers share.
#[derive(Debug)]
struct Forward {
    settings: Arc<Settings>,
    quota: OnceLock<Arc<Quota>>,
    rates: Vec<Option<Arc<RateLimit>>>,
    /// Built when it is first needed. It takes 128 KiB, and all workers share it.
    maglev: OnceLock<Arc<Maglev>>,
}

impl Forward {
    fn new(settings: Settings) -> Forward {
        let limit = |options: &UpstreamOptions| {
            let rate = options.max_rate?;
            Some(Arc::new(RateLimit::new(
                u64::from(rate.count),
                nanoseconds(rate.per),
            )))
        };
        Forward {
            quota: OnceLock::new(),
            rates: settings.upstream_options.iter().map(limit).collect(),
            maglev: OnceLock::new(),
            settings: Arc::new(settings),
        }
    }

    fn quota(&self, seed: u64) -> Arc<Quota> {
        let limits = self.settings.limits;
        Arc::clone(
            self.quota
                .get_or_init(|| Arc::new(Quota::new(limits.max, limits.share, seed))),
        )
    }

    /// Returns the table for picking by hash. A shadow has no entry in it.
    fn maglev(&self) -> Arc<Maglev> {
        let make = || {
            let weight =
                |options: &UpstreamOptions| if options.shadow { 0 } else { options.weight };
            let weights = self.settings.upstream_options.iter().map(weight);
            let names = self.settings.upstreams.iter().map(Upstream::to_string);
            Arc::new(Maglev::new(&names.zip(weights).collect::<Vec<_>>()))
        };
        Arc::clone(self.maglev.get_or_init(make))
    }

    fn pool(&self, has_address: &[bool], seed: u64) -> Pool {
        let member =
            |((options, upstream), has_address): ((&UpstreamOptions, &Upstream), &bool)| Member {
                name: hash_bytes(upstream.to_string().as_bytes()),
                weight: options.weight,
                backup: options.backup,
                drain: options.drain,
                alive: true,
                resolved: *has_address,
                shadow: options.shadow,
            };
        let members: Vec<Member> = self
            .settings
            .upstream_options
            .iter()
            .zip(&self.settings.upstreams)
            .zip(has_address)
            .map(member)
            .collect();
        let pick = if let Choice::One(pick) = self.settings.choice {
            pick
        } else {
            Pick::RoundRobin
        };
        let maglev = (pick == Pick::Hash && members.len() > 1).then(|| self.maglev());
        let rule = PickRule {
            pick,
            fail_open: self.settings.fail_open,
            maglev,
        };
        Pool::new(members, rule, seed)
    }
}

impl HandlerSpec for Forward {
    fn needs(&self) -> Needs {
        let Settings {
            choice,
            hash_on,
            replies,
            upstreams,
            upstream_options,
            reply_policy,
            ..
        } = &*self.settings;
        let is_hash = *choice == Choice::One(Pick::Hash);
        let keeps = upstreams
            .iter()
            .any(|upstream| upstream.egress.from == crate::config::upstream::SendFrom::Keep);
        let by_source = matches!(hash_on, HashOn::Source | HashOn::SourceAddress);
        let proxy = upstream_options.iter().any(|options| options.proxy);
        let has_own_ttl = upstreams
            .iter()
            .all(|upstream| upstream.egress.ttl.is_some() && !upstream.is_group());
        Needs {
            source: self.settings.has_sessions() || keeps || proxy || (is_hash && by_source),
            destination: self.settings.has_sessions()
                || *replies != Replies::None
                || proxy
                || (is_hash && *hash_on == HashOn::Destination),
            ttl: reply_policy.ttl.is_none() && (!has_own_ttl || *replies != Replies::None),
            ..Needs::NOTHING
        }
    }

    fn upstreams(&self) -> &[Upstream] {
        &self.settings.upstreams
    }

    fn has_sessions(&self) -> bool {
        // Without replies, a session only remembers a choice, and need not be continued.
        self.settings.has_sessions() && self.settings.replies != Replies::None
    }

    fn would_reach(&self, datagram: &Datagram<'_>) -> Vec<usize> {
        let places = 0..self.settings.upstreams.len();
        let mut pool = self.pool(&vec![true; places.len()], 0);
        match self.settings.choice {
            Choice::All => {
                let is_reached = |place: &usize| {
                    pool.is_fit_for_all(*place) && !self.settings.upstream_options[*place].shadow
                };
                places.filter(is_reached).collect()
            }
            // These two always pick the same upstream for a datagram.
            Choice::One(Pick::Hash | Pick::FirstAlive) => {
                let key = || key_of(self.settings.hash_on, &datagram.envelope, datagram.payload);
                pool.pick(key, |_| 0).into_iter().collect()
            }
            Choice::One(Pick::RoundRobin | Pick::Random | Pick::LeastSessions) => {
                places.filter(|place| pool.is_fit(*place)).collect()
            }
        }
    }

    fn monitor_settings(&self) -> MonitorSettings {
        self.settings.monitor.clone()
    }

    fn describe(&self) -> String {
        let Settings {
            choice,
            hash_on,
            upstreams,
            upstream_options,
            replies,
            ..
        } = &*self.settings;
        let pick = match choice {
            _ if upstreams.len() == 1 => "to".to_owned(),
            Choice::All => "to all of".to_owned(),
            Choice::One(Pick::RoundRobin) => "in turn to".to_owned(),
            Choice::One(Pick::Random) => "at random to one of".to_owned(),
            Choice::One(Pick::Hash) => format!("by a hash of the {} to one of", hash_on.text()),
            Choice::One(Pick::LeastSessions) => "to the one with the fewest sessions of".to_owned(),
            Choice::One(Pick::FirstAlive) => "to the first that is alive of".to_owned(),
        };
        let replies_text = match replies {
            Replies::None => "",
            _ if *choice != Choice::All => "; replies go back to the sender",
            Replies::First => {
                "; the replies of the upstream that replies first go back to the sender"
            }
            Replies::All => "; all replies go back to the sender",
        };
        let names =
            upstreams
                .iter()
                .zip(upstream_options)
                .map(|(upstream, options)| match options {
                    UpstreamOptions { shadow: true, .. } => format!("{upstream} (shadow)"),
                    UpstreamOptions { drain: true, .. } => format!("{upstream} (draining)"),
                    UpstreamOptions { backup: true, .. } => format!("{upstream} (backup)"),
                    _ => upstream.to_string(),
                });
        format!(
            "forwards {pick} {}{replies_text}",
            names.collect::<Vec<_>>().join(", ")
        )
    }

    fn build(&self, context: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        let mut handles = Vec::new();
        let mut has_address = Vec::new();
        let parts = self
            .settings
            .upstreams
            .iter()
            .zip(&self.settings.upstream_options)
            .zip(&self.rates);
        for (place, ((upstream, options), rate)) in parts.enumerate() {
            let opened = context.upstream(place)?;
            has_address.push(opened.address.is_some());
            let admission = Admission::new(options.sample, rate.clone(), context.seed());
            handles.push(UpstreamHandle::new(
                opened,
                upstream,
                options.proxy,
                admission,
            ));
        }
        let upstreams = UpstreamSet::new(
            Arc::clone(&self.settings),
            handles,
            self.pool(&has_address, context.seed()),
        );
        if !self.settings.has_sessions() {
            return Ok(Box::new(Stateless::new(upstreams)));
        }
        let quota = self.quota(context.seed());
        Ok(Box::new(Stateful::new(upstreams, quota, context.seed())))
    }
}

impl HashOn {
    fn text(self) -> String {
        match self {
            HashOn::Source => "source address and port".to_owned(),
            HashOn::SourceAddress => "source address".to_owned(),
            HashOn::Destination => "destination".to_owned(),
            HashOn::Payload { offset, length } => {
                format!(
                    "payload's bytes {offset} to {}",
                    u32::from(offset) + u32::from(length) - 1
                )
            }
        }
    }
}
