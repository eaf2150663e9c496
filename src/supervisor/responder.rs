//! Where the answer to a request goes.

use std::fmt;

/// Where an answer goes. Dropped without an answer, it tells that to who waits.
pub struct Responder<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Responder<T> {
    /// Calls this with the answer, on the thread that answers: it must not block.
    pub fn new(deliver: impl FnOnce(T) + Send + 'static) -> Responder<T> {
        Responder(Box::new(deliver))
    }

    /// Answers.
    pub fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}
