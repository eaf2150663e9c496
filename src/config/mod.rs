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
//! `route.rs`, `handlers.rs`, `daemon.rs` and `test.rs` say what the tables mean, `route_checks.rs` compares routes,
//! `problem.rs` and `render.rs` tell what is wrong, `canonical.rs` says which tables say the same, and `setting.rs` says
//! what may be written at all, for people, and by `schema.rs` for editors. The kinds of handlers are passed in: this room
//! knows none by name.

pub mod canonical;
mod configuration;
pub mod daemon;
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
mod schema;
pub mod section;
pub mod setting;
pub mod source;
pub mod test;
pub mod upstream;
pub mod value;

pub use self::configuration::Config;
pub use self::daemon::{ControlSocket, Daemon, Workers};
pub use self::destination::{Destination, PortSpan};
pub use self::handlers::NamedHandler;
pub use self::interface::InterfaceRef;
pub use self::kind::Kind;
pub use self::load::LoadError;
pub use self::problem::{Problem, Problems, Severity};
pub use self::route::{Expectation, Route};
pub use self::schema::schema;
pub use self::source::{Placed, Position, SourceFile};
pub use self::test::Test;
pub use crate::dispatch::handler::HandlerId;
