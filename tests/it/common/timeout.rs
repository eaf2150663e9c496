//! How long tests wait, and the one loop in which they wait.

use std::fmt::{self, Display, Formatter};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Longest wait for anything that should be quick, on a slow and busy machine. Only a test that fails waits this long.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// First and longest pause between two attempts; each pause is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// Processor time that this thread has used. A limit to it holds on a busy machine, too.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Outcome of one attempt of [`eventually`].
pub trait Attempt {
    /// What is found in the end.
    type Found;
    /// What was seen instead. Only that of the last attempt is reported.
    type Seen: Display;

    /// Returns what was found, or what was seen instead.
    fn outcome(self) -> Result<Self::Found, Self::Seen>;
}

impl Attempt for bool {
    type Found = ();
    type Seen = &'static str;

    fn outcome(self) -> Result<(), &'static str> {
        if self { Ok(()) } else { Err("") }
    }
}

impl<T> Attempt for Option<T> {
    type Found = T;
    type Seen = &'static str;

    fn outcome(self) -> Result<T, &'static str> {
        self.ok_or("")
    }
}

impl<T, E: Display> Attempt for Result<T, E> {
    type Found = T;
    type Seen = E;

    fn outcome(self) -> Result<T, E> {
        self
    }
}

/// A report of what an attempt saw that is expensive to make. It is made only if it is needed.
pub struct Lazy<F: Fn() -> String>(pub F);

impl<F: Fn() -> String> Display for Lazy<F> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&(self.0)())
    }
}

/// Tries until an attempt is `true`, `Some` or `Ok`, and returns what was found.
///
/// # Panics
///
/// Panics when [`TIMEOUT`] is over, with the object of the wait and the error of the last attempt.
#[track_caller]
pub fn eventually<A: Attempt>(what: impl Display, attempt: impl FnMut() -> A) -> A::Found {
    eventually_within(TIMEOUT, what, attempt)
}

/// As [`eventually`], with another limit, for what takes longer than [`TIMEOUT`], such as the boot of a container.
#[track_caller]
pub fn eventually_within<A: Attempt>(
    limit: Duration,
    what: impl Display,
    mut attempt: impl FnMut() -> A,
) -> A::Found {
    let deadline = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    loop {
        // This is read before the attempt, so that the last attempt begins after the deadline even if it takes long.
        let is_last = Instant::now() >= deadline;
        match attempt().outcome() {
            Ok(found) => return found,
            Err(seen) => assert!(!is_last, "not within {limit:?}: {what}\n{seen}"),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
