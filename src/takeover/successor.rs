//! The process that SIGUSR2 starts: the program that is on the disk at that time, with the same arguments and `--takeover`.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, thread};

use crate::build::service_manager::hand_on;
use crate::net::orphan;

/// How to start the process that takes over from this one.
#[derive(Debug, Clone)]
pub struct Successor {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The process id of the client that was started last, while it runs; otherwise 0.
    client_pid: Arc<AtomicU32>,
}

/// The option that makes the program take over.
const OPTION: &str = "--takeover";

impl Successor {
    /// Returns the program and the arguments of this process. A name without a directory is looked up in `PATH` now, and not
    /// again. The file at the path that is found, or the target of a link in it, may be replaced later.
    ///
    /// # Errors
    ///
    /// The system's, if the program or the current directory of this process cannot be determined.
    pub fn of_this() -> io::Result<Successor> {
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        let program = match name.components().count() {
            0 => env::current_exe()?,
            1 if !name.has_root() => in_path(&name).map_or_else(env::current_exe, Ok)?,
            _ => env::current_dir()?.join(name),
        };
        let mut arguments: Vec<OsString> = arguments.collect();
        if !arguments.iter().any(|argument| argument == OPTION) {
            arguments.push(OPTION.into());
        }
        Ok(Successor {
            program,
            arguments,
            client_pid: Arc::default(),
        })
    }

    /// Starts the client, unless the previous one still runs. The client is orphaned on purpose, so that it is re-parented to the
    /// service manager before this process ends. systemd sends SIGKILL instead of SIGTERM to a main process that is not its
    /// child. If the client ends without taking over, that is logged.
    pub fn start(&self) {
        let pid = self.client_pid.load(Ordering::Relaxed);
        if pid != 0 {
            return log::warn!(
                "SIGUSR2: process {pid} is already taking over; if it hangs, end it and try again"
            );
        }
        let program = self.program.display().to_string();
        let mut command = Command::new(&self.program);
        hand_on(command.args(&self.arguments));
        let started = match orphan::spawn(command) {
            Ok(started) => started,
            Err(error) => {
                return log::error!(
                    "cannot start {program}: {error}. This process continues to serve"
                );
            }
        };
        let pid = started.pid;
        log::info!("SIGUSR2: started {program} as process {pid} to take over");
        self.client_pid.store(pid, Ordering::Relaxed);
        let client_pid = Arc::clone(&self.client_pid);
        let wait = move || {
            let ended = started.wait();
            client_pid.store(0, Ordering::Relaxed);
            match ended {
                Ok(()) => log::error!(
                    "process {pid} has ended without taking over; its own messages above say why. This process continues to serve"
                ),
                Err(error) => log::error!("cannot wait for process {pid}: {error}"),
            }
        };
        if let Err(error) = thread::Builder::new()
            .name("successor".to_owned())
            .spawn(wait)
        {
            self.client_pid.store(0, Ordering::Relaxed);
            log::error!("cannot start a thread that waits for process {pid}: {error}");
        }
    }
}

fn in_path(name: &PathBuf) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
