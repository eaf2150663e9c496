//! When the live view has to end: on SIGTERM, SIGINT and SIGHUP, and when its terminal is gone, as after a dropped
//! connection. A thread watches for both. It ends the process if the loop of the view does not end soon: at the end of
//! file of the terminal, crossterm reads again and again and never returns (`UnixInternalEventSource` in 0.29).

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::screen;

/// Time that the loop of the view has to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Whether the live view has to end.
pub(super) struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Starts to watch.
    pub(super) fn watch() -> io::Result<Ending> {
        let (signals, writer) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, writer.try_clone()?)?;
        }
        let terminal = terminal()?;
        let is_due = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_due);
        thread::Builder::new()
            .name("top-ending".to_owned())
            .spawn(move || {
                wait(&signals, &terminal);
                flag.store(true, Ordering::Relaxed);
                thread::sleep(GRACE);
                screen::restore();
                process::exit(0);
            })?;
        Ok(Ending(is_due))
    }

    /// Returns whether the view has to end.
    pub(super) fn is_due(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the terminal that crossterm reads: standard input, or the controlling terminal.
fn terminal() -> io::Result<OwnedFd> {
    let input = io::stdin();
    if input.is_terminal() {
        return input.as_fd().try_clone_to_owned();
    }
    File::open("/dev/tty").map(OwnedFd::from)
}

/// Waits for a signal, or until the terminal is gone. The kernel reports POLLHUP and POLLERR although they are not
/// requested (poll(2)).
fn wait(signals: &UnixStream, terminal: &OwnedFd) {
    let mut events = [
        PollFd::new(signals, PollFlags::IN),
        PollFd::new(terminal, PollFlags::empty()),
    ];
    while poll(&mut events, None) == Err(Errno::INTR) {}
}
