//! `GET /metrics`: the snapshot for Prometheus. Names and units follow its conventions; labels come from the configuration and
//! from closed sets, never from a datagram. `docs/metrics.md` lists the families for people.
//!
//! `daemon.rs` has the process, the listeners and the workers, `parts.rs` routes, handlers and upstreams, `accounts.rs` what they
//! share, `text.rs` the format.

mod accounts;
mod daemon;
mod parts;
mod text;

use self::text::Text;
use crate::observe::snapshot::Snapshot;

/// The media type that Prometheus asks for.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    daemon::write(&mut text, snapshot);
    parts::write(&mut text, snapshot);
    text.finish()
}
