//! The keys of a `forward` handler, of an upstream's table and of `health`: their forms, defaults and meanings.

use super::{Choice, HashOn, Spread};
use crate::config::kind::{Form, Setting};
use crate::config::{setting, value};
use crate::dispatch::pool::Pick;
use crate::handlers::reply_settings::{ALLOW_LOW_PORTS, ANSWER_GROUPS};

/// Largest denominator of a sample, in datagrams.
pub const SAMPLE_MAX: u32 = 1_000_000;
/// Highest weight of an upstream.
pub const WEIGHT_MAX: u32 = 1_000;
/// Most sessions of one handler, over all workers.
pub const SESSIONS_MAX: u32 = 1_048_576;
/// Highest value of `requests_max` and `replies_max`, in datagrams.
pub const COUNT_MAX: u32 = 1_000_000;
/// Index of the last possible byte of a UDP payload over IPv4.
pub const OFFSET_MAX: u16 = 65_506;
/// Most bytes of the payload that are hashed.
pub const LENGTH_MAX: u16 = 1_024;
/// Most bytes that a probe sends or expects.
pub const PROBE_BYTES_MAX: usize = 1_024;
/// Most consecutive probes that `rise` and `fall` may require.
pub const STREAK_MAX: u32 = 100;

/// Values of `pick`.
pub const PICKS: [(&str, Choice); 6] = [
    ("all", Choice::All),
    ("round_robin", Choice::One(Pick::RoundRobin)),
    ("random", Choice::One(Pick::Random)),
    ("hash", Choice::One(Pick::Hash)),
    ("least_sessions", Choice::One(Pick::LeastSessions)),
    ("first_alive", Choice::One(Pick::FirstAlive)),
];

/// Values of `hash_on` that are words.
pub const HASH_ON: [(&str, HashOn); 3] = [
    ("source", HashOn::Source),
    ("source_address", HashOn::SourceAddress),
    ("destination", HashOn::Destination),
];

/// Values of `spread`.
pub const SPREADS: [(&str, Spread); 2] =
    [("session", Spread::Session), ("datagram", Spread::Datagram)];

/// Keys of the handler.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "upstreams",
        form: Form::List(&Form::OneOf(&[
            Form::Text(r#""ADDRESS:PORT" or "NAME:PORT""#),
            Form::Table(UPSTREAM),
        ])),
        default: "required",
        meaning: "where to",
    },
    Setting {
        key: "pick",
        form: Form::Choice(&setting::words(&PICKS)),
        default: r#""round_robin""#,
        meaning: "which upstreams get a datagram: each of them, the next one, any one, always the same one for the same \
                  hash_on, the one with the fewest sessions for its weight, or the first in the file that is alive",
    },
    Setting {
        key: "hash_on",
        form: Form::OneOf(&[
            Form::Choice(&setting::words(&HASH_ON)),
            Form::Table(PAYLOAD),
        ]),
        default: r#""source""#,
        meaning: "what decides under pick = \"hash\" (Maglev: several machines with the same upstreams pick alike): the \
                  sender's address and port, its address, where it was sent to, or bytes of the payload",
    },
    Setting {
        key: "spread",
        form: Form::Choice(&setting::words(&SPREADS)),
        default: "\"session\" with replies",
        meaning: "how long a choice holds: as long as the session of a sender, or for one datagram, as it is without \
                  replies",
    },
    Setting {
        key: "replies",
        form: Form::OneOf(&[Form::Boolean, Form::Choice(&["first", "all"])]),
        default: "true; with pick = \"all\" false",
        meaning: "whether replies go back to the client, from the address that was asked; with pick = \"all\" true is \
                  \"first\": of each request, those of the upstream that replies first. Also false by default where \
                  source = \"keep\" or all upstreams are groups",
    },
    Setting {
        key: "session_idle",
        form: SESSION_TIME,
        default: r#""60s""#,
        meaning: "a session without traffic ends after this",
    },
    Setting {
        key: "session_unreplied",
        form: SESSION_TIME,
        default: r#""5s""#,
        meaning: "one that never got an answer after this; at most session_idle",
    },
    Setting {
        key: "session_max",
        form: Form::Integer {
            min: 1,
            max: SESSIONS_MAX as u64,
        },
        default: "65536",
        meaning: "sessions at most, over all workers; new ones beyond take the place of unanswered ones, or are refused",
    },
    Setting {
        key: "session_share",
        form: Form::Integer {
            min: 1,
            max: SESSIONS_MAX as u64,
        },
        default: "a quarter of session_max",
        meaning: "sessions of one /24 (IPv4) or /56 (IPv6) at most",
    },
    Setting {
        key: "replies_max",
        form: Form::Integer {
            min: 1,
            max: COUNT_MAX as u64,
        },
        default: "any",
        meaning: "a session ends when each of its requests has so many replies",
    },
    Setting {
        key: "requests_max",
        form: Form::Integer {
            min: 1,
            max: COUNT_MAX as u64,
        },
        default: "any",
        meaning: "after so many requests the sender's next one begins a new session",
    },
    Setting {
        key: "health",
        form: Form::Table(HEALTH),
        default: "no probes",
        meaning: "how upstreams are asked whether they live; otherwise they are judged by what comes back",
    },
    Setting {
        key: "resolve_interval",
        form: Form::OneOf(&[
            Form::Choice(&["0s"]),
            Form::Duration {
                min: "1s",
                max: "1d",
            },
        ]),
        default: r#""30s""#,
        meaning: "how often names are resolved again; \"0s\": never",
    },
    Setting {
        key: "resolve_optional",
        form: Form::Boolean,
        default: "false",
        meaning: "start although a name does not resolve yet",
    },
    ALLOW_LOW_PORTS,
    ANSWER_GROUPS,
    Setting {
        key: "ttl",
        form: TTL,
        default: "received less one",
        meaning: "TTL or hop limit to send with; the default lets every forwarding loop die",
    },
];

const SESSION_TIME: Form = Form::Duration {
    min: "1s",
    max: "1d",
};
const TTL: Form = Form::Integer { min: 1, max: 255 };

/// Keys of an upstream that is written as a table.
pub const UPSTREAM: &[Setting] = &[
    Setting {
        key: "address",
        form: Form::Text(r#""ADDRESS:PORT" or "NAME:PORT""#),
        default: "required",
        meaning: "where it is",
    },
    Setting {
        key: "weight",
        form: Form::Integer {
            min: 1,
            max: WEIGHT_MAX as u64,
        },
        default: "1",
        meaning: "how much it is picked, compared with the others",
    },
    Setting {
        key: "sample",
        form: Form::Text(r#"share such as "1/100""#),
        default: "all",
        meaning: "gets so many of so many datagrams",
    },
    Setting {
        key: "max_rate",
        form: Form::Rate,
        default: "none",
        meaning: "gets at most so many datagrams",
    },
    Setting {
        key: "ttl",
        form: TTL,
        default: "the handler's",
        meaning: "TTL or hop limit to send with; to a group, the most that it may be",
    },
    Setting {
        key: "dscp",
        form: Form::OneOf(&[
            Form::Integer {
                min: 0,
                max: value::DSCP_MAX as u64,
            },
            Form::Choice(&setting::words(&value::DSCP)),
        ]),
        default: "0",
        meaning: "differentiated services code point, by number or by IANA's name",
    },
    Setting {
        key: "source",
        form: Form::OneOf(&[
            Form::Choice(&["own", "keep"]),
            Form::Text(r#""ADDRESS" or "ADDRESS:PORT""#),
        ]),
        default: r#""own""#,
        meaning: "the source that it sees: this host's, the sender's own, as if the datagram had come straight from it \
                  (one way; needs CAP_NET_RAW), or this one",
    },
    Setting {
        key: "interface",
        form: Form::Text("name or address of an interface"),
        default: "as routed",
        meaning: "the interface that datagrams leave through",
    },
    Setting {
        key: "loop",
        form: Form::Boolean,
        default: "true",
        meaning: "of a group: whether receivers on this host hear it too",
    },
    Setting {
        key: "proxy",
        form: Form::Choice(&["v2"]),
        default: "none",
        meaning: "a PROXY protocol header before each datagram tells its source and destination",
    },
    Setting {
        key: "drain",
        form: Form::Boolean,
        default: "false",
        meaning: "gets nothing new; sessions go on",
    },
    Setting {
        key: "backup",
        form: Form::Boolean,
        default: "false",
        meaning: "gets something only while no other upstream is alive",
    },
    Setting {
        key: "shadow",
        form: Form::Boolean,
        default: "false",
        meaning: "gets a copy of what the others get; its replies are counted, and never sent back",
    },
];

/// Keys of `hash_on` that is written as a table.
pub const PAYLOAD: &[Setting] = &[
    Setting {
        key: "offset",
        form: Form::Integer {
            min: 0,
            max: OFFSET_MAX as u64,
        },
        default: "0",
        meaning: "first byte of the payload that decides",
    },
    Setting {
        key: "length",
        form: Form::Integer {
            min: 1,
            max: LENGTH_MAX as u64,
        },
        default: "4",
        meaning: "how many bytes",
    },
];

/// Keys of `health`.
pub const HEALTH: &[Setting] = &[
    Setting {
        key: "probe",
        form: Form::Choice(&["udp", "tcp"]),
        default: "needed",
        meaning: "a datagram that is answered, or a connection that opens, to the upstream's own address and port; only \
                  fail_open can do without",
    },
    Setting {
        key: "send",
        form: Form::Text("text"),
        default: "none",
        meaning: "what is sent; over udp it is needed",
    },
    Setting {
        key: "send_hex",
        form: Form::Text("hex digits"),
        default: "none",
        meaning: "the same, as bytes",
    },
    Setting {
        key: "expect",
        form: Form::Text("text"),
        default: "any answer",
        meaning: "what the answer must contain",
    },
    Setting {
        key: "expect_hex",
        form: Form::Text("hex digits"),
        default: "any answer",
        meaning: "the same, as bytes",
    },
    Setting {
        key: "interval",
        form: Form::Duration {
            min: "100ms",
            max: "1d",
        },
        default: r#""5s""#,
        meaning: "time between two probes of one upstream",
    },
    Setting {
        key: "timeout",
        form: Form::Duration {
            min: "10ms",
            max: "1d",
        },
        default: r#""2s""#,
        meaning: "how long to wait for the answer; at most interval",
    },
    Setting {
        key: "rise",
        form: STREAK,
        default: "2",
        meaning: "replies in a row that make a dead upstream alive",
    },
    Setting {
        key: "fall",
        form: STREAK,
        default: "3",
        meaning: "failures in a row that make it dead",
    },
    Setting {
        key: "fail_open",
        form: Form::Boolean,
        default: "true",
        meaning: "use all upstreams when none seems alive, rather than none",
    },
];

const STREAK: Form = Form::Integer {
    min: 1,
    max: STREAK_MAX as u64,
};
