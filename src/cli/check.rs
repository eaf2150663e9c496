//! `udispatch check FILE`: checks a configuration file and prints all problems at once.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, output};
use crate::config::diagnostics::{counted, one_line};
use crate::config::{Config, Kind, Problems};
use crate::plan::file_tests;
use crate::plan::host::Host;
use crate::plan::{Plan, worker_count};

/// Check a configuration file
///
/// Prints every problem with its line and a hint, and exits with 78. If there is no problem, prints one line and exits with
/// 0. The check includes the interfaces of this host. `run` refuses the same files with the same messages. The [[test]]
/// tables of the file are also run. A test that fails is a problem here, but does not keep `run` from starting.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    file: PathBuf,
}

pub(super) fn main(arguments: Arguments, kinds: &[Kind]) -> Exit {
    let config = match Config::load(&arguments.file, kinds) {
        Ok(config) => config,
        Err(error) => return output::refuse(&error),
    };
    if !config.warnings.is_empty() {
        output::print_error(&config.warnings.render(output::colours()));
    }
    let host = match Host::this() {
        Ok(host) => host,
        Err(error) => {
            output::print_error(&format!(
                "error: cannot list the interfaces of this host: {error}"
            ));
            return Exit::Failure;
        }
    };
    let plan = match Plan::new(&config, &host, worker_count(&config)) {
        Ok(plan) => plan,
        Err(problems) => return refuse(&problems),
    };
    for note in &plan.notes {
        output::print_error(&format!("note: {note}"));
    }
    let failed = file_tests::run(&config, &plan, &host);
    if failed.is_empty() {
        output::print(&verdict(&arguments.file, &config))
    } else {
        refuse(&failed)
    }
}

fn refuse(problems: &Problems) -> Exit {
    output::print_error(&problems.render(output::colours()));
    Exit::Configuration
}

fn verdict(file: &Path, config: &Config) -> String {
    let file = one_line(&file.to_string_lossy());
    let routes = counted(config.routes.len(), "route");
    let handlers = counted(config.handlers.len(), "handler");
    let tests = match config.tests.len() {
        0 => String::new(),
        count => format!(", {} passed", counted(count, "test")),
    };
    format!("{file}: ok, {routes}, {handlers}{tests}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kind::{BuildContext, BuildError, HandlerSpec, Needs};
    use crate::dispatch::handler::Handler;

    #[derive(Debug)]
    struct Nothing;

    impl HandlerSpec for Nothing {
        fn needs(&self) -> Needs {
            Needs::NOTHING
        }

        fn describe(&self) -> String {
            "nothing".to_owned()
        }

        fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
            Err(BuildError("a test builds nothing".to_owned()))
        }
    }

    /// A valid file produces one line that counts what it holds.
    #[test]
    fn a_valid_file_is_one_line() {
        let kind = Kind {
            name: "echo",
            summary: "sends each datagram back",
            settings: &[],
            example: "",
            read: |_| Some(Box::new(Nothing)),
        };
        let text = "route = [\n{ destination = \"127.0.0.1:1\", handler = \"echo\" },\n\
            { destination = \"127.0.0.1:2\", handler = \"echo\" }]";
        let file = Path::new("\x1bu.toml");
        let config = Config::parse(file, text, &[kind]).expect("a valid file");
        assert_eq!(
            verdict(file, &config),
            "\\u{1b}u.toml: ok, 2 routes, 1 handler\n"
        );
    }
}
