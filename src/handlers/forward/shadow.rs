//! Compares a shadow's replies with those that the client received, pairwise in the order of their arrival.

use std::collections::VecDeque;

use crate::dispatch::ledger::ShadowCounts;
use crate::dispatch::maglev::hash_bytes;

/// The most replies that one side may be ahead of the other.
const AHEAD_MAX: usize = 16;

/// One session's comparison with one shadow.
#[derive(Debug, Default)]
pub struct Comparison {
    /// The hashes of replies that the other side has not matched yet.
    ahead: VecDeque<u64>,
    /// Whether those replies are the shadow's.
    is_shadow_ahead: bool,
}

impl Comparison {
    /// Adds a reply of one side, and compares it if the other side is ahead.
    pub fn reply(&mut self, is_shadow: bool, payload: &[u8], outcomes: &mut ShadowCounts) {
        let hash = hash_bytes(payload);
        if self.ahead.is_empty() || self.is_shadow_ahead == is_shadow {
            self.is_shadow_ahead = is_shadow;
            if self.ahead.len() == AHEAD_MAX {
                self.ahead.pop_front();
                outcomes.missing += u64::from(!is_shadow);
            }
            self.ahead.push_back(hash);
        } else if let Some(other) = self.ahead.pop_front() {
            let counter = if other == hash {
                &mut outcomes.same
            } else {
                &mut outcomes.different
            };
            *counter += 1;
        }
    }

    /// Ends the comparison with its session. Unmatched replies of the client count as missing.
    pub fn end(&mut self, outcomes: &mut ShadowCounts) {
        if !self.is_shadow_ahead {
            outcomes.missing += self.ahead.len() as u64;
        }
        self.ahead.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It does not matter which side is first. A reply that the shadow never sends is missing.
    #[test]
    fn outcomes() {
        let mut outcomes = ShadowCounts::default();
        let mut comparison = Comparison::default();
        for (is_shadow, reply) in [
            (false, "a"),
            (true, "a"),
            (true, "b"),
            (true, "x"),
            (false, "b"),
            (false, "c"),
        ] {
            comparison.reply(is_shadow, reply.as_bytes(), &mut outcomes);
        }
        comparison.reply(false, b"d", &mut outcomes);
        comparison.end(&mut outcomes);
        assert_eq!(
            outcomes,
            ShadowCounts {
                same: 2,
                different: 1,
                missing: 1
            }
        );
        (0..20_u8).for_each(|reply| comparison.reply(false, &[reply], &mut outcomes));
        assert_eq!(outcomes.missing, 5, "the memory is bounded");
    }
}
