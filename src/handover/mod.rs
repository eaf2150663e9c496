//! Replaces the running configuration: prepares a new one beside it, and moves state from the old workers to the new
//! ones.

pub mod history;
pub mod prepare;
pub mod running;
pub mod transfer;
