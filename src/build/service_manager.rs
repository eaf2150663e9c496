//! What the daemon and the service manager (systemd, or another that keeps to sd_notify(3) and sd_listen_fds(3)) tell each
//! other: that it is ready, reloads, stops, is alive; which sockets it gives, and which it keeps for the next process.
//!
//! Without a service manager nothing is sent, and nothing of it is an error.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::net::fd_passing::FDS_MAX;
use crate::net::inherited;
use crate::net::notify::Mailbox;

/// Most descriptors that are taken from the environment's word for it.
const PASSED_MAX: usize = 1 << 16;

/// Who started this process, if it wants to hear from it.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    mailbox: Option<Mailbox>,
}

impl ServiceManager {
    /// The one that the environment names (`$NOTIFY_SOCKET`), if any.
    pub fn this() -> io::Result<ServiceManager> {
        std::env::var_os("NOTIFY_SOCKET").map_or_else(
            || Ok(ServiceManager::default()),
            |name| ServiceManager::at(&name),
        )
    }

    /// The one that listens there: at a path, or at an abstract name behind `@`.
    pub fn at(name: &OsStr) -> io::Result<ServiceManager> {
        Ok(ServiceManager {
            mailbox: Some(Mailbox::new(name)?),
        })
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.mailbox.is_some()
    }

    /// Every listener is bound, or a reload is over. `process` is the daemon's from now on; what it does, in one line, is
    /// shown by `systemctl status`.
    pub fn ready(&self, process: u32, status: &str) -> io::Result<()> {
        let status = one_line(status);
        self.tell(&[
            NotifyState::MainPid(process),
            NotifyState::Ready,
            NotifyState::Status(&status),
        ])
    }

    /// Another process is the daemon's from now on.
    pub fn main_process(&self, process: u32) -> io::Result<()> {
        self.tell(&[NotifyState::MainPid(process)])
    }

    /// Another process has taken over and is the daemon's from now on. The service manager has to learn this before this
    /// process ends, or it takes that for the service's end; it reads its notifications before it looks which processes
    /// have ended (systemd: src/core/manager.c, the priorities of its events).
    pub fn succeeded_by(&self, process: u32) {
        log_error(self.main_process(process));
    }

    /// A reload has begun; [`ServiceManager::ready`] has to follow.
    pub fn reloading(&self) -> io::Result<()> {
        self.tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
    }

    /// The daemon is about to end.
    pub fn stopping(&self) -> io::Result<()> {
        self.tell(&[NotifyState::Stopping])
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.tell(&[NotifyState::Status(&one_line(status))])
    }

    /// The daemon is alive. Due at half of [`watchdog_interval`].
    pub fn alive(&self) -> io::Result<()> {
        self.tell(&[NotifyState::Watchdog])
    }

    /// Has descriptors kept for the next process, all by one name. What is kept already is not kept twice. They are not watched:
    /// the error that an ICMP message leaves on a socket would end the keeping.
    pub fn store(&self, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let states = [
            "FDSTORE=1".to_owned(),
            "FDPOLL=0".to_owned(),
            format!("FDNAME={name}"),
        ];
        fds.chunks(FDS_MAX)
            .try_for_each(|fds| self.send(&states, fds))
    }

    /// Has all of this name kept no longer.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.send(
            &["FDSTOREREMOVE=1".to_owned(), format!("FDNAME={name}")],
            &[],
        )
    }

    fn tell(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        self.send(
            &states.iter().map(ToString::to_string).collect::<Vec<_>>(),
            &[],
        )
    }

    fn send(&self, states: &[String], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(mailbox) = &self.mailbox else {
            return Ok(());
        };
        let mut text = String::new();
        for state in states {
            // Into a String: it cannot fail.
            let _ = writeln!(text, "{state}");
        }
        mailbox.send(&text, fds)
    }
}

/// Logs that a notification failed. Notifications are for the service manager's own sake: that one is lost changes nothing
/// in this process.
pub fn log_error(sent: io::Result<()>) {
    if let Err(error) = sent {
        log::debug!("the service manager cannot be told: {error}");
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// How long the service manager waits for a sign of life before it ends this process (`WatchdogSec=` in the unit).
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Makes a command's environment that of the daemon's next process: the watchdog is to wait for that one, and what was given to
/// this one is not given to it again.
pub fn hand_on(command: &mut Command) {
    for gone in [
        "WATCHDOG_PID",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PIDFDID",
    ] {
        command.env_remove(gone);
    }
}

/// The descriptors that the service manager gives this process, from its socket units and from what it kept, each with its
/// name. Whoever asks again is told of none.
pub fn passed_sockets() -> Vec<(OwnedFd, String)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    if number("LISTEN_PID") != Some(std::process::id() as usize) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(PASSED_MAX);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let named = |(place, fd): (usize, OwnedFd)| {
        (fd, names.get(place).copied().unwrap_or_default().to_owned())
    };
    inherited::take(count).into_iter().map(named).collect()
}
