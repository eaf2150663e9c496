//! The consumer behind `print`: one thread that writes lines to standard output and may block there for any time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::dispatch::sink::Job;
use crate::net::wait;

/// Starts the thread. The number of queued lines is bounded by their buffers, not by the channel. The thread ends with
/// the process, since nothing can interrupt a blocked write.
///
/// # Errors
///
/// Returns the error of the kernel if standard output cannot be duplicated or the thread cannot be started.
pub fn start() -> io::Result<Sender<Job>> {
    let (jobs, queue) = unbounded();
    // Bypass io::stdout(): its buffer would add a copy, and its lock could block.
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(move || consume(output, &queue))?;
    Ok(jobs)
}

fn consume(mut output: File, queue: &Receiver<Job>) {
    let mut closed = false;
    for job in queue {
        match job {
            Job::Lines(lines) if closed => lines.done(false),
            Job::Lines(lines) => {
                let written = write_all(&mut output, &mut lines.bytes.as_slice());
                if let Err(error) = &written {
                    log::error!(
                        "standard output is closed ({error}): `print` handlers drop all further datagrams"
                    );
                    closed = true;
                }
                lines.done(written.is_ok());
            }
            Job::Barrier(reached) => {
                // The receiver may have stopped waiting.
                let _ = reached.send(());
            }
        }
    }
}

/// Writes all of `bytes`, like [`Write::write_all`], but waits if the write would block. All users of a pipe share
/// O_NONBLOCK, so another process may have set it, and a full pipe is not a closed one.
///
/// # Errors
///
/// Returns the error of the write. `bytes` then holds what was not written.
pub(crate) fn write_all<W: Write + AsFd>(output: &mut W, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait::until_writable(&*output)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until all lines queued so far are written, and returns `false` if the timeout expires first.
pub fn drain(jobs: &Sender<Job>, timeout: Duration) -> bool {
    let (reached, wait) = bounded(1);
    jobs.send(Job::Barrier(reached)).is_ok() && wait.recv_timeout(timeout).is_ok()
}
