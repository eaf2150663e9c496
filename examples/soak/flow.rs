//! The numbered datagrams of one flow, and which of them have arrived where: lost, twice, out of order.

use std::ops::Range;

/// The first bytes of each datagram, which distinguish it from other datagrams.
const MAGIC: [u8; 4] = *b"soak";
/// Smallest length of a datagram: the magic, the flow, its number in the flow, and the time at which it was sent.
pub const MARK_BYTES: usize = 4 + 4 + 8 + 8;

/// The contents of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The index of the flow.
    pub flow: u32,
    /// The number of the datagram in the flow, from 0.
    pub number: u64,
    /// The time at which it was sent, in nanoseconds since 1970.
    pub sent_ns: u64,
}

impl Mark {
    /// Writes the mark to the beginning of a datagram, which has space for it.
    pub fn write(&self, datagram: &mut [u8]) {
        datagram[..4].copy_from_slice(&MAGIC);
        datagram[4..8].copy_from_slice(&self.flow.to_le_bytes());
        datagram[8..16].copy_from_slice(&self.number.to_le_bytes());
        datagram[16..24].copy_from_slice(&self.sent_ns.to_le_bytes());
    }

    /// Reads the mark. Returns `None` for a datagram that this program did not send.
    pub fn read(datagram: &[u8]) -> Option<Mark> {
        let (magic, rest) = datagram.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        let mark = Mark {
            flow: u32::from_le_bytes(*flow),
            number: u64::from_le_bytes(*number),
            sent_ns: u64::from_le_bytes(*sent),
        };
        (*magic == MAGIC).then_some(mark)
    }
}

/// The numbers of a flow that have arrived at one place.
#[derive(Debug, Default)]
pub struct Seen {
    bits: Vec<u64>,
    /// One more than the highest number that has arrived.
    pub next: u64,
    /// Number of datagrams that arrived, each counted once.
    pub came: u64,
    /// Number of datagrams that arrived again.
    pub twice: u64,
    /// Number of datagrams that arrived for the first time after a later one.
    pub reordered: u64,
}

impl Seen {
    /// Notes an arrival.
    pub fn note(&mut self, number: u64) {
        let word = (number / 64) as usize;
        let bit = 1 << (number % 64);
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            self.twice += 1;
            return;
        }
        self.bits[word] |= bit;
        self.came += 1;
        self.reordered += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
    }

    /// Returns whether this number has arrived.
    pub fn has(&self, number: u64) -> bool {
        self.bits
            .get((number / 64) as usize)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// The history of one flow.
#[derive(Debug, Default)]
pub struct Flow {
    /// Number of datagrams sent, which is the next one's number.
    pub sent: u64,
    /// The datagrams that arrived at the upstream.
    pub requests: Seen,
    /// The replies that arrived, if the flow has replies.
    pub replies: Option<Seen>,
    /// The source port from which its datagrams reached the upstream.
    pub port: Option<u16>,
    /// Number of times that this port changed.
    pub port_changes: u64,
    /// Numbers that were under way while no process served.
    pub outages: Vec<Range<u64>>,
}

/// Losses of a flow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Datagrams that never arrived at the upstream.
    pub requests: u64,
    /// Replies that never arrived at the client, to requests that did arrive at the upstream.
    pub replies: u64,
    /// Both kinds of losses while no process served, after a kill.
    pub in_outages: u64,
}

impl Flow {
    /// Returns the lowest number that may still arrive.
    fn settled(&self) -> u64 {
        self.replies.as_ref().map_or(self.requests.next, |replies| {
            replies.next.min(self.requests.next)
        })
    }

    /// Notes that no process serves from now on.
    pub fn begin_outage(&mut self) {
        self.outages.push(self.settled()..u64::MAX);
        self.port = None;
    }

    /// Notes that a process serves again.
    pub fn end_outage(&mut self) {
        if let Some(outage) = self.outages.last_mut() {
            outage.end = self.sent;
        }
    }

    /// Counts the datagrams and replies that never arrived.
    pub fn lost(&self) -> Lost {
        let mut lost = Lost::default();
        let replied = self
            .replies
            .as_ref()
            .map_or(self.sent, |replies| replies.came);
        if self.requests.came == self.sent && replied == self.sent {
            return lost;
        }
        for number in 0..self.sent {
            let has_come = self.requests.has(number);
            let is_whole = has_come
                && self
                    .replies
                    .as_ref()
                    .is_none_or(|replies| replies.has(number));
            if is_whole {
                continue;
            }
            if self.outages.iter().any(|outage| outage.contains(&number)) {
                lost.in_outages += 1;
            } else if has_come {
                lost.replies += 1;
            } else {
                lost.requests += 1;
            }
        }
        lost
    }

    /// Notes that a request has arrived at the upstream from this port.
    pub fn arrived(&mut self, number: u64, port: Option<u16>) {
        self.requests.note(number);
        if let Some(port) = port
            && self.port.replace(port).is_some_and(|before| before != port)
        {
            self.port_changes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults are distinguished, and so are losses inside and outside of an outage.
    #[test]
    fn faults_have_names() {
        let mut flow = Flow {
            sent: 10,
            replies: Some(Seen::default()),
            ..Flow::default()
        };
        for number in [0, 1, 3, 2, 2, 4] {
            flow.arrived(number, Some(7));
        }
        for number in [0, 1, 2, 3] {
            flow.replies.as_mut().unwrap().note(number);
        }
        assert_eq!(
            (
                flow.requests.twice,
                flow.requests.reordered,
                flow.port_changes
            ),
            (1, 1, 0)
        );
        assert_eq!(
            flow.lost(),
            Lost {
                requests: 5,
                replies: 1,
                in_outages: 0
            }
        );
        flow.sent = 5;
        flow.begin_outage();
        flow.sent = 10;
        flow.end_outage();
        assert_eq!(flow.outages, [4..10]);
        assert_eq!(
            flow.lost(),
            Lost {
                requests: 0,
                replies: 0,
                in_outages: 6
            }
        );
    }
}
