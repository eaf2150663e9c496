//! `udispatch stop`: lets the running daemon handle what its sockets hold, and exit.

use clap::Args;

use super::Exit;
use super::remote::Remote;

/// Stop the running daemon, as SIGTERM does
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.remote.order("/stop")
}
