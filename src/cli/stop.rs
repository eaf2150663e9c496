//! `udispatch stop`: the running daemon handles what its sockets hold, and ends.

use clap::Args;

use super::Exit;
use super::remote::Remote;

/// Let the running daemon end, as on SIGTERM
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.remote.order("/stop")
}
