//! `udispatch drain UPSTREAM`: the running daemon gives an upstream no new sessions.

use clap::Args;

use super::Exit;
use super::remote::{Remote, target};

/// Give an upstream nothing new any more
///
/// Sessions that it has go on to their end, or move on at their next datagram where they can. It stays so until
/// `undrain`, through reloads too.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// HANDLER/ADDRESS:PORT as `udispatch upstreams` shows it, or ADDRESS:PORT where only one handler has that
    upstream: String,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.remote.order(&target(
        "/drain",
        &[("upstream", Some(&arguments.upstream))],
    ))
}
