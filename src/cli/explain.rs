//! `udispatch explain FILE --to ADDR:PORT`: which route gets a datagram, and what happens to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{Exit, output};
use crate::config::{Config, Kind};

/// Tell which route a datagram takes, and why
///
/// Nothing is received or sent: the file alone is asked, with the same code that the daemon runs.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
    /// Where the datagram is sent to: 127.0.0.1:1234 or [::1]:1234
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Who sends it
    #[arg(long, value_name = "ADDR:PORT")]
    from: Option<SocketAddr>,
    /// The interface that it arrives on
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let Arguments {
        file,
        to: _,
        from: _,
        interface: _,
    } = arguments;
    match Config::load(&file, kinds) {
        Err(error) => output::refuse(&error),
        Ok(_) => {
            output::complain("error: `explain` is not built yet");
            Exit::Failure
        }
    }
}
