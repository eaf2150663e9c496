//! Repeated jobs, each with its own interval and a shared limit of jobs in progress. The schedule reads no clock and
//! does not know what the jobs are; the caller passes the time.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Shortest interval, so that no job is due again at the moment it ends.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// An action that the caller must take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Begin this job. It is in progress until [`Schedule::done`].
    Begin(usize),
    /// This job has exceeded its time limit. Reported once.
    Overdue(usize),
}

/// The jobs, by number.
#[derive(Debug)]
pub struct Schedule {
    jobs: Vec<ScheduledJob>,
    /// The next moment of each job, if any: to begin, or to be overdue.
    timers: BTreeSet<(Instant, usize)>,
    /// Jobs that are due while too many others are in progress.
    waiting: VecDeque<usize>,
    in_progress: usize,
    in_progress_max: usize,
}

#[derive(Debug)]
struct ScheduledJob {
    /// The origin of the job's grid. The job begins at whole intervals from it.
    grid: Instant,
    /// Time between two beginnings; `None` if the job does not repeat by itself.
    interval: Option<Duration>,
    timeout: Duration,
    timer: Option<Instant>,
    state: JobState,
    began: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    Idle,
    Waiting,
    InProgress,
}

impl Schedule {
    /// Returns a schedule without jobs that allows `in_progress_max` jobs in progress.
    pub fn new(in_progress_max: usize) -> Schedule {
        let (jobs, timers, waiting) = (Vec::new(), BTreeSet::new(), VecDeque::new());
        Schedule {
            jobs,
            timers,
            waiting,
            in_progress: 0,
            in_progress_max,
        }
    }

    /// Adds a job and returns its number. It begins at `first`, if given, and then at the moments of its grid. It is
    /// overdue when its time limit has passed after a beginning.
    pub fn add(
        &mut self,
        grid: Instant,
        first: Option<Instant>,
        interval: Option<Duration>,
        timeout: Duration,
    ) -> usize {
        let interval = interval.map(|interval| interval.max(INTERVAL_MIN));
        self.jobs.push(ScheduledJob {
            grid,
            interval,
            timeout,
            timer: None,
            state: JobState::Idle,
            began: grid,
        });
        self.set_timer(self.jobs.len() - 1, first);
        self.jobs.len() - 1
    }

    /// Returns when there will be something to do, unless the schedule changes before.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns the next thing to do now. Call it until it returns `None`.
    pub fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        if self.in_progress < self.in_progress_max
            && let Some(job) = self.waiting.pop_front()
        {
            return Some(self.begin(job, now));
        }
        while let Some(&(at, job)) = self.timers.first()
            && at <= now
        {
            self.set_timer(job, None);
            match self.jobs[job].state {
                JobState::InProgress => return Some(Turn::Overdue(job)),
                JobState::Idle if self.in_progress < self.in_progress_max => {
                    return Some(self.begin(job, now));
                }
                JobState::Idle => {
                    self.jobs[job].state = JobState::Waiting;
                    self.waiting.push_back(job);
                }
                JobState::Waiting => {}
            }
        }
        None
    }

    fn begin(&mut self, job: usize, now: Instant) -> Turn {
        self.in_progress += 1;
        self.jobs[job].state = JobState::InProgress;
        self.jobs[job].began = now;
        self.set_timer(job, now.checked_add(self.jobs[job].timeout));
        Turn::Begin(job)
    }

    /// Marks a job as no longer in progress. It begins again at the first future moment of its grid that is at least
    /// half an interval after its last beginning.
    pub fn done(&mut self, job: usize, now: Instant) {
        let ScheduledJob {
            grid,
            interval,
            state,
            began,
            ..
        } = &mut self.jobs[job];
        if *state != JobState::InProgress {
            return;
        }
        *state = JobState::Idle;
        self.in_progress -= 1;
        let next = interval
            .and_then(|interval| next_on_grid(*grid, interval, now.max(*began + interval / 2)));
        self.set_timer(job, next);
    }

    /// Makes a job due now, unless it is in progress.
    pub fn hasten(&mut self, job: usize, now: Instant) {
        if self.jobs[job].state == JobState::Idle {
            self.set_timer(job, Some(now));
        }
    }

    /// Sets the interval that applies after the next end of the job; `None` stops its repetition.
    pub fn set_interval(&mut self, job: usize, interval: Option<Duration>) {
        self.jobs[job].interval = interval.map(|interval| interval.max(INTERVAL_MIN));
    }

    fn set_timer(&mut self, job: usize, at: Option<Instant>) {
        if let Some(old) = std::mem::replace(&mut self.jobs[job].timer, at) {
            self.timers.remove(&(old, job));
        }
        if let Some(at) = at {
            self.timers.insert((at, job));
        }
    }
}

/// Returns the first moment after `after` that is a whole number of intervals from `grid`. `None` if there is none.
fn next_on_grid(grid: Instant, interval: Duration, after: Instant) -> Option<Instant> {
    let passed = after.saturating_duration_since(grid).as_nanos() / interval.as_nanos();
    let whole = (passed + 1).checked_mul(interval.as_nanos())?;
    grid.checked_add(Duration::from_nanos(u64::try_from(whole).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns everything that must be done now, in order.
    fn turns(schedule: &mut Schedule, now: Instant) -> Vec<Turn> {
        std::iter::from_fn(|| schedule.next_turn(now)).collect()
    }

    /// A job keeps to its grid for any duration, skips the beginnings that it missed, and is overdue once.
    #[test]
    fn jobs_keep_to_their_grid() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9);
        let job = schedule.add(start, Some(start), Some(10 * SECOND), 2 * SECOND);
        assert_eq!(turns(&mut schedule, start), [Turn::Begin(job)]);
        assert_eq!(schedule.wake_at(), Some(start + 2 * SECOND));
        assert_eq!(turns(&mut schedule, start + SECOND), []);
        assert_eq!(
            turns(&mut schedule, start + 2 * SECOND),
            [Turn::Overdue(job)]
        );
        assert_eq!(schedule.wake_at(), None, "reported once");
        schedule.done(job, start + 3 * SECOND);
        assert_eq!(schedule.wake_at(), Some(start + 10 * SECOND));
        // The caller is late, because its thread was busy or the machine slept.
        assert_eq!(
            turns(&mut schedule, start + 47 * SECOND),
            [Turn::Begin(job)]
        );
        schedule.done(job, start + 47 * SECOND);
        assert_eq!(
            schedule.wake_at(),
            Some(start + 60 * SECOND),
            "50 is too near"
        );
        schedule.hasten(job, start + 48 * SECOND);
        assert_eq!(
            turns(&mut schedule, start + 48 * SECOND),
            [Turn::Begin(job)]
        );
        schedule.set_interval(job, None);
        schedule.done(job, start + 49 * SECOND);
        assert_eq!(schedule.wake_at(), None);
    }

    /// At most the limit of jobs are in progress. The others wait in order, and none is begun twice.
    #[test]
    fn only_so_many_at_a_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(2);
        for _ in 0..4 {
            schedule.add(start, Some(start), Some(10 * SECOND), 2 * SECOND);
        }
        assert_eq!(
            turns(&mut schedule, start),
            [Turn::Begin(0), Turn::Begin(1)]
        );
        schedule.hasten(3, start);
        assert_eq!(turns(&mut schedule, start), []);
        schedule.done(1, start);
        schedule.done(1, start);
        assert_eq!(
            turns(&mut schedule, start),
            [Turn::Begin(2)],
            "done twice is done once"
        );
        assert_eq!(
            turns(&mut schedule, start + 2 * SECOND),
            [Turn::Overdue(0), Turn::Overdue(2)]
        );
        schedule.done(0, start + 2 * SECOND);
        assert_eq!(turns(&mut schedule, start + 2 * SECOND), [Turn::Begin(3)]);
    }

    /// An interval of zero does not make a job permanently due.
    #[test]
    fn no_job_is_always_due() {
        let start = Instant::now();
        let mut schedule = Schedule::new(1);
        schedule.add(start, Some(start), Some(Duration::ZERO), Duration::ZERO);
        assert_eq!(schedule.next_turn(start), Some(Turn::Begin(0)));
        schedule.done(0, start);
        assert_eq!(schedule.next_turn(start), None);
    }
}
