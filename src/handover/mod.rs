//! Replacing what runs: preparing a configuration beside the running one, and moving state from the old workers to the new.

pub mod history;
pub mod prepare;
pub mod running;
pub mod transfer;
