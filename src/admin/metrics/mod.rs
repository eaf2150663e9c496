//! `GET /metrics`: the snapshot for Prometheus. Names and units follow its conventions; labels come from the configuration and
//! from closed sets, never from a datagram. `docs/metrics.md` lists the families for people.
//!
//! `daemon.rs` has the process, the listeners and the workers, `parts.rs` routes, handlers and upstreams, `text.rs` the format.

mod daemon;
mod parts;
mod text;

use std::collections::BTreeMap;

use self::text::{Family, Kind, Text};
use crate::observe::snapshot::{Account, Snapshot};

/// The media type that Prometheus asks for.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    daemon::write(&mut text, snapshot);
    parts::write(&mut text, snapshot);
    text.finish()
}

/// The names of the families of one kind of row that has an account.
struct AccountNames {
    received: (&'static str, &'static str),
    handled: (&'static str, &'static str),
    dropped: (&'static str, &'static str),
}

/// The families of accounts: received, handled, and dropped by reason. `labels` are those of each row.
fn accounts(text: &mut Text, names: &AccountNames, label: &str, rows: &[(String, &Account)]) {
    let mut received = text.family(names.received.0, Kind::Counter, names.received.1);
    rows.iter()
        .for_each(|(name, account)| received.sample(&[(label, name)], account.received));
    let mut handled = text.family(names.handled.0, Kind::Counter, names.handled.1);
    rows.iter()
        .for_each(|(name, account)| handled.sample(&[(label, name)], account.handled));
    let mut dropped = text.family(names.dropped.0, Kind::Counter, names.dropped.1);
    for (name, account) in rows {
        by(&mut dropped, &[(label, name)], "reason", &account.drops);
    }
}

/// A sample for each name of a closed set.
fn by(
    family: &mut Family<'_>,
    labels: &[(&str, &str)],
    last: &str,
    counts: &BTreeMap<String, u64>,
) {
    for (name, count) in counts {
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .copied()
            .chain([(last, name.as_str())])
            .collect();
        family.sample(&labels, count);
    }
}
