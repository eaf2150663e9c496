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
    /// The process id of the client that was started last, as long as it runs; otherwise 0.
    on_its_way: Arc<AtomicU32>,
}

/// The option with which the program takes over.
const OPTION: &str = "--takeover";

impl Successor {
    /// Remembers the program and the arguments of this process. A name without a directory is looked up in `PATH` now, once;
    /// the file of that path, or the target of a link in it, may be replaced later.
    ///
    /// # Errors
    ///
    /// The system's, if this process's program or its current directory cannot be found out.
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
            on_its_way: Arc::default(),
        })
    }

    /// Starts the client, unless the one before still runs. It is orphaned on purpose, so that it is re-parented to the service
    /// manager before this process ends: systemd sends SIGKILL instead of SIGTERM to a main process that is not its child. If the
    /// client ends without taking over, that is logged.
    pub fn start(&self) {
        let pid = self.on_its_way.load(Ordering::Relaxed);
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
        self.on_its_way.store(pid, Ordering::Relaxed);
        let on_its_way = Arc::clone(&self.on_its_way);
        let wait = move || {
            let ended = started.wait();
            on_its_way.store(0, Ordering::Relaxed);
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
            self.on_its_way.store(0, Ordering::Relaxed);
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
