//! The kinds of handlers, one file each, and the list of them. The parser, "did you mean", `explain`, `udispatch
//! handlers` and the README's table all read [`KINDS`]. A new kind is a new file and an entry here.

use crate::config::kind::Kind;

pub mod drop;
pub mod echo;
pub mod escape;
pub mod forward;
pub mod print;
pub mod reply;
mod reply_settings;

/// Every kind, in the order in which the documentation presents them.
pub const KINDS: &[Kind] = &[
    echo::KIND,
    reply::KIND,
    print::KIND,
    drop::KIND,
    forward::KIND,
];
