//! The handler's end of a consumer that may block.

/// Takes lines for a consumer with a thread of its own.
#[derive(Debug)]
pub struct LineSink;
