//! The log and the ledger on their way to standard error: one thread writes them, in their order, and may block there as
//! long as it likes. Whoever logs never waits. What is too much for a reader that stands still is dropped and counted, and
//! the count is told in its place. Where the disk is full, the log waits until there is room again.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::Level;

use crate::build::line_writer::write_all;
use crate::config::diagnostics::counted;

/// Bytes that may wait. One text more is let in below it, so that a ledger of any size can be shown.
const BYTES_MAX: usize = 1 << 20;

/// Time between two tries to write where the disk is full: nobody tells when there is room again.
const RETRY: Duration = Duration::from_secs(1);

/// A process has one standard error.
static QUEUE: LogQueue = LogQueue::new();

/// Shows whole lines.
pub fn show(text: impl Into<String>) {
    hand_over(text.into().into_bytes());
}

/// One line of the log.
pub fn line(level: Level, message: impl Display) -> String {
    format!(
        "{} {level:<5} {message}",
        humantime::format_rfc3339_millis(SystemTime::now())
    )
}

/// Where a logger writes to. Each write must be of whole lines.
pub fn target() -> Box<dyn Write + Send> {
    Box::new(LogTarget)
}

/// Waits until all that was shown so far is written, or the time is over.
pub fn drain(deadline: Instant) -> bool {
    QUEUE.drain(deadline)
}

/// Why the log cannot be written, as a sentence, until it can be written again.
pub fn last_error() -> Option<String> {
    QUEUE.state().last_error.clone()
}

fn hand_over(text: Vec<u8>) {
    if QUEUE.start() {
        QUEUE.push(text);
    } else {
        // Without a thread the daemon ends soon, and this is why.
        let _ = write(&mut text.as_slice());
    }
}

/// What is left of the text is not written.
fn write(text: &mut &[u8]) -> io::Result<()> {
    write_all(&mut io::stderr(), text)
}

/// Whether there may be room later. Anything else means that nobody is left to be told.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn explain(error: &io::Error) -> String {
    match may_pass(error) {
        true => format!(
            "the log cannot be written: {error}; make room, and what waits (1 MiB at most) is written"
        ),
        false => format!("the log cannot be written: {error}; who read standard error is gone"),
    }
}

struct LogTarget;

impl Write for LogTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        hand_over(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Texts that wait to be written.
struct LogQueue {
    state: Mutex<LogQueueState>,
    changed: Condvar,
}

struct LogQueueState {
    texts: VecDeque<Vec<u8>>,
    /// Bytes of them, and of the one that is being written.
    bytes: usize,
    /// Lines dropped since the last text that was let in.
    dropped: usize,
    /// Why the last text could not be written.
    last_error: Option<String>,
    is_started: bool,
}

impl LogQueue {
    const fn new() -> LogQueue {
        let state = LogQueueState {
            texts: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            last_error: None,
            is_started: false,
        };
        LogQueue {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, LogQueueState> {
        // Nothing that holds it can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, once. It ends with the process, since nothing can end a write that blocks.
    fn start(&'static self) -> bool {
        let mut state = self.state();
        if !state.is_started {
            let thread = thread::Builder::new().name("stderr".to_owned());
            state.is_started = thread.spawn(|| self.write_out(write)).is_ok();
        }
        state.is_started
    }

    fn push(&self, text: Vec<u8>) {
        let mut state = self.state();
        if state.bytes >= BYTES_MAX {
            state.dropped += text.iter().filter(|byte| **byte == b'\n').count();
            return;
        }
        state.tell_dropped();
        state.add(text);
        self.changed.notify_all();
    }

    fn write_out(&self, mut write: impl FnMut(&mut &[u8]) -> io::Result<()>) {
        loop {
            let is_idle = |state: &mut LogQueueState| state.texts.is_empty();
            let waited = self.changed.wait_while(self.state(), is_idle);
            let text = waited
                .unwrap_or_else(PoisonError::into_inner)
                .texts
                .pop_front()
                .unwrap_or_default();
            let mut rest = text.as_slice();
            while let Err(error) = write(&mut rest) {
                self.state().last_error = Some(explain(&error));
                if !may_pass(&error) {
                    break;
                }
                thread::sleep(RETRY);
            }
            let mut state = self.state();
            if rest.is_empty() {
                state.last_error = None;
            }
            state.bytes -= text.len();
            if state.texts.is_empty() {
                state.tell_dropped();
            }
            self.changed.notify_all();
        }
    }

    fn drain(&self, deadline: Instant) -> bool {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(self.state(), timeout, |state| state.bytes > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.bytes == 0
    }
}

impl LogQueueState {
    fn add(&mut self, text: Vec<u8>) {
        self.bytes += text.len();
        self.texts.push_back(text);
    }

    fn tell_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let were = if dropped == 1 { "was" } else { "were" };
            let message = format!(
                "{} {were} dropped: standard error was blocked",
                counted(dropped, "log line")
            );
            self.add((line(Level::Warn, message) + "\n").into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;

    /// Takes all of a text, as a write does.
    fn whole(text: &mut &[u8]) -> String {
        String::from_utf8_lossy(std::mem::take(text)).into_owned()
    }

    /// While the reader stands still, memory is bounded and nobody waits; when it reads again it gets everything that was
    /// let in, in order, and in the place of the rest how much that was.
    #[test]
    fn a_blocked_reader_costs_only_lines() {
        static BLOCKED: LogQueue = LogQueue::new();
        let (say, hear) = sync_channel(0);
        thread::spawn(|| {
            BLOCKED.write_out(move |text| {
                say.send(whole(text)).unwrap();
                Ok(())
            })
        });
        let half = "x".repeat(BYTES_MAX / 2) + "\n";
        BLOCKED.push(b"first\n".to_vec());
        for text in [&half, &half, "dropped\n", "dropped\ndropped\n"] {
            BLOCKED.push(text.as_bytes().to_vec());
        }
        assert!(!BLOCKED.drain(Instant::now() + Duration::from_millis(20)));
        assert_eq!(hear.recv().unwrap(), "first\n");
        for _ in 0..2 {
            assert_eq!(hear.recv().unwrap().len(), half.len());
        }
        assert!(
            hear.recv()
                .unwrap()
                .ends_with("WARN  3 log lines were dropped: standard error was blocked\n")
        );
        assert!(BLOCKED.drain(Instant::now() + Duration::from_secs(20)));
        BLOCKED.push(b"last\n".to_vec());
        assert_eq!(hear.recv().unwrap(), "last\n");
    }

    /// Lines that come between two jams are not told before the lines that were dropped before them.
    #[test]
    fn what_was_dropped_is_told_in_its_place() {
        static SLOW: LogQueue = LogQueue::new();
        let (let_go, gate) = channel::<()>();
        let (come, came) = channel();
        let (say, hear) = channel();
        thread::spawn(|| {
            SLOW.write_out(move |text| {
                come.send(()).unwrap();
                gate.recv().unwrap();
                say.send(whole(text)).unwrap();
                Ok(())
            })
        });
        SLOW.push(b"first\n".to_vec());
        // The thread has it, so from here on the queue is as full as we make it.
        came.recv().unwrap();
        let whole = "x".repeat(BYTES_MAX - 1) + "\n";
        for text in [&whole, "dropped\n"] {
            SLOW.push(text.as_bytes().to_vec());
        }
        for text in ["first\n", &whole] {
            let_go.send(()).unwrap();
            assert_eq!(hear.recv().unwrap(), text);
        }
        while SLOW.state().bytes >= BYTES_MAX {
            thread::yield_now(); // What was written counts until the thread is back.
        }
        // The thread tells of it now, or the next text does; never both, and never later.
        SLOW.push(b"after\n".to_vec());
        for _ in 0..2 {
            let_go.send(()).unwrap();
        }
        assert!(hear.recv().unwrap().contains("1 log line was dropped"));
        assert_eq!(hear.recv().unwrap(), "after\n");
    }
}
