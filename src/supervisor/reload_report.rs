//! The result of a reload.

use serde::{Deserialize, Serialize};

/// The result of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Whether the new configuration is now the running one.
    pub is_applied: bool,
    /// What changed or would change, one sentence each.
    pub changes: Vec<String>,
    /// Why nothing was changed, in the words of `check`.
    pub problems: Option<String>,
    /// Whether the file is at fault; otherwise this host lacked something.
    pub is_wrong_file: bool,
}

impl ReloadReport {
    /// Returns the report on a configuration that could be prepared.
    pub(super) fn of(is_applied: bool, changes: Vec<String>) -> ReloadReport {
        ReloadReport {
            is_applied,
            changes,
            ..ReloadReport::default()
        }
    }
}
