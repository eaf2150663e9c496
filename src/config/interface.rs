//! An interface, as the file names it.

use std::fmt;
use std::net::IpAddr;

/// A network interface as the file names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InterfaceRef {
    /// By name: `eth0`.
    Name(String),
    /// By one of its addresses.
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
