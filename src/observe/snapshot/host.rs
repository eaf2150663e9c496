//! The UDP counters of the host, for all programs: `/proc/net/snmp` and `/proc/net/snmp6` of this network namespace
//! (proc(5); the names are those of RFC 4113 and of udp_mib in the kernel).

use std::fs;

use crate::dispatch::counters::{SharedFamily, counters};
use crate::net::errno;

/// Datagrams dropped on receipt, by IP version.
const RECEIVE_ERRORS: SharedFamily = SharedFamily {
    name: "host_udp_receive_buffer_errors_total",
    help: "UDP datagrams of all programs: receive buffer full.",
    label: "family",
};
/// Datagrams that could not be sent, by IP version.
const SEND_ERRORS: SharedFamily = SharedFamily {
    name: "host_udp_send_buffer_errors_total",
    help: "UDP datagrams of all programs: send buffer full.",
    label: "family",
};

counters! {
    /// UDP counters of all programs in this network namespace.
    pub struct HostCounts {
        /// IPv4 datagrams dropped because a receive buffer was full.
        udp_receive_buffer_errors: counter("receive buffer errors", part "ipv4" of RECEIVE_ERRORS);
        /// IPv6 datagrams dropped because a receive buffer was full.
        udp6_receive_buffer_errors: counter("receive buffer errors (IPv6)", part "ipv6" of RECEIVE_ERRORS);
        /// IPv4 datagrams not sent because a send buffer was full.
        udp_send_buffer_errors: counter("send buffer errors", part "ipv4" of SEND_ERRORS);
        /// IPv6 datagrams not sent because a send buffer was full.
        udp6_send_buffer_errors: counter("send buffer errors (IPv6)", part "ipv6" of SEND_ERRORS);
    }
}

impl HostCounts {
    /// Reads the current counters; a counter that the kernel does not have is 0. If a file cannot be opened, the values
    /// of `before` are returned, because a counter that falls to 0 would look like that of another process.
    pub fn now(before: HostCounts) -> HostCounts {
        let read = |path| match fs::read_to_string(path) {
            Err(error) if errno::lacks_file(&error) => None,
            read => Some(read.unwrap_or_default()),
        };
        match (read("/proc/net/snmp"), read("/proc/net/snmp6")) {
            (Some(snmp), Some(snmp6)) => HostCounts::parse(&snmp, &snmp6),
            _ => before,
        }
    }

    fn parse(snmp: &str, snmp6: &str) -> HostCounts {
        // Each protocol has a line of names and a line of numbers, both starting with its prefix.
        let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let names = udp.next().unwrap_or_default();
        let numbers = udp.next().unwrap_or_default();
        let v4 = |key: &str| {
            let found = names
                .split_whitespace()
                .zip(numbers.split_whitespace())
                .find(|(name, _)| *name == key);
            found
                .and_then(|(_, number)| number.parse().ok())
                .unwrap_or(0)
        };
        let v6 = |key: &str| {
            let mut words = snmp6.lines().map(str::split_whitespace);
            let found =
                words.find_map(|mut words| (words.next() == Some(key)).then(|| words.next())?);
            found.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        HostCounts {
            udp_receive_buffer_errors: v4("RcvbufErrors"),
            udp_send_buffer_errors: v4("SndbufErrors"),
            udp6_receive_buffer_errors: v6("Udp6RcvbufErrors"),
            udp6_send_buffer_errors: v6("Udp6SndbufErrors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are found by their names; a missing number is 0.
    #[test]
    fn numbers_have_names() {
        let snmp = "Tcp: RcvbufErrors\nTcp: 9\nUdp: InDatagrams NoPorts RcvbufErrors SndbufErrors\nUdp: 1 2 3 4\n\
                    UdpLite: RcvbufErrors\nUdpLite: 8\n";
        let snmp6 = "Ip6InReceives   7\nUdp6RcvbufErrors 5\nUdp6SndbufErrors 6\n";
        let counts = HostCounts {
            udp_receive_buffer_errors: 3,
            udp_send_buffer_errors: 4,
            udp6_receive_buffer_errors: 5,
            udp6_send_buffer_errors: 6,
        };
        assert_eq!(HostCounts::parse(snmp, snmp6), counts);
        assert_eq!(
            HostCounts::parse("", "Udp6RcvbufErrors"),
            HostCounts::default()
        );
    }
}
