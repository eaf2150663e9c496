//! Conditions that make the daemon degraded while datagrams still flow. The component that has the problem begins the
//! condition and ends it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The current conditions, by subject. There are only a few, since each subject is a literal in the source.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Conditions {
    /// Begins a condition. `text` is a sentence that says what does not work, why, and what to do. It replaces the
    /// previous text of the same subject.
    pub fn begin(&self, about: &'static str, text: impl Into<String>) {
        self.all().insert(about, text.into());
    }

    /// Ends the condition of a subject.
    pub fn end(&self, about: &'static str) {
        self.all().remove(about);
    }

    /// Returns the sentences of all conditions.
    pub fn sentences(&self) -> Vec<String> {
        self.all().values().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // A panic while the lock is held cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
