//! The upstreams of a configuration with their numbers and their addresses on this machine. Names are resolved when
//! the plan is made, so that the loop search and the sockets use the same addresses.

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
    all: Vec<PlannedUpstream>,
    /// The number of each handler's first upstream.
    first: Vec<u32>,
}

/// An upstream of the file on this machine, with its address.
#[derive(Debug, Clone)]
pub struct PlannedUpstream {
    /// The handler that the upstream belongs to.
    pub handler: HandlerId,
    /// The definition of the upstream in the file.
    pub upstream: Upstream,
    /// The address of the upstream, or a sentence that explains why it has none.
    pub address: Result<SocketAddr, String>,
    /// The index of the interface that datagrams are sent through; 0 for the kernel's choice.
    pub interface: u32,
    /// Whether the daemon may start although the upstream has no address.
    pub is_optional: bool,
}

impl Upstreams {
    /// Looks up the addresses of all upstreams, except those in `known`. This can block as long as the resolver does.
    pub fn look_up(config: &Config, host: &Host, known: &HashMap<String, SocketAddr>) -> Upstreams {
        let mut upstreams = Upstreams::default();
        // A name that two handlers use is resolved once.
        let known = known
            .iter()
            .map(|(name, address)| (name.clone(), Ok(*address)));
        let mut known: HashMap<String, Result<SocketAddr, String>> = known.collect();
        for (index, handler) in config.handlers.iter().enumerate() {
            upstreams.first.push(number::to_u32(upstreams.all.len()));
            // A retired handler only serves existing sessions, so it must not prevent anything else from starting.
            let is_optional =
                handler.is_retired || handler.spec.monitor_settings().resolve_optional;
            for upstream in handler.spec.upstreams() {
                let look_up = || resolve(upstream, host);
                let address = known
                    .entry(upstream.to_string())
                    .or_insert_with(look_up)
                    .clone();
                let (address, interface) = with_egress_interface(upstream, address, host);
                let (handler, upstream) = (HandlerId::new(index), upstream.clone());
                upstreams.all.push(PlannedUpstream {
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

    /// Returns the number of the upstream at a place of a handler.
    ///
    /// # Panics
    ///
    /// Panics if `handler` is not a handler of the plan's configuration.
    pub fn id(&self, handler: HandlerId, place: usize) -> UpstreamId {
        UpstreamId::new(self.first[handler.index()] as usize + place)
    }

    /// Returns the upstream with this number.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn get(&self, id: UpstreamId) -> &PlannedUpstream {
        &self.all[id.index()]
    }

    /// Returns the number of upstreams.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Returns all upstreams, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (UpstreamId, &PlannedUpstream)> {
        self.all
            .iter()
            .enumerate()
            .map(|(id, planned)| (UpstreamId::new(id), planned))
    }

    /// Returns the sentences that explain why upstreams have no address, sorted and each once.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let mut reasons: Vec<&str> = self
            .all
            .iter()
            .filter_map(|one| one.address.as_ref().err())
            .map(String::as_str)
            .collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons.into_iter()
    }
}

/// Returns the index of the interface that the file names for an upstream, or 0. An unknown interface replaces the
/// address by an error.
fn with_egress_interface(
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

/// Resolves a host name to at least one address, IPv4 first, so that the choice does not depend on the order in the
/// response. Groups are left out, because a host name never stands for one. Unspecified addresses are left out, because
/// some resolvers use them for blocked names.
///
/// # Errors
///
/// Returns the error of the resolver, or an error if no usable address is left.
pub fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
    found.retain(|address| !address.ip().is_multicast() && !address.ip().is_unspecified());
    found.sort_by_key(|address| matches!(address.ip(), IpAddr::V6(_)));
    if found.is_empty() {
        Err(io::Error::other("it has no address of a host"))
    } else {
        Ok(found)
    }
}
