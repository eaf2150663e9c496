//! The neighbouring host, at fixed addresses, and a host behind it.

use super::host::Host;
use super::ledger::Row;
use super::namespace::run;

/// The address of this side, and that of the other one.
pub const HERE: &str = "10.9.0.1";
pub const THERE: &str = "10.9.0.2";
/// The IPv6 address of this side, and that of the other one.
pub const HERE_V6: &str = "fd00:9::1";
pub const THERE_V6: &str = "fd00:9::2";

/// The address of a host behind the neighbour.
pub const BEYOND: &str = "10.10.0.2";
pub const BEYOND_V6: &str = "fd00:10::2";

/// The neighbouring host, at the other end of the veth pair `near` with this MTU.
pub fn neighbour(mtu: u32) -> Host {
    Host::at_the_end_of("near", "10.9.0", "fd00:9", mtu)
}

/// The host behind the neighbour, connected by a veth pair with this MTU.
pub fn behind(neighbour: &Host, mtu: u32) -> Host {
    let beyond = neighbour.behind("10.10.0", "fd00:10", mtu);
    run(&format!("ip route add 10.10.0.0/24 via {THERE}"));
    run(&format!("ip -6 route add fd00:10::/64 via {THERE_V6}"));
    beyond
}

/// A fault on the path to the neighbour: the commands that cause and repair it, and the errnos that it may bring.
#[derive(Debug)]
pub struct Fault {
    cause: Vec<String>,
    repair: Vec<String>,
    pub errnos: &'static [&'static str],
}

impl Fault {
    /// A rule of the firewall for UDP datagrams that leave this host, such as `dport 53 drop`. Needs [`firewall`].
    pub fn rule(what: &str, errnos: &'static [&'static str]) -> Fault {
        Fault {
            cause: vec![format!("nft add rule inet t out udp {what}")],
            repair: vec!["nft flush chain inet t out".to_owned()],
            errnos,
        }
    }

    /// The usual faults of a path: a firewall that drops what goes to this port of the neighbour, one that rejects it,
    /// a route that is missing, and a link that is down.
    pub fn all(is_v6: bool, port: u16) -> Vec<Fault> {
        let (family, prefix) = if is_v6 {
            ("-6", "fd00:9::/64")
        } else {
            ("-4", "10.9.0.0/24")
        };
        let no_route = Fault {
            cause: vec![format!("ip {family} route del {prefix} dev near")],
            repair: vec![format!("ip {family} route add {prefix} dev near")],
            errnos: &["ENETUNREACH"],
        };
        let link_down = Fault {
            cause: vec!["ip link set near down".to_owned()],
            // The kernel removes an IPv6 address together with the link.
            repair: vec![
                "ip link set near up".to_owned(),
                format!("ip addr replace {HERE_V6}/64 dev near nodad"),
            ],
            errnos: &["ENETUNREACH"],
        };
        vec![
            Fault::rule(&format!("dport {port} drop"), &["EPERM"]),
            Fault::rule(&format!("dport {port} reject"), &["EPERM", "ECONNREFUSED"]),
            no_route,
            link_down,
        ]
    }

    /// Causes the fault.
    pub fn begin(&self) {
        self.cause.iter().for_each(|command| run(command));
    }

    /// Repairs the fault.
    pub fn end(&self) {
        self.repair.iter().for_each(|command| run(command));
    }

    /// Asserts that only the counts of the fault's errnos have changed.
    pub fn assert_explains(&self, before: &Row, now: &Row) {
        for (errno, count) in &now.not_sent {
            assert!(
                before.not_sent.get(errno) == Some(count) || self.errnos.contains(&errno.as_str()),
                "{self:?}: {now:?}"
            );
        }
    }
}

/// An empty firewall, for [`Fault::rule`].
pub fn firewall() {
    run("nft add table inet t");
    run("nft add chain inet t out { type filter hook output priority 0 ; }");
}
