//! `udispatch run FILE`: the daemon itself.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Exit, output};
use crate::config::limits::WORKERS_MAX;
use crate::config::{Config, Kind, Severity, Workers};
use crate::control::reload::Loader;
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
        Err(Failure::Configuration(problems)) => (problems.render(output::colours()), Exit::Configuration),
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

fn serve(config: Config, loader: Arc<Loader>) -> Result<(), Failure> {
    let supervisor = Supervisor::start(config)?.reload_with(loader);
    log::info!("ready: {}", supervisor.summary());
    supervisor.serve()
}

/// `RUST_LOG` overrides the file, as everywhere.
fn start_log(level: log::LevelFilter) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_default_env();
    builder.format(|line, record| writeln!(line, "{}", standard_error::line(record.level(), record.args())));
    builder.target(env_logger::Target::Pipe(standard_error::target()));
    // A second logger in one process is a program of somebody's own that brought its own.
    let _ = builder.try_init();
}
