//! The host next door, at fixed addresses, and one behind it.

use super::host::Host;
use super::namespace::run;

/// This side's address and the other's.
pub const HERE: &str = "10.9.0.1";
pub const THERE: &str = "10.9.0.2";
/// The IPv6 address of this side, and that of the other one.
pub const HERE_V6: &str = "fd00:9::1";
pub const THERE_V6: &str = "fd00:9::2";

/// A host behind the other.
pub const BEYOND: &str = "10.10.0.2";
pub const BEYOND_V6: &str = "fd00:10::2";

/// The host next door, over the cable `near` with this MTU.
pub fn neighbour(mtu: u32) -> Host {
    Host::at_the_end_of("near", "10.9.0", "fd00:9", mtu)
}

/// The host behind it, over a cable with this MTU.
pub fn behind(neighbour: &Host, mtu: u32) -> Host {
    let beyond = neighbour.behind("10.10.0", "fd00:10", mtu);
    run(&format!("ip route add 10.10.0.0/24 via {THERE}"));
    run(&format!("ip -6 route add fd00:10::/64 via {THERE_V6}"));
    beyond
}
