//! The process that SIGUSR2 starts: the program as it lies on the disk now, with the same arguments and `--takeover`.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, thread};

use crate::build::service_manager::hand_on;
use crate::net::orphan;

/// How the program was started.
#[derive(Debug, Clone)]
pub struct Successor {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The process that is to take over, as long as it runs; 0 where there is none.
    on_its_way: Arc<AtomicU32>,
}

/// The option that makes it take over.
const OPTION: &str = "--takeover";

impl Successor {
    /// Of this process. Looked up when it starts: a name that was found by `PATH` then is the same file's for good, but what
    /// the file holds, or a link on the way leads to, may change.
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

    /// Starts it, unless one is on its way: as no child of ours, so that a service manager finds a child of its own in it before
    /// we end (systemd kills others at once where it should only stop them). That it ends is told, unless it takes over: then
    /// nobody is left here to tell.
    pub fn start(&self) {
        match self.on_its_way.load(Ordering::Relaxed) {
            0 => {}
            pid => {
                return log::warn!(
                    "SIGUSR2: process {pid} is on its way already; if it hangs, end it and try again"
                );
            }
        }
        let program = self.program.display().to_string();
        let mut command = Command::new(&self.program);
        hand_on(command.args(&self.arguments));
        let started = match orphan::spawn(command) {
            Ok(started) => started,
            Err(error) => {
                return log::error!(
                    "cannot start {program}: {error}. Everything goes on as before"
                );
            }
        };
        let pid = started.pid;
        log::info!("SIGUSR2: started {program} as process {pid}, which is to take over");
        self.on_its_way.store(pid, Ordering::Relaxed);
        let on_its_way = Arc::clone(&self.on_its_way);
        let wait = move || {
            let ended = started.wait();
            on_its_way.store(0, Ordering::Relaxed);
            match ended {
                Ok(()) => log::error!(
                    "process {pid} has ended; why stands above, unless it was killed. Everything goes on as before"
                ),
                Err(error) => log::error!("cannot wait for process {pid}: {error}"),
            }
        };
        if let Err(error) = thread::Builder::new()
            .name("successor".to_owned())
            .spawn(wait)
        {
            self.on_its_way.store(0, Ordering::Relaxed);
            log::error!("nobody can wait for the process that is to take over: {error}");
        }
    }
}

fn in_path(name: &PathBuf) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
