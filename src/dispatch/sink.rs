//! The handler's end of a consumer that may block (a terminal, a pipe, a file). The consumer has a thread of its own in
//! the control plane; between the two go whole buffers of lines, of which there is a fixed number. A handler that gets
//! no buffer knows at once that the consumer is behind, so every datagram's verdict is exact when it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::verdict::DropReason;

/// Buffers that one handler may have under way.
const BUFFERS: usize = 8;
/// A buffer with this many bytes is handed on before the turn ends.
const BUFFER_BYTES: usize = 64 << 10;

/// Some whole lines on their way to the consumer, and where their buffer goes back to.
#[derive(Debug)]
pub struct Lines {
    /// The lines, each with its line feed.
    pub bytes: Vec<u8>,
    datagrams: u64,
    sink_counts: SinkCounts,
    home: Sender<Vec<u8>>,
}

impl Lines {
    /// The consumer has taken all the bytes, or has failed to.
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
        // The handler may be gone at shutdown; then the buffer is simply freed.
        let _ = self.home.try_send(self.bytes);
    }
}

/// Something for the consumer to do.
#[derive(Debug)]
pub enum Job {
    /// Write these.
    Lines(Lines),
    /// Everything before this is written: say so.
    Barrier(Sender<()>),
}

/// What became of the lines that a handler has handed on. Whoever has a copy can ask, also when the handler is gone.
#[derive(Debug, Clone, Default)]
pub struct SinkCounts(Arc<SinkCounters>);

#[derive(Debug, Default)]
struct SinkCounters {
    written: AtomicU64,
    lost: AtomicU64,
    closed: AtomicBool,
}

impl SinkCounts {
    /// How many datagrams' lines the consumer has taken, and how many it has lost.
    pub fn so_far(&self) -> (u64, u64) {
        (
            self.0.written.load(Ordering::Relaxed),
            self.0.lost.load(Ordering::Relaxed),
        )
    }
}

/// Takes lines for the consumer.
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
    /// A sink of the consumer behind `jobs`. That channel is unbounded; the buffers are what is bounded.
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

    /// Appends one datagram's line, which `write` must end with a line feed.
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

    /// Hands on what was gathered, unless the consumer is busy with all the other buffers: then this one goes on filling,
    /// since short turns would use the buffers up long before the consumer is behind. Whether nothing was kept.
    pub fn flush_unless_last(&mut self) -> bool {
        if self.current.is_some() && self.free.is_empty() {
            return false;
        }
        self.flush();
        true
    }

    /// Hands on what was gathered.
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

    /// What becomes of the lines.
    pub fn sink_counts(&self) -> SinkCounts {
        self.sink_counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A consumer that is away for many short turns costs nothing as long as the lines fit the buffers, and gets all of them.
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

    /// A consumer that stands still costs its own handler datagrams, each with a verdict, and never memory.
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
