//! The recipient of a response.

use std::fmt;

/// The recipient of a response. If it is dropped unused, the waiting side is notified that no response will come.
pub struct Responder<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Responder<T> {
    /// Returns a responder that calls `deliver` with the response. It is called on the responding thread and must not
    /// block.
    pub fn new(deliver: impl FnOnce(T) + Send + 'static) -> Responder<T> {
        Responder(Box::new(deliver))
    }

    /// Delivers the response.
    pub fn send(self, response: T) {
        (self.0)(response);
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}
