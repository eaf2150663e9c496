//! The selection of the datagrams that an upstream gets: a sample of them, or as many as its rate limit admits.

use std::sync::Arc;

use super::config::Sample;
use crate::dispatch::rate::RateLimit;
use crate::dispatch::time::Time;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// Admits the datagrams of one upstream in one worker.
pub struct Admission {
    sample: Option<Sampler>,
    rate: Option<Arc<RateLimit>>,
    skipped: u64,
}

/// Selects a fraction of the datagrams at even distances.
struct Sampler {
    sample: Sample,
    earned: u32,
}

impl Admission {
    /// Admits a sample, within a rate limit that all workers share. `start` offsets the sample, so that workers do not
    /// all select the same datagrams.
    pub fn new(sample: Option<Sample>, rate: Option<Arc<RateLimit>>, start: u64) -> Admission {
        let sampler = |sample: Sample| Sampler {
            sample,
            earned: number::to_u32(number::to_usize(start % u64::from(sample.each))),
        };
        Admission {
            sample: sample.map(sampler),
            rate,
            skipped: 0,
        }
    }

    /// Returns whether every datagram is admitted.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.sample.is_none() && self.rate.is_none()
    }

    /// Admits a datagram, or counts it as skipped.
    ///
    /// # Errors
    ///
    /// Returns the drop reason if the sample or the rate limit excludes the datagram.
    pub fn admit(&mut self, now: Time) -> Result<(), DropReason> {
        if self.sample.as_mut().is_some_and(|sampler| !sampler.takes()) {
            self.skipped += 1;
            return Err(DropReason::SampledOut);
        }
        if self.rate.as_ref().is_some_and(|rate| !rate.take(now)) {
            self.skipped += 1;
            return Err(DropReason::RateLimit);
        }
        Ok(())
    }

    /// Returns the number of datagrams that the sample or the rate limit excluded.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the progress of the sample towards its next selected datagram.
    pub fn earned(&self) -> u32 {
        self.sample.as_ref().map_or(0, |sampler| sampler.earned)
    }

    /// Continues a sample from saved progress.
    pub fn restore_earned(&mut self, earned: u32) {
        if let Some(sampler) = &mut self.sample {
            sampler.earned = earned % sampler.sample.each;
        }
    }
}

impl Sampler {
    fn takes(&mut self) -> bool {
        self.earned += self.sample.taken;
        let takes = self.earned >= self.sample.each;
        if takes {
            self.earned -= self.sample.each;
        }
        takes
    }
}
