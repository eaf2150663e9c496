//! The definitions of all settings: of a `forward` handler, of an upstream's table, of `hash_on` and of `health`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Choice, HashOn, RepliesSetting, Sample, Spread};
use crate::config::diagnostics::{Mistake, did_you_mean};
use crate::config::kind::{
    Capped, Form, InterfaceRef, ListSetting, Optional, Required, Setting, SettingTable, Upstream,
};
use crate::config::limits::{
    HASHED_BYTES_MAX, PAYLOAD_BYTES_MAX, PROBE_BYTES_MAX, SAMPLE_MAX, SESSION_DATAGRAMS_MAX,
    SESSIONS_MAX, STREAK_MAX, WEIGHT_MAX,
};
use crate::config::upstream::{ProbeOver, SendFrom};
use crate::config::value::{self, Rate, Value};
use crate::dispatch::pool::Pick;
use crate::handlers::reply_settings::{self, ALLOW_LOW_PORTS, REPLY_TO_GROUPS};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The settings of the handler.
pub const SETTINGS: SettingTable = &[
    &UPSTREAMS,
    &PICK,
    &HASH_ON,
    &SPREAD,
    &REPLIES,
    &SESSION_IDLE,
    &SESSION_UNREPLIED,
    &SESSION_MAX,
    &SESSION_SHARE,
    &REPLIES_MAX,
    &REQUESTS_MAX,
    &HEALTH,
    &RESOLVE_INTERVAL,
    &RESOLVE_OPTIONAL,
    &ALLOW_LOW_PORTS,
    &REPLY_TO_GROUPS,
    &TTL,
];

pub const UPSTREAMS: ListSetting<Upstream, Required> = Setting::custom(
    "upstreams",
    Form::OneOf(&[
        Form::Text(r#""ADDRESS:PORT" or "NAME:PORT""#),
        Form::Table(UPSTREAM_SETTINGS),
    ]),
    value::upstream,
)
.required()
.meaning("the upstreams to forward datagrams to")
.list();

pub const PICK: Setting<Choice> = Setting::choice("pick", &PICKS)
    .default(Choice::One(Pick::RoundRobin))
    .meaning(
        "which upstreams get a datagram: all of them, the next one, any one, always the same one for the same \
         hash_on, the one with the fewest sessions for its weight, or the first in the file that is alive",
    );

const PICKS: [(&str, Choice); 6] = [
    ("all", Choice::All),
    ("round_robin", Choice::One(Pick::RoundRobin)),
    ("random", Choice::One(Pick::Random)),
    ("hash", Choice::One(Pick::Hash)),
    ("least_sessions", Choice::One(Pick::LeastSessions)),
    ("first_alive", Choice::One(Pick::FirstAlive)),
];

pub const HASH_ON: Setting<HashOn> = Setting::custom(
    "hash_on",
    Form::OneOf(&[
        Form::Choice(&HASH_ON_WORDS),
        Form::Table(PAYLOAD_SETTINGS),
    ]),
    hash_on,
)
.default_as(HashOn::Source, "\"source\"")
.meaning(
    "what is hashed under pick = \"hash\" (Maglev: all machines with the same upstreams pick the same one): the \
     sender's address and port, its address, the destination, or bytes of the payload",
);

const HASH_ON_WORDS: [(&str, HashOn); 3] = [
    ("source", HashOn::Source),
    ("source_address", HashOn::SourceAddress),
    ("destination", HashOn::Destination),
];

pub const SPREAD: Setting<Spread, Optional> = Setting::choice("spread", &SPREADS)
    .optional("\"session\" with replies")
    .meaning(
        "how long a pick holds: for the session of a sender, or for one datagram, which is the default without replies",
    );

const SPREADS: [(&str, Spread); 2] = [("session", Spread::Session), ("datagram", Spread::Datagram)];

pub const REPLIES: Setting<RepliesSetting, Optional> = Setting::custom(
    "replies",
    Form::OneOf(&[Form::Boolean, Form::Choice(&REPLIES_WORDS)]),
    replies,
)
.optional("true; with pick = \"all\" false")
.meaning(
    "whether replies go back to the client, from the address that it sent to; with pick = \"all\", true means \
     \"first\": after each request, only the replies of the upstream that replies first. The default is also \
     false if source = \"keep\" or if all upstreams are groups",
);

const REPLIES_WORDS: [&str; 2] = ["first", "all"];

const SESSION_TIMES: RangeInclusive<Duration> = SECOND..=DAY;

pub const SESSION_IDLE: Setting<Duration> = Setting::duration("session_idle", SESSION_TIMES)
    .default(Duration::from_secs(60))
    .meaning("time without traffic after which a session ends");

pub const SESSION_UNREPLIED: Setting<Duration, Capped<Duration>> =
    Setting::duration("session_unreplied", SESSION_TIMES)
        .capped(Duration::from_secs(5), SESSION_IDLE.key)
        .meaning("time after which a session without a reply ends; at most session_idle")
        .formerly("session_probation");

pub const SESSION_MAX: Setting<u32> = Setting::integer("session_max", 1..=SESSIONS_MAX)
    .default(65_536)
    .meaning("maximum number of sessions, over all workers; a further one replaces one without a reply, or is refused");

pub const SESSION_SHARE: Setting<u32, Optional> =
    Setting::integer("session_share", 1..=SESSIONS_MAX)
        .optional("a quarter of session_max")
        .meaning("maximum number of sessions of one /24 (IPv4) or /56 (IPv6), over all workers");

pub const REPLIES_MAX: Setting<u32, Optional> =
    Setting::integer("replies_max", 1..=SESSION_DATAGRAMS_MAX)
        .optional("any")
        .meaning("number of replies to each request after which a session ends");

pub const REQUESTS_MAX: Setting<u32, Optional> =
    Setting::integer("requests_max", 1..=SESSION_DATAGRAMS_MAX)
        .optional("any")
        .meaning("number of requests after which the client's next one begins a new session");

pub const HEALTH: Setting<(), Optional> = Setting::custom(
    "health",
    Form::Table(HEALTH_SETTINGS),
    |value| Err(value.expected("a table")),
)
.optional("no probes")
.meaning(
    "how upstreams are probed; without it, their replies and errors decide whether they are alive",
);

pub const RESOLVE_INTERVAL: Setting<Duration> =
    Setting::duration_or_zero("resolve_interval", SECOND..=DAY)
        .default(Duration::from_secs(30))
        .meaning("time between two lookups of a name; \"0s\" for never");

pub const RESOLVE_OPTIONAL: Setting<bool> = Setting::boolean("resolve_optional")
    .default(false)
    .meaning("whether to start although a name does not resolve yet");

pub const TTL: Setting<u8, Optional> = reply_settings::TTL
    .meaning("TTL or hop limit to send with; the default ends every forwarding loop");

/// The settings of an upstream that is written as a table.
pub const UPSTREAM_SETTINGS: SettingTable = &[
    &ADDRESS,
    &WEIGHT,
    &SAMPLE,
    &MAX_RATE,
    &UPSTREAM_TTL,
    &DSCP,
    &SOURCE,
    &INTERFACE,
    &LOOP,
    &PROXY,
    &DRAIN,
    &BACKUP,
    &SHADOW,
];

pub const ADDRESS: Setting<Upstream, Required> = Setting::custom(
    "address",
    Form::Text(r#""ADDRESS:PORT" or "NAME:PORT""#),
    value::upstream,
)
.required()
.meaning("address of the upstream");

pub const WEIGHT: Setting<u32> = Setting::integer("weight", 1..=WEIGHT_MAX)
    .default(1)
    .meaning("how often the upstream is picked, compared with the others");

pub const SAMPLE: Setting<Sample, Optional> =
    Setting::custom("sample", Form::Text(r#"share such as "1/100""#), |value| {
        let (taken, each) = value::fraction(SAMPLE_MAX)(value)?;
        Ok(Sample { taken, each })
    })
    .optional("all")
    .meaning("share of the datagrams that the upstream gets");

pub const MAX_RATE: Setting<Rate, Optional> = Setting::rate("max_rate")
    .optional("none")
    .meaning("maximum rate of datagrams to the upstream");

pub const UPSTREAM_TTL: Setting<u8, Optional> = Setting::integer("ttl", 1..=255)
    .optional("the handler's")
    .meaning("TTL or hop limit to send with; for a group, the upper limit");

pub const DSCP: Setting<u8, Optional> = Setting::custom(
    "dscp",
    Form::OneOf(&[
        Form::integer(0..=value::DSCP_MAX as u64),
        Form::Choice(&value::DSCP),
    ]),
    value::dscp,
)
.optional_as("0")
.meaning("differentiated services code point, by number or by IANA's name");

pub const SOURCE: Setting<SendFrom> = Setting::custom(
    "source",
    Form::OneOf(&[
        Form::Choice(&["own", "keep"]),
        Form::Text(r#""ADDRESS" or "ADDRESS:PORT""#),
    ]),
    value::send_from,
)
.default_as(SendFrom::Own, "\"own\"")
.meaning(
    "source address of the datagrams to the upstream: this host's, the sender's (one way; needs CAP_NET_RAW), \
     or the given address of this host",
);

pub const INTERFACE: Setting<InterfaceRef, Optional> = Setting::custom(
    "interface",
    Form::Text("name or address of an interface"),
    value::interface,
)
.optional("as routed")
.meaning("interface that datagrams leave through");

pub const LOOP: Setting<bool> = Setting::boolean("loop")
    .default(true)
    .meaning("for a group: whether receivers on this host get the datagrams too");

pub const PROXY: Setting<bool, Optional> = Setting::choice("proxy", &[("v2", true)])
    .optional("none")
    .meaning("PROXY protocol header before each datagram, with its source and destination");

pub const DRAIN: Setting<bool> = Setting::boolean("drain")
    .default(false)
    .meaning("whether the upstream gets nothing new; existing sessions continue");

pub const BACKUP: Setting<bool> = Setting::boolean("backup")
    .default(false)
    .meaning("whether the upstream gets datagrams only while no other one is alive");

pub const SHADOW: Setting<bool> = Setting::boolean("shadow").default(false).meaning(
    "whether the upstream gets copies of the others' datagrams; its replies are counted and not sent back",
);

/// The settings of `hash_on` that is written as a table.
const PAYLOAD_SETTINGS: SettingTable = &[&OFFSET, &LENGTH];

pub const OFFSET: Setting<u16> = Setting::integer("offset", 0..=PAYLOAD_BYTES_MAX as u64 - 1)
    .default(0)
    .meaning("index of the first byte of the payload that is hashed");

pub const LENGTH: Setting<u16> = Setting::integer("length", 1..=HASHED_BYTES_MAX)
    .default(4)
    .meaning("number of bytes that are hashed");

/// The settings of `health`.
pub const HEALTH_SETTINGS: SettingTable = &[
    &PROBE,
    &SEND,
    &SEND_HEX,
    &EXPECT,
    &EXPECT_HEX,
    &INTERVAL,
    &TIMEOUT,
    &RISE,
    &FALL,
    &FAIL_OPEN,
];

pub const PROBE: Setting<ProbeOver, Optional> =
    Setting::choice("probe", &[("udp", ProbeOver::Udp), ("tcp", ProbeOver::Tcp)])
        .optional("required")
        .meaning(
            "protocol of the probe, which goes to the upstream's own address and port: a datagram that must be \
             replied to, or a connection that must open; a table with only fail_open needs none",
        );

pub const SEND: Setting<Vec<u8>, Optional> =
    Setting::custom("send", Form::Text("text"), probe_text)
        .optional("none")
        .meaning("payload of the probe; needed for udp");

pub const SEND_HEX: Setting<Vec<u8>, Optional> =
    Setting::custom("send_hex", Form::Text("hex digits"), probe_hex)
        .optional("none")
        .meaning("payload of the probe, as hex digits; instead of send");

pub const EXPECT: Setting<Vec<u8>, Optional> =
    Setting::custom("expect", Form::Text("text"), probe_text)
        .optional("any reply")
        .meaning("text that the reply must contain");

pub const EXPECT_HEX: Setting<Vec<u8>, Optional> =
    Setting::custom("expect_hex", Form::Text("hex digits"), probe_hex)
        .optional("any reply")
        .meaning("bytes that the reply must contain, as hex digits; instead of expect");

pub const INTERVAL: Setting<Duration> =
    Setting::duration("interval", Duration::from_millis(100)..=DAY)
        .default(Duration::from_secs(5))
        .meaning("time between two probes of one upstream");

pub const TIMEOUT: Setting<Duration, Capped<Duration>> =
    Setting::duration("timeout", Duration::from_millis(10)..=DAY)
        .capped(Duration::from_secs(2), INTERVAL.key)
        .meaning("time to wait for the reply; at most interval");

pub const RISE: Setting<u32> = Setting::integer("rise", 1..=STREAK_MAX)
    .default(2)
    .meaning("consecutive replies after which a dead upstream counts as alive");

pub const FALL: Setting<u32> = Setting::integer("fall", 1..=STREAK_MAX)
    .default(3)
    .meaning("consecutive failures after which an upstream counts as dead");

pub const FAIL_OPEN: Setting<bool> = Setting::boolean("fail_open")
    .default(true)
    .meaning("whether all upstreams are used when none is alive, instead of none");

/// Parses `hash_on` if it is a word.
fn hash_on(value: Value<'_>) -> Result<HashOn, Mistake> {
    match value.text("") {
        Ok(_) => value::choice(&HASH_ON_WORDS)(value),
        Err(_) => {
            Err(value.expected("source, source_address, destination or a table { offset, length }"))
        }
    }
}

fn replies(value: Value<'_>) -> Result<RepliesSetting, Mistake> {
    let expected = "true, false, \"first\" or \"all\"";
    match value.text(expected) {
        Ok("first") => Ok(RepliesSetting::First),
        Ok("all") => Ok(RepliesSetting::All),
        Ok(text @ ("true" | "false")) => Err(value
            .expected(expected)
            .hint(format!("write {text}, without quotes"))),
        Ok(text) => Err(value
            .expected(expected)
            .maybe_hint(did_you_mean(text, REPLIES_WORDS))),
        Err(_) => match value::boolean(value) {
            Ok(true) => Ok(RepliesSetting::Yes),
            Ok(false) => Ok(RepliesSetting::No),
            Err(_) => Err(value.expected(expected)),
        },
    }
}

fn probe_text(value: Value<'_>) -> Result<Vec<u8>, Mistake> {
    probe_bytes(value::string(value)?.into_bytes())
}

fn probe_hex(value: Value<'_>) -> Result<Vec<u8>, Mistake> {
    probe_bytes(value::hex(value)?)
}

fn probe_bytes(bytes: Vec<u8>) -> Result<Vec<u8>, Mistake> {
    match bytes.len() {
        0 => Err(Mistake::new("is empty").hint("leave it out")),
        len if len > PROBE_BYTES_MAX => Err(Mistake::new(format!(
            "{len} bytes, more than {PROBE_BYTES_MAX}"
        ))),
        _ => Ok(bytes),
    }
}
