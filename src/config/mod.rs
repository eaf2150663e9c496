//! TOML → typed configuration; every problem with file:line:column, the line, a caret and a hint.
//!
//! ```toml
//! [[route]]
//! destination = "127.0.0.1:1234"
//! handler = "echo"
//! ```
//!
//! A [`Config`] holds no contradiction: what could be wrong in the file alone has been refused, all of
//! it at once. What depends on the machine (addresses, interfaces, names of hosts, files) is looked at
//! in control, which can still point at the line that asks for it.
//!
//! Reading order: `document.rs` takes the file apart, `section.rs` reads one table, `value/` one value,
//! `route.rs`, `handlers.rs`, `daemon.rs` and `test.rs` say what the tables mean, `table.rs` compares routes,
//! `problem.rs` and `render.rs` tell what is wrong, `canonical.rs` says which tables say the same, and `setting.rs` says
//! what may be written at all, for people, and by `schema.rs` for editors. The kinds of handlers are passed in: this room
//! knows none by name.

pub mod canonical;
pub mod daemon;
pub mod destination;
mod document;
mod expectation;
pub mod handlers;
pub mod kind;
pub mod limits;
mod load;
pub mod problem;
mod render;
pub mod route;
mod schema;
pub mod section;
pub mod setting;
pub mod source;
mod table;
pub mod test;
pub mod upstream;
pub mod value;
pub mod words;

use std::path::Path;

pub use self::daemon::{ControlSocket, Daemon, Workers};
pub use self::destination::{Destination, Ports};
pub use self::handlers::NamedHandler;
pub use self::kind::Kind;
pub use self::load::LoadError;
pub use self::problem::{Problem, Problems, Severity};
pub use self::route::{Expectation, InterfaceRef, Route};
pub use self::schema::schema;
pub use self::source::{Placed, Position, Source};
pub use self::test::Test;
pub use crate::dispatch::handler::HandlerId;

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
    pub source: Source,
}

impl Config {
    /// Reads the text of `file`; nothing but the text is looked at.
    pub fn parse(file: &Path, text: &str, kinds: &[Kind]) -> Result<Config, Problems> {
        document::parse(Source::new(file, text), kinds)
    }

    /// Reads a file.
    pub fn load(file: &Path, kinds: &[Kind]) -> Result<Config, LoadError> {
        let text = load::text(file)?;
        Ok(Config::parse(file, &text, kinds)?)
    }

    /// The handler that a route names.
    pub fn handler(&self, id: HandlerId) -> &NamedHandler {
        &self.handlers[id.index()]
    }
}
