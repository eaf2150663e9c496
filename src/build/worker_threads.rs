//! Threads for workers. They are started before the workers exist, so that no step can fail after the previous workers
//! have stopped.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use mio::Waker;

use crate::worker::command::Handle;
use crate::worker::event_loop::Worker;

/// Threads that wait for their workers. They end when this value is dropped.
pub struct WorkerThreads(Vec<(Sender<Worker>, JoinHandle<Option<Worker>>)>);

/// Wakes the supervisor when a thread ends, for any reason.
struct WakeOnExit(Arc<Waker>);

impl Drop for WakeOnExit {
    fn drop(&mut self) {
        // This fails only if the supervisor has ended.
        let _ = self.0.wake();
    }
}

impl WorkerThreads {
    /// Starts `count` threads. `ended` is woken when one of them ends.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if a thread cannot be started. Those already started end.
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

    /// Starts the workers. There must be as many workers as threads.
    ///
    /// # Panics
    ///
    /// Panics in debug builds if the numbers differ.
    pub fn start(
        self,
        workers: Vec<(Worker, Handle)>,
    ) -> Vec<(Handle, JoinHandle<Option<Worker>>)> {
        debug_assert_eq!(self.0.len(), workers.len(), "each worker has a thread");
        let start = |((sender, thread), (worker, handle))| {
            // The thread waits for the worker, so the send cannot fail.
            let _: Result<(), _> = Sender::<Worker>::send(&sender, worker);
            (handle, thread)
        };
        self.0.into_iter().zip(workers).map(start).collect()
    }

    /// Starts workers that have run before, with their previous handles.
    pub fn resume(
        self,
        workers: Vec<Worker>,
        handles: Vec<Handle>,
    ) -> Vec<(Handle, JoinHandle<Option<Worker>>)> {
        self.start(workers.into_iter().zip(handles).collect())
    }
}
