//! `udispatch drain UPSTREAM` and `udispatch undrain UPSTREAM`: set whether the running daemon gives
//! an upstream new sessions.

use clap::Args;

use super::Exit;
use super::remote::{Remote, target};

/// Give an upstream no new traffic
///
/// Its sessions continue to their end, or move to another upstream at their next datagram if they can. The upstream
/// stays drained until `undrain`, also across reloads and takeovers.
#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    #[command(flatten)]
    upstream: DrainTarget,
}

/// Give a drained upstream its share of new traffic again
#[derive(Debug, Args)]
pub(super) struct UndrainArguments {
    #[command(flatten)]
    upstream: DrainTarget,
}

#[derive(Debug, Args)]
struct DrainTarget {
    #[command(flatten)]
    remote: Remote,
    /// The upstream: HANDLER/ADDRESS:PORT as `udispatch upstreams` shows it, or ADDRESS:PORT if only one handler has it
    upstream: String,
}

pub(super) fn drain(arguments: &DrainArguments) -> Exit {
    arguments.upstream.send("/drain")
}

pub(super) fn undrain(arguments: &UndrainArguments) -> Exit {
    arguments.upstream.send("/undrain")
}

impl DrainTarget {
    fn send(&self, path: &str) -> Exit {
        self.remote
            .send_command(&target(path, &[("upstream", Some(&self.upstream))]))
    }
}
