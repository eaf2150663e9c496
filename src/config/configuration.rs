//! What a file says, checked.

use super::daemon::Daemon;
use super::handlers::NamedHandler;
use super::problem::Problems;
use super::route::Route;
use super::source::SourceFile;
use super::test::Test;
use crate::dispatch::handler::HandlerId;

/// What a file says, checked.
#[derive(Debug)]
pub struct Config {
    /// What holds for the whole process.
    pub daemon: Daemon,
    /// The routes in the order of the file; at least one.
    pub routes: Vec<Route>,
    /// The handlers; a [`HandlerId`] is an index into them. Those that no route names are among them.
    pub handlers: Vec<NamedHandler>,
    /// Datagrams, and what must become of them.
    pub tests: Vec<Test>,
    /// What is probably not meant, though it can be done.
    pub warnings: Problems,
    /// The text that all this was read from.
    pub source: SourceFile,
}

impl Config {
    /// The handler that a route names.
    pub fn handler(&self, id: HandlerId) -> &NamedHandler {
        &self.handlers[id.index()]
    }
}
