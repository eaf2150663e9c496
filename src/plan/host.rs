//! The facts about the machine that a plan depends on. They are one struct, so that a test can plan for an invented
//! machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::net::fib::{self, DestinationKind, KernelRoute};
use crate::net::interfaces::{self, Interface};

/// The machine that a plan is made for.
pub struct Host {
    /// The network interfaces of the machine.
    pub interfaces: Vec<Interface>,
    /// Looks up a destination in the machine's routing table.
    pub look_up: Box<dyn Fn(IpAddr) -> io::Result<KernelRoute>>,
}

impl Host {
    /// Returns this machine in its current state.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call if the interfaces cannot be listed.
    pub fn this() -> io::Result<Host> {
        Ok(Host {
            interfaces: interfaces::list()?,
            look_up: Box::new(fib::look_up),
        })
    }

    /// Returns the addresses of all interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces
            .iter()
            .flat_map(|interface| interface.addresses.iter().copied())
    }

    /// Returns the broadcast addresses of all interfaces. The routing table decides which of the listed ones are
    /// real. For an address without a broadcast address, getifaddrs(3) returns that address or the peer's address.
    pub fn broadcasts(&self) -> impl Iterator<Item = Ipv4Addr> {
        let named = self
            .interfaces
            .iter()
            .flat_map(|interface| interface.broadcasts.iter().copied());
        named.filter(|ip| {
            (self.look_up)((*ip).into()).is_ok_and(|route| route.kind == DestinationKind::Broadcast)
        })
    }

    /// Returns the index of the interface with this name or address.
    pub fn interface(&self, name: &str) -> Option<u32> {
        let address = name.parse::<IpAddr>().ok();
        let is_match = |interface: &&Interface| {
            interface.name == name
                || address.is_some_and(|address| interface.addresses.contains(&address))
        };
        self.interfaces
            .iter()
            .find(is_match)
            .map(|interface| interface.index)
    }

    /// Returns the name of an interface, or its index if the interface no longer exists.
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

    /// Returns the interfaces with their addresses, in one line, for messages.
    pub fn list(&self) -> String {
        let one = |interface: &Interface| {
            let addresses: Vec<_> = interface.addresses.iter().map(IpAddr::to_string).collect();
            if addresses.is_empty() {
                interface.name.clone()
            } else {
                format!("{} ({})", interface.name, addresses.join(", "))
            }
        };
        self.interfaces
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
