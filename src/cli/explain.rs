//! `udispatch explain FILE --to ADDR:PORT`: shows which route gets a datagram, and what happens to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::remote::{Remote, target};
use super::{Exit, output};
use crate::config::diagnostics::printable;
use crate::config::{Config, Kind};
use crate::plan::explain::{Imagined, Question, TTL, explain};
use crate::plan::host::Host;
use crate::plan::{Plan, worker_count};

/// Largest size in bytes of a request target, below the daemon's limit for the head of a request. An escaped byte takes
/// three.
const TARGET_BYTES_MAX: usize = 7_000;

/// Explain which route a datagram takes, and why
///
/// Shows which socket the kernel chooses, which route matches and why others do not, what each handler does, which
/// upstream this sender gets, and which address a reply leaves from. Nothing is bound, received or sent: the
/// explanation is derived from the file and this host, by the code that the daemon runs. With --live, the running daemon
/// explains. The explanation then includes the health of the upstreams, the sessions of the sender, and the datagrams that
/// the route has received.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(required_unless_present = "live", conflicts_with = "live")]
    file: Option<PathBuf>,
    /// Send the question to the running daemon instead of reading a file
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    remote: Remote,
    // Not a doc comment, in which the brackets would be a link.
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    #[arg(help = "The destination of the datagram: 127.0.0.1:1234 or [::1]:1234")]
    to: SocketAddr,
    /// The source of the datagram [default: port 40000 of this host]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    from: Option<SocketAddr>,
    /// The interface on which the datagram arrives, by name or address [default: the one by which a reply would leave]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// The TTL or hop limit with which the datagram arrives
    #[arg(long, value_name = "N", default_value_t = TTL, value_parser = clap::value_parser!(u8).range(1..))]
    ttl: u8,
    /// The payload of the datagram
    #[arg(long, value_name = "TEXT", default_value = "hello, world")]
    payload: String,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let Some(file) = &arguments.file else {
        return explain_live(&arguments);
    };
    let config = match Config::load(file, kinds) {
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
            output::print_error(&problems.render(output::colours()));
            return Exit::Configuration;
        }
    };
    let Arguments {
        to,
        from,
        interface,
        ttl,
        payload,
        ..
    } = arguments;
    let imagined = Imagined {
        to,
        from,
        interface,
        ttl,
        payload: payload.into_bytes(),
    };
    let question = match Question::new(imagined, &host) {
        Ok(question) => question,
        Err(message) => {
            output::print_error(&format!("error: {message}"));
            return Exit::Usage;
        }
    };
    match explain(&config, &plan, &host, &question, &[]) {
        Ok(explanation) => output::print(&explanation.text),
        Err(error) => fail(&error.to_string()),
    }
}

/// Sends the query to the running daemon and prints the response.
fn explain_live(arguments: &Arguments) -> Exit {
    let Arguments {
        to,
        from,
        interface,
        ttl,
        payload,
        remote,
        ..
    } = arguments;
    let to = to.to_string();
    let from = from.map(|from| from.to_string());
    let ttl = ttl.to_string();
    let parameters = [
        ("to", Some(to.as_str())),
        ("from", from.as_deref()),
        ("interface", interface.as_deref()),
        ("ttl", Some(ttl.as_str())),
        ("payload", Some(payload)),
    ];
    let target = target("/explain", &parameters);
    if target.len() > TARGET_BYTES_MAX {
        output::print_error(
            "error: --payload is too long to be sent to the daemon; a shorter one takes the same route",
        );
        return Exit::Usage;
    }
    match remote.get(&target) {
        Ok(response) => output::print(&printable(&response.text())),
        Err(exit) => exit,
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write an address and a port: 127.0.0.1:1234 or [::1]:1234".to_owned())?;
    match address {
        _ if address.port() == 0 => Err("port 0 is not valid here".to_owned()),
        _ if address.ip().is_unspecified() => {
            Err("a datagram cannot have this address; write an address of this host".to_owned())
        }
        address => Ok(address),
    }
}

fn fail(message: &str) -> Exit {
    output::print_error(&format!("error: {message}"));
    Exit::Failure
}
