//! Starts a program as an orphan (fork(2) twice), so that init or a service manager is its parent from the start.
//! systemd sends SIGKILL instead of SIGTERM to a main process that is not its child.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::wait;

/// A process that was started as an orphan.
#[derive(Debug)]
pub struct Orphan {
    /// The process ID.
    pub pid: u32,
    /// A pidfd, readable when the process has ended (pidfd_open(2)); `None` if it had ended before the descriptor could
    /// be opened.
    process: Option<OwnedFd>,
}

/// Starts a program.
///
/// # Errors
/// Returns the error of a system call, or that of the program itself, such as a file that cannot be executed.
pub fn spawn(mut command: Command) -> io::Result<Orphan> {
    let (mut reader, writer) = io::pipe()?;
    let report = writer.as_raw_fd();
    let fork_again = move || {
        // SAFETY: this runs in the child, which has one thread.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(()),
            pid => {
                let pid = pid.to_ne_bytes();
                // SAFETY: the buffer is our own; the descriptor is open as long as `writer` is, which outlives the
                // child.
                unsafe { libc::write(report, pid.as_ptr().cast(), pid.len()) };
                // SAFETY: the call ends this process and does nothing else.
                unsafe { libc::_exit(0) }
            }
        }
    };
    // SAFETY: between fork and exec the closure makes these system calls, and allocates nothing.
    unsafe { command.pre_exec(fork_again) };
    // When this returns, the program runs, or has failed to.
    let mut between = command.spawn()?;
    drop(writer);
    between.wait()?;
    let mut pid = [0; size_of::<libc::pid_t>()];
    reader.read_exact(&mut pid)?;
    let pid = libc::pid_t::from_ne_bytes(pid);
    let process = match Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(process)) => Some(process),
        None | Some(Err(Errno::SRCH)) => None,
        Some(Err(error)) => return Err(error.into()),
    };
    Ok(Orphan {
        pid: pid.unsigned_abs(),
        process,
    })
}

impl Orphan {
    /// Waits until the process has ended.
    ///
    /// # Errors
    /// Returns the error of poll(2).
    pub fn wait(&self) -> io::Result<()> {
        self.process.as_ref().map_or(Ok(()), wait::until_readable)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The program runs and is not a child of this process, its end is seen, and a program that does not exist is an
    /// error.
    #[test]
    #[cfg_attr(miri, ignore = "it makes system calls")]
    fn the_program_is_not_a_child() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("parent");
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("echo $PPID > {}", file.display()));
        let orphan = spawn(command).expect("it starts");
        assert_ne!(orphan.pid, std::process::id());
        orphan.wait().expect("it ends");
        let parent: u32 = fs::read_to_string(&file)
            .expect("it ran")
            .trim()
            .parse()
            .expect("a number");
        assert_ne!(parent, std::process::id());
        let missing = spawn(Command::new("/no/such/program")).expect_err("it is not there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
