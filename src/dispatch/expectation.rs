//! Who was heard when: the prefixes that a route must not stop hearing from. A route that expects nobody has none of this, and
//! pays nothing.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::time::Time;
use crate::datagram::Train;

/// A prefix that was heard is not looked for again before so long: nobody asks for it more exactly, and prefixes that talk all
/// the time then cost next to nothing.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The prefixes of one route.
#[derive(Debug, Clone)]
pub struct Expectations {
    prefixes: Vec<Prefix>,
    /// When each was last heard; zero for never.
    last_seen: Vec<Time>,
    /// Those that are looked for in the batch at hand.
    wanted: Vec<usize>,
    /// Before this nothing is looked for.
    recheck_at: Time,
}

/// A prefix as numbers, quick to compare: an address lies in it when what the mask leaves of it is the value.
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
    /// For these prefixes; none of them has been heard.
    pub fn new(prefixes: &[IpNet]) -> Expectations {
        let (last_seen, wanted) = (
            vec![Time::default(); prefixes.len()],
            Vec::with_capacity(prefixes.len()),
        );
        Expectations {
            prefixes: prefixes.iter().map(Prefix::of).collect(),
            last_seen,
            wanted,
            recheck_at: Time::default(),
        }
    }

    /// When each was last heard, in their order; zero for never.
    pub fn last_seen(&self) -> &[Time] {
        &self.last_seen
    }

    /// Notes who sent these.
    pub fn note(&mut self, trains: &[Train], now: Time) {
        if now < self.recheck_at {
            return;
        }
        let Expectations {
            prefixes,
            last_seen,
            wanted,
            recheck_at,
        } = self;
        wanted.clear();
        wanted.extend((0..prefixes.len()).filter(|place| {
            last_seen[*place] == Time::default() || last_seen[*place].after(RECHECK_INTERVAL) <= now
        }));
        for train in trains {
            let ip = train.envelope.src.ip();
            wanted.retain(|place| {
                let is_seen = prefixes[*place].contains(ip);
                if is_seen {
                    // Zero is never.
                    last_seen[*place] = now.max(Time(1));
                }
                !is_seen
            });
            if wanted.is_empty() {
                break;
            }
        }
        if wanted.is_empty() {
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

    /// Each prefix is heard when somebody of it is, several by one where they lie in each other, whatever else comes; and one
    /// that is heard again and again is never noted as further back than the rest.
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
        assert_eq!(expectations.last_seen()[1], ms(50), "it rests");
        expectations.note(&[train("10.1.0.1:1")], ms(150));
        assert_eq!(expectations.last_seen()[1], ms(150));
        expectations.note(&[train("10.1.0.1:1")], ms(201));
        assert_eq!(
            expectations.last_seen(),
            [ms(201), ms(150), ms(201), ms(101)]
        );
    }
}
