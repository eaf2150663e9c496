//! The protocol between the daemon and the service manager: systemd, or another that implements sd_notify(3) and
//! sd_listen_fds(3). The daemon reports readiness, reloads, stopping and liveness. The service manager passes sockets
//! and stores sockets for the next process.
//!
//! Without a service manager, nothing is sent and no call fails.

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

/// Largest number of descriptors that is accepted from the environment.
const PASSED_MAX: usize = 1 << 16;

/// The service manager of this process, if it has one.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    mailbox: Option<Mailbox>,
}

impl ServiceManager {
    /// Returns the service manager that the environment names (`$NOTIFY_SOCKET`), if any.
    ///
    /// # Errors
    ///
    /// Returns an error if the value is not a valid socket address, or if no socket can be opened.
    pub fn this() -> io::Result<ServiceManager> {
        std::env::var_os("NOTIFY_SOCKET").map_or_else(
            || Ok(ServiceManager::default()),
            |name| ServiceManager::at(&name),
        )
    }

    /// Returns the service manager that receives at `name`: a path, or an abstract name after `@`.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid socket address, or if no socket can be opened.
    pub fn at(name: &OsStr) -> io::Result<ServiceManager> {
        Ok(ServiceManager {
            mailbox: Some(Mailbox::new(name)?),
        })
    }

    /// Returns whether there is a service manager.
    pub fn is_there(&self) -> bool {
        self.mailbox.is_some()
    }

    /// Reports that every listener is bound, or that a reload is over. `process` is the daemon's main process from now
    /// on. `systemctl status` shows `status`, in one line.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the notification cannot be sent.
    pub fn ready(&self, process: u32, status: &str) -> io::Result<()> {
        let status = one_line(status);
        self.notify(&[
            NotifyState::MainPid(process),
            NotifyState::Ready,
            NotifyState::Status(&status),
        ])
    }

    /// Reports that another process is the daemon's main process from now on. The service manager must receive this
    /// before this process exits, or it considers the service dead. It reads its notifications before it checks which
    /// processes have exited (systemd: src/core/manager.c, the priorities of its events).
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the notification cannot be sent.
    pub fn main_process(&self, process: u32) -> io::Result<()> {
        self.notify(&[NotifyState::MainPid(process)])
    }

    /// Reports that a reload has begun. A call of [`ServiceManager::ready`] must follow.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the notification cannot be sent, or if the clock cannot be read.
    pub fn reloading(&self) -> io::Result<()> {
        self.notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
    }

    /// Reports that the daemon is about to exit.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the notification cannot be sent.
    pub fn stopping(&self) -> io::Result<()> {
        self.notify(&[NotifyState::Stopping])
    }

    /// Reports that the daemon is alive. The report is due after half of [`watchdog_interval`].
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the notification cannot be sent.
    pub fn alive(&self) -> io::Result<()> {
        self.notify(&[NotifyState::Watchdog])
    }

    /// Stores descriptors for the next process, all under one name. A descriptor that is already stored is not stored
    /// twice. The service manager must not poll them (`FDPOLL=0`), because the error that an ICMP message leaves on a
    /// socket would make it discard the descriptor.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if a notification cannot be sent. Some of the descriptors may be stored then.
    pub fn store(&self, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let states = [
            "FDSTORE=1".to_owned(),
            "FDPOLL=0".to_owned(),
            format!("FDNAME={name}"),
        ];
        fds.chunks(FDS_MAX)
            .try_for_each(|fds| self.send(&states, fds))
    }

    /// Removes all stored descriptors of this name.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the notification cannot be sent.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.send(
            &["FDSTOREREMOVE=1".to_owned(), format!("FDNAME={name}")],
            &[],
        )
    }

    fn notify(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
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
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{state}");
        }
        mailbox.send(&text, fds)
    }
}

/// Logs that a notification failed. A lost notification changes nothing in this process.
pub fn log_error(sent: io::Result<()>) {
    if let Err(error) = sent {
        log::debug!("cannot notify the service manager: {error}");
    }
}

/// Replaces control characters, since a line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Returns how long the service manager waits for a sign of life before it kills this process (`WatchdogSec=` in the
/// unit).
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Sets the environment of a command to that of the daemon's next process. The watchdog then applies to that process,
/// and sockets passed to this process are not passed to it again.
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

/// Returns the descriptors that the service manager passed to this process, from its socket units and from its store,
/// each with its name. Later calls return none.
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
