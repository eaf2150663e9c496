//! The queue of log lines and ledgers to standard error. One thread writes them in order and may block there for any
//! time, so logging never blocks. If the reader stalls, lines beyond the limit are dropped, and their number is
//! reported in their place. If the disk is full, the log waits until there is space again.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::Level;

use crate::build::line_writer::write_all;
use crate::config::diagnostics::counted;

/// Largest number of queued bytes. One more text is accepted while the queue is below it, so that a ledger of any size
/// can be shown.
const BYTES_MAX: usize = 1 << 20;

/// Time between two attempts to write while the disk is full. The kernel does not notify when there is space again.
const RETRY: Duration = Duration::from_secs(1);

/// The queue is global, since a process has one standard error.
static QUEUE: LogQueue = LogQueue::new();

/// Queues text that consists of whole lines.
pub fn show(text: impl Into<String>) {
    enqueue(text.into().into_bytes());
}

/// Returns a line in the format of the log.
pub fn line(level: Level, message: impl Display) -> String {
    format!(
        "{} {level:<5} {message}",
        humantime::format_rfc3339_millis(SystemTime::now())
    )
}

/// Returns the target for a logger. Each write must consist of whole lines.
pub fn target() -> Box<dyn Write + Send> {
    Box::new(LogTarget)
}

/// Waits until everything queued so far is written, and returns `false` if the deadline passes first.
pub fn drain(deadline: Instant) -> bool {
    QUEUE.drain(deadline)
}

/// Returns a sentence that explains why the log cannot be written; `None` while it can be.
pub fn last_error() -> Option<String> {
    QUEUE.state().last_error.clone()
}

fn enqueue(text: Vec<u8>) {
    if QUEUE.start() {
        QUEUE.push(text);
    } else {
        // Without the thread the daemon exits soon. Write directly, since this text explains the exit.
        let _ = write(&mut text.as_slice());
    }
}

/// Writes the text. After an error, `text` holds what was not written.
fn write(text: &mut &[u8]) -> io::Result<()> {
    write_all(&mut io::stderr(), text)
}

/// Returns whether a later attempt may succeed. After any other error, no process reads the log.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn explain(error: &io::Error) -> String {
    if is_temporary(error) {
        format!(
            "the log cannot be written: {error}; free some space; the daemon keeps up to 1 MiB of log lines and writes them then"
        )
    } else {
        format!("the log cannot be written: {error}; the reader of standard error has closed it")
    }
}

struct LogTarget;

impl Write for LogTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        enqueue(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The texts that wait to be written.
struct LogQueue {
    state: Mutex<LogQueueState>,
    changed: Condvar,
}

struct LogQueueState {
    texts: VecDeque<Vec<u8>>,
    /// Number of queued bytes, including the text that is being written.
    bytes: usize,
    /// Number of lines dropped since the last accepted text.
    dropped: usize,
    /// The reason why the last text could not be written, as a sentence.
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
        // A panic while the lock is held cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, once. It ends with the process, since nothing can interrupt a blocked write.
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
        state.report_dropped();
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
                if !is_temporary(&error) {
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
                state.report_dropped();
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

    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let were = if dropped == 1 { "was" } else { "were" };
            let message = format!(
                "{} {were} dropped because standard error was blocked",
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

    /// Consumes a whole text, as a successful write does.
    fn whole(text: &mut &[u8]) -> String {
        String::from_utf8_lossy(std::mem::take(text)).into_owned()
    }

    /// While the reader stalls, memory is bounded and logging does not block. When it reads again, it gets all accepted
    /// text in order, and a count in the place of the dropped lines.
    #[test]
    fn a_blocked_reader_costs_only_lines() {
        static BLOCKED: LogQueue = LogQueue::new();
        let (sender, receiver) = sync_channel(0);
        thread::spawn(|| {
            BLOCKED.write_out(move |text| {
                sender.send(whole(text)).unwrap();
                Ok(())
            });
        });
        let half = "x".repeat(BYTES_MAX / 2) + "\n";
        BLOCKED.push(b"first\n".to_vec());
        for text in [&half, &half, "dropped\n", "dropped\ndropped\n"] {
            BLOCKED.push(text.as_bytes().to_vec());
        }
        assert!(!BLOCKED.drain(Instant::now() + Duration::from_millis(20)));
        assert_eq!(receiver.recv().unwrap(), "first\n");
        for _ in 0..2 {
            assert_eq!(receiver.recv().unwrap().len(), half.len());
        }
        assert!(
            receiver
                .recv()
                .unwrap()
                .ends_with("WARN  3 log lines were dropped because standard error was blocked\n")
        );
        assert!(BLOCKED.drain(Instant::now() + Duration::from_secs(20)));
        BLOCKED.push(b"last\n".to_vec());
        assert_eq!(receiver.recv().unwrap(), "last\n");
    }

    /// Lines between two stalls are not written before the report of the lines that were dropped before them.
    #[test]
    fn drops_are_reported_in_their_place() {
        static SLOW: LogQueue = LogQueue::new();
        let (release, gate) = channel::<()>();
        let (began, begun) = channel();
        let (sender, receiver) = channel();
        thread::spawn(|| {
            SLOW.write_out(move |text| {
                began.send(()).unwrap();
                gate.recv().unwrap();
                sender.send(whole(text)).unwrap();
                Ok(())
            });
        });
        SLOW.push(b"first\n".to_vec());
        // The thread has taken the text, so from here on only the test changes the fill level of the queue.
        begun.recv().unwrap();
        let whole = "x".repeat(BYTES_MAX - 1) + "\n";
        for text in [&whole, "dropped\n"] {
            SLOW.push(text.as_bytes().to_vec());
        }
        for text in ["first\n", &whole] {
            release.send(()).unwrap();
            assert_eq!(receiver.recv().unwrap(), text);
        }
        while SLOW.state().bytes >= BYTES_MAX {
            thread::yield_now(); // The written text counts until the thread has updated the queue.
        }
        // Either the thread or the next text reports the drops, never both and never later.
        SLOW.push(b"after\n".to_vec());
        for _ in 0..2 {
            release.send(()).unwrap();
        }
        assert!(receiver.recv().unwrap().contains("1 log line was dropped"));
        assert_eq!(receiver.recv().unwrap(), "after\n");
    }
}
