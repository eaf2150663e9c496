//! `udispatch drain UPSTREAM` and `udispatch undrain UPSTREAM`: whether the running daemon gives an upstream new sessions.

use clap::Args;

use super::Exit;
use super::remote::{Remote, target};

/// Give an upstream nothing new any more
///
/// Sessions that it has go on to their end, or move on at their next datagram where they can. It stays so until
/// `undrain`, through reloads too.
#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    #[command(flatten)]
    upstream: DrainTarget,
}

/// Give a drained upstream its share again
#[derive(Debug, Args)]
pub(super) struct UndrainArguments {
    #[command(flatten)]
    upstream: DrainTarget,
}

#[derive(Debug, Args)]
struct DrainTarget {
    #[command(flatten)]
    remote: Remote,
    /// HANDLER/ADDRESS:PORT as `udispatch upstreams` shows it, or ADDRESS:PORT where only one handler has that
    upstream: String,
}

pub(super) fn drain(arguments: &DrainArguments) -> Exit {
    arguments.upstream.order("/drain")
}

pub(super) fn undrain(arguments: &UndrainArguments) -> Exit {
    arguments.upstream.order("/undrain")
}

impl DrainTarget {
    fn order(&self, path: &str) -> Exit {
        self.remote
            .order(&target(path, &[("upstream", Some(&self.upstream))]))
    }
}
