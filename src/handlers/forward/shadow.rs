//! Compares what a shadow answers with what the client got: the first answer of one with the first of the other, and so on.

use std::collections::VecDeque;

use crate::dispatch::maglev::hash_bytes;

/// Answers that one side may be ahead of the other.
const AHEAD_MAX: usize = 16;

/// One session's comparison with one shadow.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Hashes of the answers that the other side has not matched yet.
    ahead: VecDeque<u64>,
    /// Whether those are the shadow's.
    is_shadow_ahead: bool,
}

/// What became of comparisons: the same, different, missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answers that were the same, byte by byte as far as a 64-bit hash tells.
    pub same: u64,
    /// Answers that were not.
    pub different: u64,
    /// Answers that the client got and the shadow never gave.
    pub missing: u64,
}

impl Comparison {
    /// One side answers.
    pub fn reply(&mut self, is_shadow: bool, payload: &[u8], outcomes: &mut Outcomes) {
        let hash = hash_bytes(payload);
        if self.ahead.is_empty() || self.is_shadow_ahead == is_shadow {
            self.is_shadow_ahead = is_shadow;
            if self.ahead.len() == AHEAD_MAX {
                self.ahead.pop_front();
                outcomes.missing += u64::from(!is_shadow);
            }
            self.ahead.push_back(hash);
        } else if let Some(theirs) = self.ahead.pop_front() {
            let counter = if theirs == hash {
                &mut outcomes.same
            } else {
                &mut outcomes.different
            };
            *counter += 1;
        }
    }

    /// The session is over.
    pub fn end(&mut self, outcomes: &mut Outcomes) {
        if !self.is_shadow_ahead {
            outcomes.missing += self.ahead.len() as u64;
        }
        self.ahead.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of the two sides is of no account; what never comes is missing.
    #[test]
    fn outcomes() {
        let mut outcomes = Outcomes::default();
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
            Outcomes {
                same: 2,
                different: 1,
                missing: 1
            }
        );
        (0..20_u8).for_each(|reply| comparison.reply(false, &[reply], &mut outcomes));
        assert_eq!(outcomes.missing, 5, "the memory is bounded");
    }
}
