//! `udispatch run FILE`: the daemon itself.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Exit, output};
use crate::admin::{Admin, Bound, Listeners, Taken};
use crate::config::limits::WORKERS_MAX;
use crate::config::{Config, Kind, Severity, Workers};
use crate::control::reload::Loader;
use crate::control::request::Requests;
use crate::control::standard_error;
use crate::control::supervisor::{Failure, Supervisor};

/// Longest wait for standard error after a failure.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// Serve until SIGTERM or Ctrl-C
///
/// Refuses a wrong file with the words of `check` and exits with 78. The log goes to standard error, with a line that
/// contains `ready` once every listener is bound; so does the ledger, at the end and on SIGUSR1.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
    /// Receive with so many threads, whatever the file says
    #[arg(long, value_name = "N", value_parser = worker_count)]
    workers: Option<NonZeroUsize>,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let Arguments { file, workers } = arguments;
    let kinds = kinds.to_vec();
    let load = move || {
        let mut config = Config::load(&file, &kinds)?;
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
    for warning in config.warnings.iter().filter(|problem| problem.severity == Severity::Warning) {
        let position = config.warnings.position(warning);
        log::warn!("{}:{}:{}: {}", config.source.name(), position.line, position.column, warning.message);
    }
    let (last_words, exit) = match serve(config, Arc::new(load)) {
        Ok(()) => return Exit::Ok,
        Err(End::Failure(Failure::Configuration(problems))) => {
            (problems.render(output::colours()), Exit::Configuration)
        }
        Err(failure) => (format!("error: {failure}"), Exit::Failure),
    };
    // Behind the log, not beside it.
    standard_error::show(last_words + "\n");
    standard_error::drain(Instant::now() + LAST_WORDS_MAX);
    exit
}

fn worker_count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= WORKERS_MAX);
    count.ok_or_else(|| format!("write a whole number from 1 to {WORKERS_MAX}"))
}

/// Why it ended other than in order.
#[derive(Debug, thiserror::Error)]
enum End {
    /// Another daemon has the control socket.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// It could not start, or has failed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

fn serve(config: Config, loader: Arc<Loader>) -> Result<(), End> {
    // First, so that a second daemon learns of the first before it binds anything.
    let bound = Listeners::bind(&config.daemon)?;
    let supervisor = Supervisor::start(config)?.reload_with(loader);
    let admin = start_admin(bound, &supervisor.requests());
    log::info!("ready: {}", supervisor.summary());
    let served = supervisor.serve();
    if let Some(admin) = admin {
        admin.stop();
    }
    Ok(served?)
}

/// Serves the control socket. What does not work is told, and shown as degraded: datagrams flow all the same.
fn start_admin(bound: Bound, requests: &Requests) -> Option<Admin> {
    let Bound { listeners, control_trouble, http_trouble } = bound;
    for (about, trouble) in [("control", control_trouble), ("http", http_trouble)] {
        if let Some(trouble) = trouble {
            log::warn!("{trouble}");
            requests.troubles.begin(about, trouble);
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
            let trouble = format!("cannot serve the control socket: {error}");
            log::warn!("{trouble}");
            requests.troubles.begin("admin", trouble);
            None
        }
    }
}

/// `RUST_LOG` overrides the file, as everywhere. The logger itself lets everything else through, so that `udispatch log LEVEL`
/// can change the level while it runs.
fn start_log(level: log::LevelFilter) {
    let mut builder = env_logger::Builder::new();
    let is_overridden = std::env::var_os("RUST_LOG").is_some_and(|filter| !filter.is_empty());
    builder.filter_level(if is_overridden { level } else { log::LevelFilter::Trace }).parse_default_env();
    builder.format(|line, record| writeln!(line, "{}", standard_error::line(record.level(), record.args())));
    builder.target(env_logger::Target::Pipe(standard_error::target()));
    // A second logger in one process is a program of somebody's own that brought its own.
    if builder.try_init().is_ok() && !is_overridden {
        log::set_max_level(level);
    }
}
