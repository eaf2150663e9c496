//! What does not work while datagrams flow: with one of these the daemon is degraded. Whoever has the trouble says so, and says
//! when it is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The conditions, by what they are about; a handful, since each name is written in the source.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Conditions {
    /// Something does not work: what, why and what to do, as a sentence. Replaces what was said of it before.
    pub fn begin(&self, about: &'static str, text: impl Into<String>) {
        self.all().insert(about, text.into());
    }

    /// It works again.
    pub fn end(&self, about: &'static str) {
        self.all().remove(about);
    }

    /// All sentences.
    pub fn sentences(&self) -> Vec<String> {
        self.all().values().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // Nothing that holds it can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
