//! A small generator of pseudo-random numbers, for picking and not for secrets. The seed comes from outside, so that
//! a simulation can be repeated.

use crate::number;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a generator, which returns the same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::maglev::mix(self.0)
    }

    /// Returns a number below `limit`, which must not be 0. It multiplies instead of dividing (Lemire, 2019). The
    /// bias is below limit / 2⁶⁴.
    pub fn below(&mut self, limit: usize) -> usize {
        number::to_usize(((u128::from(self.number()) * limit as u128) >> 64) as u64)
    }
}
