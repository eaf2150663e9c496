//! Threads for workers. They are there before the workers that will use them, so that nothing can fail any more once those that
//! ran before have stopped.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use mio::Waker;

use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;

/// Threads that wait for their workers. Dropped, they end.
pub struct WorkerThreads(Vec<(Sender<Worker>, JoinHandle<Option<Worker>>)>);

/// Wakes the supervisor when a thread ends, whatever the reason.
struct WakeOnExit(Arc<Waker>);

impl Drop for WakeOnExit {
    fn drop(&mut self) {
        // Without the supervisor there is nobody to tell.
        let _ = self.0.wake();
    }
}

impl WorkerThreads {
    /// So many threads. `ended` is woken when one of them ends.
    pub fn new(count: usize, ended: &Arc<Waker>) -> io::Result<WorkerThreads> {
        let thread = |number| {
            let (sender, receiver) = bounded::<Worker>(1);
            let wake_on_exit = WakeOnExit(Arc::clone(ended));
            let run = move || {
                let worker = receiver.recv().ok()?;
                let _wake_on_exit = wake_on_exit;
                Some(worker.run())
            };
            Ok((
                sender,
                thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(run)?,
            ))
        };
        (0..count)
            .map(thread)
            .collect::<io::Result<_>>()
            .map(WorkerThreads)
    }

    /// Starts the workers, of which there are as many.
    pub fn start(
        self,
        workers: Vec<(Worker, Handle)>,
    ) -> Vec<(Handle, JoinHandle<Option<Worker>>)> {
        debug_assert_eq!(self.0.len(), workers.len(), "each worker has a thread");
        let start = |((sender, thread), (worker, handle))| {
            // The thread waits, so it takes it.
            let _: Result<(), _> = Sender::<Worker>::send(&sender, worker);
            (handle, thread)
        };
        self.0.into_iter().zip(workers).map(start).collect()
    }

    /// Starts workers that have run before, with the handles that they had.
    pub fn resume(
        self,
        workers: Vec<Worker>,
        handles: Vec<Handle>,
    ) -> Vec<(Handle, JoinHandle<Option<Worker>>)> {
        self.start(workers.into_iter().zip(handles).collect())
    }
}
