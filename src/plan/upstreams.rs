//! All upstreams of a configuration, numbered, and where each of them is on this machine. Names are looked up when the plan
//! is made, so that the search for loops and the sockets speak of the same addresses.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use crate::config::Config;
use crate::config::upstream::{Upstream, UpstreamHost};
use crate::dispatch::handler::HandlerId;
use crate::dispatch::id::UpstreamId;
use crate::number;
use crate::plan::host::Host;

/// The upstreams of all handlers, by number.
#[derive(Debug, Default)]
pub struct Upstreams {
    all: Vec<Located>,
    /// The number of each handler's first one.
    first: Vec<u32>,
}

/// One upstream, and where it is.
#[derive(Debug, Clone)]
pub struct Located {
    /// Whose it is.
    pub handler: HandlerId,
    /// What the file says of it.
    pub upstream: Upstream,
    /// Its address, or why it has none, as a sentence.
    pub address: Result<SocketAddr, String>,
    /// Index of the interface that datagrams leave through; 0: the kernel's choice.
    pub interface: u32,
    /// Whether the daemon may start without an address.
    pub is_optional: bool,
}

impl Upstreams {
    /// Looks all of them up. May take as long as the resolver does.
    pub fn look_up(config: &Config, host: &Host, known: &HashMap<String, SocketAddr>) -> Upstreams {
        let mut upstreams = Upstreams::default();
        // The same name in two handlers is asked for once.
        let known = known
            .iter()
            .map(|(name, address)| (name.clone(), Ok(*address)));
        let mut known: HashMap<String, Result<SocketAddr, String>> = known.collect();
        for (index, handler) in config.handlers.iter().enumerate() {
            upstreams.first.push(number::to_u32(upstreams.all.len()));
            // What only serves sessions that are there already must not keep anything else from starting.
            let is_optional =
                handler.is_retired || handler.spec.monitor_settings().resolve_optional;
            for upstream in handler.spec.upstreams() {
                let look_up = || resolve(upstream, host);
                let address = known
                    .entry(upstream.to_string())
                    .or_insert_with(look_up)
                    .clone();
                let (address, interface) = leave_through(upstream, address, host);
                let (handler, upstream) = (HandlerId::new(index), upstream.clone());
                upstreams.all.push(Located {
                    handler,
                    upstream,
                    address,
                    interface,
                    is_optional,
                });
            }
        }
        upstreams
    }

    /// The number of a handler's upstream.
    pub fn id(&self, handler: HandlerId, place: usize) -> UpstreamId {
        UpstreamId::new(self.first[handler.index()] as usize + place)
    }

    /// One of them.
    pub fn get(&self, id: UpstreamId) -> &Located {
        &self.all[id.index()]
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (UpstreamId, &Located)> {
        self.all
            .iter()
            .enumerate()
            .map(|(id, located)| (UpstreamId::new(id), located))
    }

    /// Those of one handler.
    pub fn of(&self, handler: HandlerId) -> impl Iterator<Item = &Located> {
        self.all
            .iter()
            .filter(move |located| located.handler == handler)
    }

    /// Why some of them cannot be reached, a sentence each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let mut told: Vec<&str> = self
            .all
            .iter()
            .filter_map(|one| one.address.as_ref().err())
            .map(String::as_str)
            .collect();
        told.sort_unstable();
        told.dedup();
        told.into_iter()
    }
}

/// The interface that the file names for the way there, by index.
fn leave_through(
    upstream: &Upstream,
    address: Result<SocketAddr, String>,
    host: &Host,
) -> (Result<SocketAddr, String>, u32) {
    let Some(name) = &upstream.egress.interface else {
        return (address, 0);
    };
    match host.interface(name) {
        Some(index) => (address, index),
        None => (
            Err(format!(
                "upstream {upstream}: this host has no interface `{name}`; it has: {}",
                host.list()
            )),
            0,
        ),
    }
}

fn resolve(upstream: &Upstream, host: &Host) -> Result<SocketAddr, String> {
    match &upstream.host {
        UpstreamHost::Address(address) => Ok(*address),
        UpstreamHost::Scoped { address, interface } => match host.interface(interface) {
            Some(index) => Ok(SocketAddrV6::new(*address, upstream.port, 0, index).into()),
            None => Err(format!(
                "upstream {upstream}: this host has no interface `{interface}`; it has: {}",
                host.list()
            )),
        },
        UpstreamHost::Name(name) => {
            let found = addresses(name, upstream.port);
            found.map(|found| found[0]).map_err(|why| {
                format!("upstream {upstream}: the name does not resolve ({why}); check it, or write an address")
            })
        }
    }
}

/// The addresses of a name, at least one, IPv4 first, so that the choice does not depend on the resolver's mood. No groups,
/// which only an address can be, and no unspecified address, by which some resolvers mean that a name is blocked.
pub fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
    found.retain(|address| !address.ip().is_multicast() && !address.ip().is_unspecified());
    found.sort_by_key(|address| matches!(address.ip(), IpAddr::V6(_)));
    match found.is_empty() {
        true => Err(io::Error::other("it has no address of a host")),
        false => Ok(found),
    }
}
