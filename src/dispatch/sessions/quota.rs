//! The limit on sessions over all workers, and the limit on those of one source prefix.
//!
//! This is the only state that workers share while they run. A session that begins or ends takes a lock for some
//! nanoseconds. There are 64 locks, chosen by the prefix. A datagram of an existing session takes none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;

use crate::dispatch::limit::Limit;
use crate::dispatch::maglev::mix;
use crate::dispatch::verdict::DropReason;
use crate::number;

/// The number of locks. Workers rarely wait for the same one.
const SHARDS: usize = 64;

/// The number of sessions of each prefix that has any.
type PrefixCounts = HashMap<u64, u32, FixedState>;

/// The limits, and how much of them is used.
#[derive(Debug)]
pub struct Quota {
    all: Limit,
    share: u32,
    prefixes: Vec<Mutex<PrefixCounts>>,
}

impl Quota {
    /// Creates a quota of `max` sessions, of which one prefix may hold `share`. `seed` makes it hard to guess which
    /// prefixes collide.
    pub fn new(max: u32, share: u32, seed: u64) -> Quota {
        let counts = || Mutex::new(PrefixCounts::with_hasher(FixedState::with_seed(seed)));
        let prefixes = (0..SHARDS).map(|_| counts()).collect();
        Quota {
            all: Limit::new(max),
            share,
            prefixes,
        }
    }

    /// Returns the most sessions that there may be.
    pub fn max(&self) -> u32 {
        self.all.max()
    }

    /// Returns the number of sessions.
    #[cfg(test)]
    pub fn taken(&self) -> u32 {
        self.all.taken()
    }

    /// Takes a place for a session of a client of the prefix.
    ///
    /// # Errors
    ///
    /// Returns [`DropReason::SessionShare`] if the prefix holds its share, and [`DropReason::SessionLimit`] if all
    /// places are taken. The share is checked first: evicting another session would not help such a prefix.
    pub fn take(&self, prefix: u64) -> Result<(), DropReason> {
        if self.share < self.max() {
            let mut counts = self.shard(prefix);
            let held = counts.get(&prefix).copied().unwrap_or(0);
            if held >= self.share {
                return Err(DropReason::SessionShare);
            }
            self.take_one()?;
            counts.insert(prefix, held + 1);
            return Ok(());
        }
        self.take_one()
    }

    fn take_one(&self) -> Result<(), DropReason> {
        if self.all.take() {
            Ok(())
        } else {
            Err(DropReason::SessionLimit)
        }
    }

    /// Gives back the place of a session of the prefix.
    pub fn give_back(&self, prefix: u64) {
        if self.share < self.max() {
            let mut counts = self.shard(prefix);
            if let Some(held) = counts.get_mut(&prefix) {
                *held -= 1;
                if *held == 0 {
                    counts.remove(&prefix);
                }
            }
        }
        self.all.give_back();
    }

    fn shard(&self, prefix: u64) -> MutexGuard<'_, PrefixCounts> {
        // A worker that panicked has ended the daemon anyway, and the counts are consistent.
        self.prefixes[number::to_usize(mix(prefix)) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Both limits hold exactly, and a place that was given back can be taken again.
    #[test]
    fn both_limits() {
        let quota = Quota::new(3, 2, 1);
        assert_eq!([quota.take(1), quota.take(1)], [Ok(()), Ok(())]);
        assert_eq!(quota.take(1), Err(DropReason::SessionShare));
        assert_eq!(quota.take(2), Ok(()));
        assert_eq!(quota.take(3), Err(DropReason::SessionLimit));
        assert_eq!(
            quota.take(1),
            Err(DropReason::SessionShare),
            "evicting another session would not help this prefix"
        );
        quota.give_back(1);
        assert_eq!(quota.take(3), Ok(()));
        assert_eq!(quota.taken(), 3);
        [1, 2, 3]
            .into_iter()
            .for_each(|prefix| quota.give_back(prefix));
        assert!(
            quota
                .prefixes
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty()),
            "a prefix without sessions is not kept"
        );
    }

    /// Neither limit is exceeded when threads take and give back concurrently, and no place is lost.
    #[test]
    fn limits_hold_under_threads() {
        let (quota, held) = (Quota::new(40, 15, 1), [const { AtomicU32::new(0) }; 5]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (quota, held) = (&quota, &held);
                scope.spawn(move || {
                    let mut random = crate::dispatch::random::Random::new(thread);
                    let mut mine = Vec::new();
                    for _ in 0..20_000 {
                        let prefix = random.below(held.len());
                        if mine.len() < 20 && random.below(2) == 0 {
                            if quota.take(prefix as u64).is_ok() {
                                assert!(
                                    held[prefix].fetch_add(1, Ordering::SeqCst) < 15,
                                    "more than a share"
                                );
                                mine.push(prefix);
                            }
                        } else if let Some(prefix) = mine.pop() {
                            held[prefix].fetch_sub(1, Ordering::SeqCst);
                            quota.give_back(prefix as u64);
                        }
                        assert!(quota.taken() <= 40, "more than there may be");
                    }
                    for prefix in mine {
                        held[prefix].fetch_sub(1, Ordering::SeqCst);
                        quota.give_back(prefix as u64);
                    }
                });
            }
        });
        assert_eq!(quota.taken(), 0);
        assert!(
            quota
                .prefixes
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}
