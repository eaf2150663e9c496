//! The settings that all handlers have that send back, and how they are read. The rules behind them are in
//! `dispatch/reply_policy.rs`.

use crate::config::kind::{Form, Setting};
use crate::config::section::Section;
use crate::config::value;
use crate::dispatch::reply_policy::ReplyPolicy;

/// `allow_low_ports`.
pub const ALLOW_LOW_PORTS: Setting = Setting {
    key: "allow_low_ports",
    form: Form::Boolean,
    default: "false",
    meaning: "answer source ports below 1024 too: services, which might answer the answer",
};

/// `answer_groups`.
pub const ANSWER_GROUPS: Setting = Setting {
    key: "answer_groups",
    form: Form::Boolean,
    default: "false",
    meaning: "answer what was sent to a group or a broadcast address",
};

/// `ttl`.
pub const TTL: Setting = Setting {
    key: "ttl",
    form: Form::Integer { min: 1, max: 255 },
    default: "received less one",
    meaning: "TTL or hop limit of the answer; the default lets every loop die, a number is for long ways back",
};

/// Reads the three.
pub fn read(section: &mut Section<'_>) -> ReplyPolicy {
    ReplyPolicy {
        allow_low_ports: section.or(ALLOW_LOW_PORTS.key, value::boolean, false),
        answer_groups: section.or(ANSWER_GROUPS.key, value::boolean, false),
        ttl: section.optional(TTL.key, value::integer(1..=255)),
    }
}
