//! `udispatch stop`: makes the running daemon handle the datagrams in its socket buffers, and exit.

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
    arguments.remote.send_command("/stop")
}
