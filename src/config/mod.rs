//! The configuration: reads a TOML file into typed settings. Every problem is reported with file:line:column, the line,
//! a caret and a hint.
//!
//! ```toml
//! [[route]]
//! destination = "127.0.0.1:1234"
//! handler = "echo"
//! ```
//!
//! A [`Config`] holds no contradiction. Every mistake that is visible in the file alone has been rejected, all of them
//! at once. What depends on the machine (addresses, interfaces, host names, other files) is checked by the rooms above,
//! which can still point at the line in question.
//!
//! Reading order: `document.rs` parses the file, `section.rs` reads one table, and `value/` reads one value.
//! `route.rs`, `handlers.rs`, `daemon.rs` and `test.rs` define what the tables mean, and `route_checks.rs` compares
//! routes. `problem.rs` and `render.rs` report problems. `canonical.rs` decides which tables have equal meaning.
//! `setting.rs` defines keys: their values, defaults and meanings. The help and, through `schema.rs`, editors see them
//! as `definition.rs` describes. The kinds of handlers are passed in; no file of this room names one.

pub mod canonical;
mod configuration;
pub mod daemon;
pub mod definition;
pub mod destination;
pub mod diagnostics;
mod document;
mod expectation;
pub mod handlers;
pub mod interface;
pub mod kind;
pub mod limits;
mod load;
pub mod problem;
mod render;
pub mod route;
mod route_checks;
pub mod schema;
pub mod section;
pub mod setting;
pub mod source;
pub mod test;
pub mod upstream;
pub mod value;

pub use self::configuration::Config;
pub use self::daemon::{ControlSocket, Daemon, Workers};
pub use self::destination::Destination;
pub use self::handlers::NamedHandler;
pub use self::interface::InterfaceRef;
pub use self::kind::Kind;
pub use self::load::LoadError;
pub use self::problem::{Problem, Problems, Severity};
pub use self::route::{Expectation, Route};
pub use self::schema::schema;
pub use self::source::Placed;
