//! Shared parts of the integration tests: network namespaces, the real daemon, its ledger, and clients.
//!
//! A test that opens sockets runs in a network namespace of its own ([`namespace`]), so tests do not interfere with
//! each other or with the host.

pub mod browser;
pub mod client;
pub mod control_data;
pub mod curl;
pub mod daemon;
pub mod heavy;
pub mod host;
pub mod json_schema;
pub mod kinds;
pub mod ledger;
pub mod namespace;
pub mod neighbour;
pub mod restart;
pub mod systemd;
pub mod terminal;
mod timeout;
pub mod upstream;

pub use timeout::{Lazy, TIMEOUT, cpu_time, eventually, eventually_within};
