//! `GET /metrics`: the snapshot in the format of Prometheus. Names and units follow its conventions. Labels come from
//! the configuration and from closed sets, never from a datagram. `docs/metrics.md` lists the families.
//!
//! `daemon.rs` writes the process, the listeners and the workers, and `parts.rs` writes routes, handlers and upstreams.
//! `accounts.rs` holds what they share, and `text.rs` the format.

mod accounts;
mod daemon;
mod parts;
mod text;

use self::text::Text;
use crate::observe::snapshot::Snapshot;

/// The media type that Prometheus requests.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns all families as text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    daemon::write(&mut text, snapshot);
    parts::write(&mut text, snapshot);
    text.finish()
}
