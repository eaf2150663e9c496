//! The integration tests: one program with a module for each subject. Several programs would each link the crate, and
//! compile the shared parts once more.
//!
//! A test that opens sockets begins with [`netns_test!`](common::namespace) and runs in a network namespace and a
//! process of its own. The others run as threads of this program, beside each other. They bind port 0, use temporary
//! directories, and do not change the environment, limits, signal handlers or current directory of the process. No name
//! outside a namespace is fixed, so the tests can run twice at a time on one machine.
//!
//! Some tests are programs of their own: `allocation`, which replaces the global allocator, and the seeded simulations,
//! which use only the seeds of `common`.

mod alarms;
mod cli;
mod common;
mod config;
mod config_errors;
mod control;
mod control_limits;
mod dashboard;
mod degraded;
mod dispatch;
mod doc_paths;
mod examples;
mod explain;
mod file_tests;
mod forward_dns;
mod forward_fan_out;
mod forward_faults;
mod forward_health;
mod forward_limits;
mod forward_paths;
mod forward_picks;
mod forward_sessions;
mod forward_settings;
mod handlers;
mod handover;
mod kept_source;
mod library;
mod metrics;
mod model;
mod monitor;
mod multicast;
mod operations;
mod overload;
mod packaging;
mod page;
mod plan;
mod reliability;
mod route_table;
mod safety;
mod schema;
mod service_manager;
mod soak;
mod systemd;
mod takeover_faults;
mod tap;
mod tidy;
mod top;
