//! Control builds, workers run: whatever can fail or block (binding, joining, opening files, resolving names) happens
//! here, before a worker sees the result. Only this room logs.

pub mod build;
pub mod control_path;
pub mod explain;
pub mod file_tests;
pub mod host;
pub mod look_ups;
pub mod loops;
pub mod plan;
pub mod snapshot;
pub mod squatters;
pub mod standard_error;
pub mod standard_output;
pub mod supervisor;
mod targets;
pub mod ties;
pub mod upkeep;
pub mod upstreams;
