//! The handler's end of a queue to a consumer that may block (a terminal, a pipe, a file). The consumer has its own
//! thread in the control plane. A fixed number of buffers with whole lines moves between the two. If no buffer is free,
//! the consumer is behind, and the handler drops the datagram at once. Every verdict is therefore exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::verdict::DropReason;

/// The number of buffers of one handler.
const BUFFERS: usize = 8;
/// The number of bytes at which a buffer is sent before the turn ends.
const BUFFER_BYTES: usize = 64 << 10;

/// Whole lines on their way to the consumer, and the channel that returns their buffer.
#[derive(Debug)]
pub struct Lines {
    /// The lines, each with its line feed.
    pub bytes: Vec<u8>,
    datagrams: u64,
    sink_counts: SinkCounts,
    home: Sender<Vec<u8>>,
}

impl Lines {
    /// Records whether the consumer has written all the bytes, and returns the buffer.
    pub fn done(mut self, written: bool) {
        let counter = if written {
            &self.sink_counts.0.written
        } else {
            &self.sink_counts.0.lost
        };
        counter.fetch_add(self.datagrams, Ordering::Relaxed);
        if !written {
            self.sink_counts.0.closed.store(true, Ordering::Relaxed);
        }
        self.bytes.clear();
        // The handler may be gone at shutdown. The buffer is then freed.
        let _ = self.home.try_send(self.bytes);
    }
}

/// A job for the consumer.
#[derive(Debug)]
pub enum Job {
    /// Write these lines.
    Lines(Lines),
    /// Report on this channel that everything before it is written.
    Barrier(Sender<()>),
}

/// Counts of the lines of a handler that were written or lost. The copies share the counters, which remain readable
/// after the handler is gone.
#[derive(Debug, Clone, Default)]
pub struct SinkCounts(Arc<SinkCounters>);

#[derive(Debug, Default)]
struct SinkCounters {
    written: AtomicU64,
    lost: AtomicU64,
    closed: AtomicBool,
}

impl SinkCounts {
    /// Returns the number of datagrams whose lines the consumer has written, and the number that it has lost.
    pub fn so_far(&self) -> (u64, u64) {
        (
            self.0.written.load(Ordering::Relaxed),
            self.0.lost.load(Ordering::Relaxed),
        )
    }
}

/// Collects lines for the consumer.
#[derive(Debug)]
pub struct LineSink {
    jobs: Sender<Job>,
    free: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
    sink_counts: SinkCounts,
    current: Option<Vec<u8>>,
    datagrams: u64,
}

impl LineSink {
    /// Creates a sink of the consumer behind `jobs`. That channel is unbounded; the number of buffers is bounded.
    pub fn new(jobs: Sender<Job>) -> LineSink {
        let (home, free) = bounded(BUFFERS);
        for _ in 0..BUFFERS {
            home.send(Vec::new())
                .expect("the channel holds all buffers");
        }
        LineSink {
            jobs,
            free,
            home,
            sink_counts: SinkCounts::default(),
            current: None,
            datagrams: 0,
        }
    }

    /// Appends the line of one datagram. `write` must end it with a line feed.
    ///
    /// # Errors
    ///
    /// Returns [`DropReason::SinkClosed`] if the consumer has failed, and [`DropReason::SinkFull`] if no buffer is
    /// free.
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), DropReason> {
        if self.sink_counts.0.closed.load(Ordering::Relaxed) {
            return Err(DropReason::SinkClosed);
        }
        let mut buffer = match self.current.take() {
            Some(buffer) => buffer,
            None => self.free.try_recv().map_err(|_| DropReason::SinkFull)?,
        };
        write(&mut buffer);
        self.datagrams += 1;
        let full = buffer.len() >= BUFFER_BYTES;
        self.current = Some(buffer);
        if full {
            self.flush();
        }
        Ok(())
    }

    /// Sends the current buffer, unless the consumer holds all others. In that case the handler keeps filling it,
    /// since short turns would use up the buffers long before the consumer is behind. Returns whether nothing was
    /// kept.
    pub fn flush_unless_last(&mut self) -> bool {
        if self.current.is_some() && self.free.is_empty() {
            return false;
        }
        self.flush();
        true
    }

    /// Sends the current buffer to the consumer. If the consumer is gone, its lines count as lost.
    pub fn flush(&mut self) {
        let Some(bytes) = self.current.take() else {
            return;
        };
        let datagrams = std::mem::take(&mut self.datagrams);
        let lines = Lines {
            bytes,
            datagrams,
            sink_counts: self.sink_counts.clone(),
            home: self.home.clone(),
        };
        if let Err(refused) = self.jobs.send(Job::Lines(lines))
            && let Job::Lines(lines) = refused.0
        {
            lines.done(false);
        }
    }

    /// Returns the counters of this sink's lines.
    pub fn sink_counts(&self) -> SinkCounts {
        self.sink_counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A consumer that is absent for many short turns loses nothing as long as the lines fit the buffers. It then
    /// receives all of them.
    #[test]
    fn short_turns_share_the_last_buffer() {
        let (jobs, consumer) = crossbeam_channel::unbounded();
        let mut sink = LineSink::new(jobs);
        for turn in 0..10_000 {
            assert_eq!(sink.line(|buffer| buffer.extend_from_slice(b"x\n")), Ok(()));
            assert_eq!(sink.flush_unless_last(), turn < BUFFERS - 1);
        }
        sink.flush();
        let mut bytes = 0;
        while let Ok(Job::Lines(lines)) = consumer.try_recv() {
            bytes += lines.bytes.len();
            lines.done(true);
        }
        assert_eq!((bytes, sink.sink_counts().so_far()), (20_000, (10_000, 0)));
    }

    /// A blocked consumer costs its own handler datagrams, each with a verdict, and never further memory.
    #[test]
    fn a_slow_consumer_is_bounded_and_counted() {
        let (jobs, consumer) = crossbeam_channel::unbounded();
        let done = |written| match consumer.try_recv() {
            Ok(Job::Lines(lines)) => lines.done(written),
            other => panic!("lines are under way: {other:?}"),
        };
        let mut sink = LineSink::new(jobs);
        let line = |sink: &mut LineSink| sink.line(|buffer| buffer.extend_from_slice(b"x\n"));
        for _ in 0..BUFFERS {
            assert_eq!(line(&mut sink), Ok(()));
            sink.flush();
        }
        assert_eq!(line(&mut sink), Err(DropReason::SinkFull));
        done(true);
        assert_eq!(line(&mut sink), Ok(()));
        sink.flush();
        done(false);
        assert_eq!(line(&mut sink), Err(DropReason::SinkClosed));
        assert_eq!(sink.sink_counts().so_far(), (1, 1));
    }
}
