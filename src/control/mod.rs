//! Control builds, workers run: whatever can fail or block (binding, joining, opening files, resolving names) happens
//! here, before a worker sees the result. Only this room logs.

mod answers;
pub mod build;
mod chores;
pub mod control_path;
mod crew;
pub mod explain;
mod explain_live;
pub mod file_tests;
pub mod given;
pub mod handover;
mod held;
mod history;
pub mod host;
pub mod look_ups;
pub mod loops;
pub mod plan;
mod prepare;
pub mod reload;
pub mod request;
mod running;
pub mod service_manager;
pub mod sessions;
pub mod snapshot;
pub mod squatters;
pub mod standard_error;
pub mod standard_output;
pub mod supervisor;
pub mod takeover;
pub mod tap;
mod targets;
pub mod ties;
pub mod troubles;
pub mod upkeep;
pub mod upstreams;
pub mod visits;
mod watch;
