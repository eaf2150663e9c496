//! A whole configuration file, parsed and checked.

use super::daemon::Daemon;
use super::handlers::NamedHandler;
use super::problem::Problems;
use super::route::Route;
use super::source::SourceFile;
use super::test::Test;
use crate::dispatch::handler::HandlerId;

/// A whole configuration file, parsed and checked.
#[derive(Debug)]
pub struct Config {
    /// Settings of the whole process.
    pub daemon: Daemon,
    /// The routes in the order of the file. There is at least one.
    pub routes: Vec<Route>,
    /// The handlers, including those that no route names. A [`HandlerId`] is an index into this list.
    pub handlers: Vec<NamedHandler>,
    /// The tests of the file: datagrams, and what must become of each.
    pub tests: Vec<Test>,
    /// Warnings: settings that are valid but probably not intended.
    pub warnings: Problems,
    /// The text that this configuration was read from.
    pub source: SourceFile,
}

impl Config {
    /// Returns the handler with this number.
    ///
    /// # Panics
    ///
    /// Panics if there is no handler with this number.
    pub fn handler(&self, id: HandlerId) -> &NamedHandler {
        &self.handlers[id.index()]
    }
}
