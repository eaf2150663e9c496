//! Numbered datagrams of one flow, and who has seen which of them: lost, twice, out of order.

use std::ops::Range;

/// The first bytes of each datagram, so that nothing else is taken for one.
const MAGIC: [u8; 4] = *b"soak";
/// What a datagram carries at least: the magic, the flow, its number in the flow, when it was sent.
pub const MARK_BYTES: usize = 4 + 4 + 8 + 8;

/// What a datagram says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whose it is.
    pub flow: u32,
    /// Which of the flow's, from 0.
    pub number: u64,
    /// When it was sent, in nanoseconds since 1970.
    pub sent_ns: u64,
}

impl Mark {
    /// Writes it to the front of a datagram, which has room for it.
    pub fn write(&self, datagram: &mut [u8]) {
        datagram[..4].copy_from_slice(&MAGIC);
        datagram[4..8].copy_from_slice(&self.flow.to_le_bytes());
        datagram[8..16].copy_from_slice(&self.number.to_le_bytes());
        datagram[16..24].copy_from_slice(&self.sent_ns.to_le_bytes());
    }

    /// Reads it; `None` of what is no datagram of ours.
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

/// Which numbers of a flow have arrived at one place.
#[derive(Debug, Default)]
pub struct Seen {
    bits: Vec<u64>,
    /// One more than the highest that has come.
    pub next: u64,
    /// How many came, each counted once.
    pub came: u64,
    /// How many came again.
    pub twice: u64,
    /// How many came for the first time after a later one.
    pub reordered: u64,
}

impl Seen {
    /// Notes an arrival.
    pub fn note(&mut self, number: u64) {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
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

    /// Whether this one has come.
    pub fn has(&self, number: u64) -> bool {
        self.bits
            .get((number / 64) as usize)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// What became of one flow.
#[derive(Debug, Default)]
pub struct Flow {
    /// How many were sent: the next one's number.
    pub sent: u64,
    /// What came to the upstream.
    pub requests: Seen,
    /// What came back, of a flow that is answered.
    pub answers: Option<Seen>,
    /// The source port that its datagrams reached the upstream from.
    pub port: Option<u16>,
    /// How often that was another one than before.
    pub port_changes: u64,
    /// Numbers that were under way while nobody served.
    pub outages: Vec<Range<u64>>,
}

/// Losses of a flow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Datagrams that never came to the upstream.
    pub requests: u64,
    /// Answers that never came to the client, of requests that did come to the upstream.
    pub answers: u64,
    /// Either of them while nobody served, after a kill.
    pub in_outages: u64,
}

impl Flow {
    /// The lowest number of which nothing is known yet.
    fn settled(&self) -> u64 {
        self.answers.as_ref().map_or(self.requests.next, |answers| {
            answers.next.min(self.requests.next)
        })
    }

    /// From now on nobody serves.
    pub fn begin_outage(&mut self) {
        self.outages.push(self.settled()..u64::MAX);
        self.port = None;
    }

    /// Somebody serves again.
    pub fn end_outage(&mut self) {
        if let Some(outage) = self.outages.last_mut() {
            outage.end = self.sent;
        }
    }

    /// What never came.
    pub fn lost(&self) -> Lost {
        let mut lost = Lost::default();
        let answered = self
            .answers
            .as_ref()
            .map_or(self.sent, |answers| answers.came);
        if self.requests.came == self.sent && answered == self.sent {
            return lost;
        }
        for number in 0..self.sent {
            let has_come = self.requests.has(number);
            let is_whole = has_come
                && self
                    .answers
                    .as_ref()
                    .is_none_or(|answers| answers.has(number));
            if is_whole {
                continue;
            }
            if self.outages.iter().any(|outage| outage.contains(&number)) {
                lost.in_outages += 1;
            } else if has_come {
                lost.answers += 1;
            } else {
                lost.requests += 1;
            }
        }
        lost
    }

    /// A request has come to the upstream from this port.
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

    /// Each fault is told from the others, and what falls into an outage from what does not.
    #[test]
    fn faults_have_names() {
        let mut flow = Flow {
            sent: 10,
            answers: Some(Seen::default()),
            ..Flow::default()
        };
        for number in [0, 1, 3, 2, 2, 4] {
            flow.arrived(number, Some(7));
        }
        for number in [0, 1, 2, 3] {
            flow.answers.as_mut().unwrap().note(number);
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
                answers: 1,
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
                answers: 0,
                in_outages: 6
            }
        );
    }
}
