//! A limit to the number of heavy tests that run at a time. These keep every processor busy, by a browser, a container
//! or a flood. Together, they would make each other and all other tests wait for minutes.

use std::sync::{Condvar, Mutex};
use std::thread::available_parallelism;

/// Number of heavy tests that run at present.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The permit to run a heavy test, until it is dropped.
pub struct Permit(());

impl Permit {
    /// Waits until fewer heavy tests run than half the number of processors, or none if there are fewer than four.
    pub fn take() -> Permit {
        let running_max = available_parallelism().map_or(1, |count| (count.get() / 2).max(1));
        let running = RUNNING.lock().expect("no holder panics");
        let mut running = ENDED
            .wait_while(running, |running| *running >= running_max)
            .expect("no holder panics");
        *running += 1;
        Permit(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().expect("no holder panics") -= 1;
        ENDED.notify_one();
    }
}
