//! What became of a reload.

use serde::{Deserialize, Serialize};

/// What became of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Whether the new configuration is the running one now.
    pub is_applied: bool,
    /// What changed, or would, a sentence each.
    pub changes: Vec<String>,
    /// Why nothing was changed, in the words of `check`.
    pub problems: Option<String>,
    /// Whether that is the file's fault; otherwise something was lacking here.
    pub is_wrong_file: bool,
}

impl ReloadReport {
    /// Of a configuration that could be made ready.
    pub(super) fn of(is_applied: bool, changes: Vec<String>) -> ReloadReport {
        ReloadReport {
            is_applied,
            changes,
            ..ReloadReport::default()
        }
    }
}
