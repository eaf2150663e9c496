//! `udispatch undrain UPSTREAM`: lets the running daemon use a drained upstream again.

use clap::Args;

use super::Exit;
use super::remote::{Remote, target};

/// Give a drained upstream its share again
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// HANDLER/ADDRESS:PORT as `udispatch upstreams` shows it, or ADDRESS:PORT where only one handler has that
    upstream: String,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.remote.order(&target(
        "/undrain",
        &[("upstream", Some(&arguments.upstream))],
    ))
}
