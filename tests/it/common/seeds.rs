//! What the seeded simulations share: which seeds to try, and how a failure tells which one it was.

use std::ops::Range;

/// The seeds of this run: `UDISPATCH_SEED` alone, or the first `UDISPATCH_SEEDS`, or else so many.
pub fn seeds(ordinary: u64) -> Range<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    match number("UDISPATCH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("UDISPATCH_SEEDS").unwrap_or(ordinary),
    }
}

/// Tells which seed and step failed.
pub struct Where {
    pub seed: u64,
    pub step: usize,
    pub text: String,
}

impl Drop for Where {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Where { seed, step, text } = self;
            eprintln!("{text}\nseed {seed}, step {step}; UDISPATCH_SEED={seed} repeats it");
        }
    }
}
