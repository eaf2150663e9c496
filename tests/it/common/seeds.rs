//! Shared parts of the seeded simulations: the seeds to try, and the report of the one that failed.

use std::ops::Range;

/// The seeds of this run: `UDISPATCH_SEED` alone, or the first `UDISPATCH_SEEDS`, or by default this many.
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

/// Reports the seed and the step that failed.
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
