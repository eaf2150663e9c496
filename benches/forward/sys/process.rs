//! Processes that the benchmark starts: how they are pinned, stopped, continued and ended, and what they cost.

use super::{checked, pin};
use std::fs;
use std::io;
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Longest time that the children of a stopped process may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Makes the process of the command start pinned to `cpu`, as the leader of a process group. It is killed when the
/// benchmark ends, even while it is stopped.
pub(crate) fn pinned_child(command: &mut Command, cpu: usize) {
    let in_child = move || {
        // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
        checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        pin(cpu)
    };
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(in_child) };
}

/// Sends a signal to a process that the benchmark started.
pub(crate) fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill touches no memory of ours.
    checked(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// Sends a signal to a process that the benchmark started and to all that it has started itself.
pub(crate) fn signal_group(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill touches no memory of ours.
    checked(unsafe { libc::kill(-(pid as libc::pid_t), signal) }).map(drop)
}

/// Stops a child and all that it has started. Returns when every thread has stopped.
pub(crate) fn stop(family: &[u32]) -> io::Result<()> {
    signal_group(family[0], libc::SIGSTOP)?;
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    checked(unsafe { libc::waitpid(family[0] as libc::pid_t, &raw mut status, libc::WUNTRACED) })?;
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::other("the process ended while it was measured"));
    }
    // waitpid(2) only reports the child itself, and not its children.
    let limit = Instant::now() + STOP_LIMIT;
    while family[1..]
        .iter()
        .any(|&pid| state(pid).is_some_and(|state| state != 'T'))
    {
        if Instant::now() > limit {
            return Err(io::Error::other("a child of the process did not stop"));
        }
        thread::yield_now();
    }
    Ok(())
}

/// Whether a child has ended. It can still be waited for.
pub(crate) fn ended(pid: u32) -> io::Result<bool> {
    // SAFETY: a siginfo_t is made of integers and pointers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` outlives the call.
    checked(unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, how) })?;
    // SAFETY: the call filled in what it has to tell, or left the zeroes.
    Ok(unsafe { info.si_pid() } != 0)
}

/// A process and all that descends from it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
            .unwrap_or_default();
        family.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        next += 1;
    }
    family
}

/// The letter that /proc gives for the state of a process, while it exists.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The processor clock of whole processes, in nanoseconds: the user and system time of all their threads.
pub(crate) struct CpuClock(Vec<libc::clockid_t>);

impl CpuClock {
    pub(crate) fn of(family: &[u32]) -> io::Result<Self> {
        let clock = |pid: &u32| {
            let mut id = 0;
            // SAFETY: `id` outlives the call. The result is an error number, not -1.
            match unsafe { libc::clock_getcpuclockid(*pid as libc::pid_t, &raw mut id) } {
                0 => Ok(id),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        };
        Ok(Self(family.iter().map(clock).collect::<io::Result<_>>()?))
    }

    pub(crate) fn now_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for id in &self.0 {
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: `time` outlives the call.
            checked(unsafe { libc::clock_gettime(*id, &raw mut time) })?;
            sum += time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        }
        Ok(sum)
    }
}

/// One number of a process's status file in KiB, e.g. `VmRSS`.
pub(crate) fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
