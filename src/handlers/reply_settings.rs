//! The settings of all handlers that send replies, and their parser. `dispatch/reply_policy.rs` implements the rules.

use crate::config::kind::{Form, Setting};
use crate::config::section::Section;
use crate::config::value;
use crate::dispatch::reply_policy::ReplyPolicy;

/// Setting `allow_low_ports`: whether source ports below 1024 get replies.
pub const ALLOW_LOW_PORTS: Setting = Setting {
    key: "allow_low_ports",
    form: Form::Boolean,
    default: "false",
    meaning: "answer source ports below 1024 too: services, which might answer the answer",
};

/// Setting `answer_groups`: whether datagrams to a group or a broadcast address get replies.
pub const ANSWER_GROUPS: Setting = Setting {
    key: "answer_groups",
    form: Form::Boolean,
    default: "false",
    meaning: "answer what was sent to a group or a broadcast address",
};

/// Setting `ttl`: the TTL or hop limit of replies.
pub const TTL: Setting = Setting {
    key: "ttl",
    form: Form::Integer { min: 1, max: 255 },
    default: "received less one",
    meaning: "TTL or hop limit of the answer; the default lets every loop die, a number is for long ways back",
};

/// Reads the three settings of a handler's section.
pub fn read(section: &mut Section<'_>) -> ReplyPolicy {
    ReplyPolicy {
        allow_low_ports: section.or(ALLOW_LOW_PORTS.key, value::boolean, false),
        answer_groups: section.or(ANSWER_GROUPS.key, value::boolean, false),
        ttl: section.optional(TTL.key, value::integer(1..=255)),
    }
}
