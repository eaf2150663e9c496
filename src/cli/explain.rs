//! `udispatch explain FILE --to ADDR:PORT`: which route gets a datagram, and what happens to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::{Exit, output};
use crate::config::limits::PAYLOAD_BYTES_MAX;
use crate::config::test::SENDER_PORT;
use crate::config::{Config, Kind};
use crate::control::explain::{Question, explain};
use crate::control::host::Host;
use crate::control::plan::{Plan, worker_count};

/// Tell which route a datagram takes, and why
///
/// Says which socket the kernel will choose, which route and why not the next ones, what each handler does, which
/// upstream this sender gets, and which address an answer leaves from. Nothing is bound, received or sent: the file and
/// this host are asked, with the same code that the daemon runs.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
    /// Where the datagram is sent to: 127.0.0.1:1234 or [::1]:1234
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    to: SocketAddr,
    /// Who sends it [default: port 40000 of this host]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    from: Option<SocketAddr>,
    /// The interface that it arrives on, by name or address [default: where an answer would leave]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// What it holds
    #[arg(long, value_name = "TEXT", default_value = "hello, world")]
    payload: String,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let config = match Config::load(&arguments.file, kinds) {
        Ok(config) => config,
        Err(error) => return output::refuse(&error),
    };
    let host = match Host::this() {
        Ok(host) => host,
        Err(error) => return fail(&format!("cannot list the interfaces of this host: {error}")),
    };
    let plan = match Plan::new(&config, &host, worker_count(&config)) {
        Ok(plan) => plan,
        Err(problems) => {
            output::complain(&problems.render(output::colours()));
            return Exit::Configuration;
        }
    };
    let question = match question(arguments, &host) {
        Ok(question) => question,
        Err(message) => {
            output::complain(&format!("error: {message}"));
            return Exit::Usage;
        }
    };
    match explain(&config, &plan, &host, &question) {
        Ok(text) => output::print(&text),
        Err(error) => fail(&error.to_string()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address and a port: 127.0.0.1:1234 or [::1]:1234".to_owned())?;
    match address {
        _ if address.port() == 0 => Err("port 0 is no port".to_owned()),
        _ if address.ip().is_unspecified() => Err("no datagram has this address; write one of this host's".to_owned()),
        address => Ok(address),
    }
}

fn fail(message: &str) -> Exit {
    output::complain(&format!("error: {message}"));
    Exit::Failure
}

fn question(arguments: Arguments, host: &Host) -> Result<Question, String> {
    let Arguments { to, from, interface, payload, .. } = arguments;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("--payload: a datagram holds at most {PAYLOAD_BYTES_MAX} bytes"));
    }
    let from = from.unwrap_or_else(|| SocketAddr::new(likely_sender(to.ip(), host), SENDER_PORT));
    if from.is_ipv4() != to.is_ipv4() {
        return Err(format!("--from {from} and --to {to} are of different families"));
    }
    let interface = match interface {
        Some(name) => Some(
            host.interface(&name)
                .ok_or_else(|| format!("--interface: this host has no interface {name:?}; it has: {}", host.list()))?,
        ),
        None => None,
    };
    Ok(Question { to, from, interface, payload: payload.into_bytes() })
}

/// This host itself: as it would send there, and loopback where it cannot.
fn likely_sender(to: IpAddr, host: &Host) -> IpAddr {
    let loopback = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let source = (host.look_up)(to).ok().and_then(|answer| answer.source);
    source.filter(|source| !to.is_loopback() && !source.is_unspecified()).unwrap_or(loopback)
}
