//! What planning asks of the machine. One struct, so that a test can plan for a machine of its own making.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::net::fib::{self, DestinationKind, KernelRoute};
use crate::net::interfaces::{self, Interface};

/// The machine as planning sees it.
pub struct Host {
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// What its routing table says of a destination.
    pub look_up: Box<dyn Fn(IpAddr) -> io::Result<KernelRoute>>,
}

impl Host {
    /// This machine, as it is now.
    pub fn this() -> io::Result<Host> {
        Ok(Host {
            interfaces: interfaces::list()?,
            look_up: Box::new(fib::look_up),
        })
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces
            .iter()
            .flat_map(|interface| interface.addresses.iter().copied())
    }

    /// All its broadcast addresses. The routing table has the last word: where an address was given without a broadcast
    /// address, getifaddrs(3) shows the address itself, or a peer's, in its place.
    pub fn broadcasts(&self) -> impl Iterator<Item = Ipv4Addr> {
        let named = self
            .interfaces
            .iter()
            .flat_map(|interface| interface.broadcasts.iter().copied());
        named.filter(|ip| {
            (self.look_up)((*ip).into())
                .is_ok_and(|answer| answer.kind == DestinationKind::Broadcast)
        })
    }

    /// The index of the interface with this name or address.
    pub fn interface(&self, name: &str) -> Option<u32> {
        let address = name.parse::<IpAddr>().ok();
        let is_meant = |interface: &&Interface| {
            interface.name == name
                || address.is_some_and(|address| interface.addresses.contains(&address))
        };
        self.interfaces
            .iter()
            .find(is_meant)
            .map(|interface| interface.index)
    }

    /// An interface's name, or its number where it has none any more.
    pub fn interface_name(&self, index: u32) -> String {
        let known = self
            .interfaces
            .iter()
            .find(|interface| interface.index == index);
        known.map_or_else(
            || format!("interface {index}"),
            |interface| interface.name.clone(),
        )
    }

    /// The interfaces in a line, with their addresses, for messages.
    pub fn list(&self) -> String {
        let one = |interface: &Interface| {
            let addresses: Vec<_> = interface.addresses.iter().map(IpAddr::to_string).collect();
            match addresses.is_empty() {
                true => interface.name.clone(),
                false => format!("{} ({})", interface.name, addresses.join(", ")),
            }
        };
        self.interfaces
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
