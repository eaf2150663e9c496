//! Latency of datagrams in the daemon. Datagrams are noted while they are handled, and their latency is recorded after
//! the flush of the turn. A turn therefore reads the clock once.

use super::histogram::Histogram;
use super::verdict::DropReason;
use crate::datagram::Train;

/// The datagrams that the turn has handled so far.
#[derive(Debug, Default)]
pub(super) struct LatencyProbe {
    /// The kernel's receive time in nanoseconds since 1970, and the number of datagrams.
    handled: Vec<(u64, u32)>,
}

impl LatencyProbe {
    /// Notes a run as handled, except for these drops, each with its index in the run. The time of a train applies to
    /// all its datagrams.
    pub(super) fn note(&mut self, trains: &[Train], drops: &[(u32, DropReason)]) {
        let mut drops = drops.iter().map(|drop| drop.0).peekable();
        let mut end = 0;
        for train in trains {
            let datagrams = train.datagrams();
            end += datagrams;
            let mut handled = datagrams;
            while drops.next_if(|place| *place < end).is_some() {
                handled -= 1;
            }
            if let (Some(time_ns), 1..) = (train.envelope.time_ns, handled) {
                self.handled.push((time_ns, handled));
            }
        }
    }

    /// Records the latency of all noted datagrams after the flush. `now_ns` is the time of day in nanoseconds since
    /// 1970. If the clock was set back in between, the latency counts as zero.
    pub(super) fn settle(&mut self, now_ns: u64, histogram: &mut Histogram) {
        for (time_ns, datagrams) in self.handled.drain(..) {
            histogram.record(now_ns.saturating_sub(time_ns), u64::from(datagrams));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::datagram::{Envelope, Region, Span};
    use crate::dispatch::random::Random;

    /// Each datagram that was not dropped is counted once, with the time of its train, for any trains and drops. A
    /// datagram without a receive time is not counted.
    #[test]
    fn as_datagram_by_datagram() {
        let random = &mut Random::new(7);
        let address = SocketAddr::from(([192, 0, 2, 1], 53));
        for _ in 0..2_000 {
            let mut probe = LatencyProbe::default();
            let mut histogram = Histogram::default();
            let mut expected = Histogram::default();
            let now_ns = 1_000_000_000_u64;
            for _ in 0..random.below(4) {
                let mut trains = Vec::new();
                let mut drops = Vec::new();
                let mut place = 0;
                for _ in 0..random.below(6) {
                    let time_ns = (random.below(5) > 0).then(|| random.below(1_100_000_000) as u64);
                    let envelope = Envelope {
                        src: address,
                        dst: address,
                        local: address,
                        interface: 0,
                        ttl: None,
                        time_ns,
                    };
                    let span = Span {
                        region: Region::Arena,
                        offset: 0,
                        len: 1 + random.below(300) as u32,
                    };
                    let train = Train {
                        envelope,
                        span,
                        segment: random.below(100) as u16,
                    };
                    for _ in 0..train.datagrams() {
                        if random.below(3) == 0 {
                            drops.push((place, DropReason::Discarded));
                        } else if let Some(time_ns) = time_ns {
                            expected.record(now_ns.saturating_sub(time_ns), 1);
                        }
                        place += 1;
                    }
                    trains.push(train);
                }
                probe.note(&trains, &drops);
            }
            probe.settle(now_ns, &mut histogram);
            assert_eq!(histogram, expected);
            probe.settle(now_ns, &mut histogram);
            assert_eq!(histogram, expected, "what was settled is not counted again");
        }
    }
}
