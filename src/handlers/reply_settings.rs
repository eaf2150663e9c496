//! The settings of all handlers that send replies. `dispatch/reply_policy.rs` implements the rules.

use crate::config::kind::{Optional, Setting};
use crate::config::section::Section;
use crate::dispatch::reply_policy::ReplyPolicy;

/// The setting `allow_low_ports`: whether source ports below 1024 get replies.
pub const ALLOW_LOW_PORTS: Setting<bool> = Setting::boolean("allow_low_ports")
    .default(false)
    .meaning("whether source ports below 1024 get replies; services use them, and might reply to the reply");

/// The setting `reply_to_groups`: whether datagrams to a group or a broadcast address get replies.
pub const REPLY_TO_GROUPS: Setting<bool> = Setting::boolean("reply_to_groups")
    .default(false)
    .meaning("whether datagrams to a group or a broadcast address get replies")
    .formerly("answer_groups");

/// The setting `ttl`: the TTL or hop limit of replies.
pub const TTL: Setting<u8, Optional> = Setting::integer("ttl", 1..=255)
    .optional("received less one")
    .meaning("TTL or hop limit of replies; the default ends every loop, a number serves long return paths");

/// Reads the three settings of a handler's section.
pub fn read(section: &mut Section<'_>) -> ReplyPolicy {
    ReplyPolicy {
        allow_low_ports: section.get(&ALLOW_LOW_PORTS),
        reply_to_groups: section.get(&REPLY_TO_GROUPS),
        ttl: section.find(&TTL),
    }
}
