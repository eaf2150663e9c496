//! A network interface as the file names it.

use std::fmt;
use std::net::IpAddr;

/// A network interface as the file names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InterfaceRef {
    /// The name of the interface, such as `eth0`.
    Name(String),
    /// One of the addresses of the interface.
    Address(IpAddr),
}

impl fmt::Display for InterfaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfaceRef::Name(name) => f.write_str(name),
            InterfaceRef::Address(address) => write!(f, "{address}"),
        }
    }
}
