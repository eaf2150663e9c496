//! The addresses of upstreams. Names are looked up once, when the plan is made, so that the search for loops and the sockets
//! speak of the same addresses.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use super::host::Host;
use crate::config::Config;
use crate::config::kind::{BuildError, Host as UpstreamHost, Upstream};

/// What each upstream of a configuration stands for on this machine, or why it stands for nothing.
#[derive(Debug, Default)]
pub struct Upstreams(HashMap<String, Result<SocketAddr, String>>);

impl Upstreams {
    /// Looks all of them up. May take as long as the resolver does.
    pub fn look_up(config: &Config, host: &Host) -> Upstreams {
        let mut known = HashMap::new();
        for upstream in config.handlers.iter().flat_map(|handler| handler.recipe.upstreams()) {
            known.entry(upstream.to_string()).or_insert_with(|| resolve(upstream, host));
        }
        Upstreams(known)
    }

    /// The address of an upstream of the configuration.
    pub fn address(&self, upstream: &Upstream) -> Result<SocketAddr, BuildError> {
        match self.0.get(&upstream.to_string()) {
            Some(Ok(address)) => Ok(*address),
            Some(Err(why)) => Err(BuildError(why.clone())),
            None => Err(BuildError(format!("upstream {upstream}: its recipe did not tell of it"))),
        }
    }

    /// Why some of them cannot be reached, a sentence each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(|known| known.as_ref().err().map(String::as_str))
    }
}

fn resolve(upstream: &Upstream, host: &Host) -> Result<SocketAddr, String> {
    match &upstream.host {
        UpstreamHost::Address(address) => Ok(*address),
        UpstreamHost::Scoped { address, interface } => match host.interface(interface) {
            Some(index) => Ok(SocketAddrV6::new(*address, upstream.port, 0, index).into()),
            None => {
                Err(format!("upstream {upstream}: this host has no interface `{interface}`; it has: {}", host.list()))
            }
        },
        UpstreamHost::Name(name) => {
            let found = first_address(name, upstream.port);
            found.map_err(|why| {
                format!("upstream {upstream}: the name does not resolve ({why}); check it, or write an address")
            })
        }
    }
}

/// IPv4 first, so that the choice does not depend on the resolver's mood.
fn first_address(name: &str, port: u16) -> io::Result<SocketAddr> {
    let mut found: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
    found.sort_by_key(|address| matches!(address.ip(), IpAddr::V6(_)));
    found.first().copied().ok_or_else(|| io::Error::other("it has no address"))
}
