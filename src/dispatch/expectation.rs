//! Last-seen times of the source prefixes that a route expects datagrams from. A route without expectations has no such
//! record, and no cost.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::time::Time;
use crate::datagram::Train;

/// The time during which a prefix that was seen is not checked again. The interval is the precision of its last-seen
/// time. It keeps the cost low for prefixes that send all the time.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The expected prefixes of one route.
#[derive(Debug, Clone)]
pub struct Expectations {
    prefixes: Vec<Prefix>,
    /// The time at which each prefix was last seen; zero if never.
    last_seen: Vec<Time>,
    /// The indexes of the prefixes that the current batch has not matched yet.
    pending: Vec<usize>,
    /// No prefix is checked before this time.
    recheck_at: Time,
}

/// A prefix as numbers that are fast to compare. It contains an address if the address and the mask yield the value.
#[derive(Debug, Clone, Copy)]
enum Prefix {
    V4 { mask: u32, value: u32 },
    V6 { mask: u128, value: u128 },
}

impl Prefix {
    fn of(net: &IpNet) -> Prefix {
        match net {
            IpNet::V4(net) => Prefix::V4 {
                mask: net.netmask().to_bits(),
                value: net.network().to_bits(),
            },
            IpNet::V6(net) => Prefix::V6 {
                mask: net.netmask().to_bits(),
                value: net.network().to_bits(),
            },
        }
    }

    #[inline]
    fn contains(self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Prefix::V4 { mask, value }, IpAddr::V4(ip)) => ip.to_bits() & mask == value,
            (Prefix::V6 { mask, value }, IpAddr::V6(ip)) => ip.to_bits() & mask == value,
            _ => false,
        }
    }
}

impl Expectations {
    /// Creates the expectations for these prefixes, none of which has been seen.
    pub fn new(prefixes: &[IpNet]) -> Expectations {
        let last_seen = vec![Time::default(); prefixes.len()];
        let pending = Vec::with_capacity(prefixes.len());
        Expectations {
            prefixes: prefixes.iter().map(Prefix::of).collect(),
            last_seen,
            pending,
            recheck_at: Time::default(),
        }
    }

    /// Returns when each prefix was last seen, in the order of the prefixes; zero if never.
    pub fn last_seen(&self) -> &[Time] {
        &self.last_seen
    }

    /// Records the sources of these trains as seen at `now`.
    pub fn note(&mut self, trains: &[Train], now: Time) {
        if now < self.recheck_at {
            return;
        }
        let Expectations {
            prefixes,
            last_seen,
            pending,
            recheck_at,
        } = self;
        pending.clear();
        pending.extend((0..prefixes.len()).filter(|place| {
            last_seen[*place] == Time::default() || last_seen[*place].after(RECHECK_INTERVAL) <= now
        }));
        for train in trains {
            let ip = train.envelope.src.ip();
            pending.retain(|place| {
                let is_seen = prefixes[*place].contains(ip);
                if is_seen {
                    // Zero means never.
                    last_seen[*place] = now.max(Time(1));
                }
                !is_seen
            });
            if pending.is_empty() {
                break;
            }
        }
        if pending.is_empty() {
            *recheck_at = last_seen
                .iter()
                .min()
                .map_or(Time(u64::MAX), |first| first.after(RECHECK_INTERVAL));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::datagram::{Envelope, Region, Span};

    fn train(src: &str) -> Train {
        let src: SocketAddr = src.parse().unwrap();
        let envelope = Envelope {
            src,
            dst: src,
            local: src,
            interface: 0,
            ttl: None,
            time_ns: None,
        };
        Train {
            envelope,
            span: Span {
                region: Region::Arena,
                offset: 0,
                len: 0,
            },
            segment: 0,
        }
    }

    /// A prefix is seen when one of its addresses sends. One datagram counts for all prefixes that contain its
    /// source. A prefix that is seen often is never recorded as older than the others.
    #[test]
    fn each_prefix_has_its_own_time() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"]
            .map(|net| net.parse().unwrap());
        let mut expectations = Expectations::new(&nets);
        let ms = |ms: u64| Time(ms * 1_000_000);
        expectations.note(&[train("10.9.0.1:1")], Time(0));
        assert_eq!(
            expectations.last_seen(),
            [Time(1), Time(0), Time(1), Time(0)]
        );
        expectations.note(&[train("192.0.2.1:1"), train("10.1.0.1:1")], ms(50));
        assert_eq!(
            expectations.last_seen(),
            [Time(1), ms(50), Time(1), Time(0)]
        );
        expectations.note(&[train("[2001:db8::1]:1"), train("10.1.0.1:1")], ms(101));
        assert_eq!(
            expectations.last_seen(),
            [ms(101), ms(50), ms(101), ms(101)]
        );
        expectations.note(&[train("10.1.0.1:1")], ms(149));
        assert_eq!(
            expectations.last_seen()[1],
            ms(50),
            "it was checked less than 100 ms ago"
        );
        expectations.note(&[train("10.1.0.1:1")], ms(150));
        assert_eq!(expectations.last_seen()[1], ms(150));
        expectations.note(&[train("10.1.0.1:1")], ms(201));
        assert_eq!(
            expectations.last_seen(),
            [ms(201), ms(150), ms(201), ms(101)]
        );
    }
}
