//! `udispatch run FILE`: runs the daemon.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Exit, output};
use crate::admin::{Admin, AdminListeners, BoundListeners, Taken};
use crate::build::error::DaemonError;
use crate::build::log_writer;
use crate::config::limits::WORKERS_MAX;
use crate::config::{Config, Kind, Severity, Workers};
use crate::supervisor::control_path::{Places, control_path};
use crate::supervisor::reload::Loader;
use crate::supervisor::requests::Requests;
use crate::supervisor::{Served, Supervisor};
use crate::takeover::{
    self, client::TakeoverClient, messages::PassedListener, successor::Successor,
};

/// Longest wait for standard error after a failure.
const FINAL_MESSAGE_MAX: Duration = Duration::from_millis(500);

/// Serve until SIGTERM or Ctrl-C
///
/// Refuses an invalid file with the messages of `check`, and exits with 78. The log is written to standard error. It has
/// a line with `ready` once every listener is bound. The ledger is written there at the end, and on SIGUSR1.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
    /// Use this number of worker threads, instead of the number in the file
    #[arg(long, value_name = "N", value_parser = worker_count)]
    workers: Option<NonZeroUsize>,
    /// Take over the sockets and sessions of the daemon that serves the control socket. That daemon ends, and no
    /// datagram is lost
    #[arg(long)]
    takeover: bool,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let Arguments {
        file,
        workers,
        takeover,
    } = arguments;
    let known = kinds.to_vec();
    let load = move || {
        let mut config = Config::load(&file, &known)?;
        if let Some(workers) = workers {
            config.daemon.workers = Workers::Count(workers);
        }
        Ok(config)
    };
    let config = match load() {
        Ok(config) => config,
        Err(error) => return output::refuse(&error),
    };
    start_log(config.daemon.log);
    for warning in config
        .warnings
        .iter()
        .filter(|problem| problem.severity == Severity::Warning)
    {
        let position = config.warnings.position(warning);
        log::warn!(
            "{}:{}:{}: {}",
            config.source.name(),
            position.line,
            position.column,
            warning.message
        );
    }
    let started = if takeover {
        take_over(config, kinds)
    } else {
        start(config)
    };
    let (final_message, exit) = match started.and_then(|started| serve(started, Arc::new(load))) {
        Ok(()) => return Exit::Ok,
        Err(RunError::Failure(DaemonError::Configuration(problems))) => {
            (problems.render(output::colours()), Exit::Configuration)
        }
        Err(failure) => (format!("error: {failure}"), Exit::Failure),
    };
    // Use the log's queue, so that the message comes after earlier lines.
    log_writer::show(final_message + "\n");
    log_writer::drain(Instant::now() + FINAL_MESSAGE_MAX);
    exit
}

fn worker_count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count: &NonZeroUsize| count.get() <= WORKERS_MAX);
    count.ok_or_else(|| format!("write a whole number from 1 to {WORKERS_MAX}"))
}

/// The reasons for which the daemon ends with a failure.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// Another daemon serves the control socket.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// The daemon could not start, or has failed.
    #[error(transparent)]
    Failure(#[from] DaemonError),
}

/// A running daemon, and the sockets on which control connections arrive.
struct StartedDaemon {
    supervisor: Supervisor,
    bound: BoundListeners,
    /// The socket on which the next process requests a takeover. `None` if no process has passed it to this one.
    takeover_socket: Option<OwnedFd>,
}

fn start(config: Config) -> Result<StartedDaemon, RunError> {
    // Bind these first, so that a second daemon finds the first before it binds anything else.
    let bound = AdminListeners::bind(&config.daemon)?;
    Ok(StartedDaemon {
        supervisor: Supervisor::start(config)?,
        bound,
        takeover_socket: None,
    })
}

fn take_over(config: Config, kinds: &[Kind]) -> Result<StartedDaemon, RunError> {
    let control = control_path(&config.daemon.control, &Places::this()).map_err(|error| {
        DaemonError::Takeover(format!(
            "{error}. A takeover needs the path of the control socket to find the running daemon"
        ))
    })?;
    let mut client =
        TakeoverClient::connect(&takeover::path_beside(&control)).map_err(DaemonError::from)?;
    let mut inherited = None;
    let mut http = None;
    let mut takeover_socket = None;
    for (listener, fd) in client.admin_listeners() {
        match listener {
            PassedListener::Control => inherited = Some((fd, control.clone())),
            PassedListener::Http => http = Some(fd),
            PassedListener::Takeover => takeover_socket = Some(fd),
        }
    }
    let mut bound = AdminListeners::inherit(&config.daemon, inherited, http)?;
    let http = config.daemon.http;
    let supervisor = Supervisor::take_over(config, kinds, client)?;
    bound.try_http_again(http);
    Ok(StartedDaemon {
        supervisor,
        bound,
        takeover_socket,
    })
}

fn serve(started: StartedDaemon, loader: Arc<Loader>) -> Result<(), RunError> {
    let StartedDaemon {
        supervisor,
        bound,
        takeover_socket,
    } = started;
    let mut supervisor = supervisor.reload_with(loader);
    match Successor::of_this() {
        Ok(successor) => supervisor = supervisor.succeeded_by(successor),
        Err(error) => log::warn!("SIGUSR2 cannot start a process that takes over: {error}"),
    }
    let control = bound.listeners.control_path().map(Path::to_owned);
    let admin = start_admin(bound, &supervisor.requests());
    if let (Some(admin), Some(control)) = (&admin, control) {
        let offered = passed_listeners(admin).and_then(|passed_listeners| {
            supervisor.offer_takeover(
                takeover::path_beside(&control),
                takeover_socket,
                passed_listeners,
            )
        });
        if let Err(error) = offered {
            let condition = format!("no other process can take over: {error}");
            log::warn!("{condition}");
            supervisor
                .requests()
                .conditions
                .begin("takeover", condition);
        }
    }
    log::info!("ready: {}", supervisor.summary());
    supervisor.report_ready();
    let served = supervisor.serve();
    if let Some(admin) = admin {
        if matches!(served, Ok(Served::TakenOver)) {
            admin.abandon();
        } else {
            admin.stop();
        }
    }
    served?;
    Ok(())
}

/// Returns the listeners for control connections, for the next process.
fn passed_listeners(admin: &Admin) -> io::Result<Vec<(PassedListener, OwnedFd)>> {
    let (control, http) = admin.as_fds();
    let passed_listeners = [
        (PassedListener::Control, control),
        (PassedListener::Http, http),
    ];
    let open = passed_listeners
        .into_iter()
        .filter_map(|(listener, fd)| Some((listener, fd?)));
    open.map(|(listener, fd)| Ok((listener, fd.try_clone_to_owned()?)))
        .collect()
}

/// Serves the control socket. A failure is logged and shown as a condition, while datagrams still flow.
fn start_admin(bound: BoundListeners, requests: &Requests) -> Option<Admin> {
    let BoundListeners {
        listeners,
        control_problem,
        http_problem,
    } = bound;
    for (about, condition) in [("control", control_problem), ("http", http_problem)] {
        if let Some(condition) = condition {
            log::warn!("{condition}");
            requests.conditions.begin(about, condition);
        }
    }
    if let Some(path) = listeners.control_path() {
        log::debug!("control socket: {}", path.display());
    }
    if let Some(address) = listeners.http_address() {
        log::info!("HTTP at http://{address}/");
    }
    match Admin::start(listeners, requests.clone()) {
        Ok(admin) => Some(admin),
        Err(error) => {
            let condition = format!("cannot serve the control socket: {error}");
            log::warn!("{condition}");
            requests.conditions.begin("admin", condition);
            None
        }
    }
}

/// Starts the logger. `RUST_LOG` overrides the level of the file. The logger itself accepts all levels, so that
/// `udispatch log LEVEL` can change the level while the daemon runs.
fn start_log(level: log::LevelFilter) {
    let mut builder = env_logger::Builder::new();
    let is_overridden = std::env::var_os("RUST_LOG").is_some_and(|filter| !filter.is_empty());
    builder
        .filter_level(if is_overridden {
            level
        } else {
            log::LevelFilter::Trace
        })
        .parse_default_env();
    builder.format(|line, record| {
        writeln!(line, "{}", log_writer::line(record.level(), record.args()))
    });
    builder.target(env_logger::Target::Pipe(log_writer::target()));
    // This fails if a program that embeds the daemon has installed its own logger. The level of that logger is not changed.
    if builder.try_init().is_ok() && !is_overridden {
        log::set_max_level(level);
    }
}
