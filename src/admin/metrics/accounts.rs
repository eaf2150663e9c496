//! The metric families that several kinds of rows share.

use std::collections::BTreeMap;

use super::text::{Family, MetricKind, Text};
use crate::observe::snapshot::Account;

/// The names of the families for one kind of row with an account.
pub(super) struct AccountNames {
    pub(super) received: (&'static str, &'static str),
    pub(super) handled: (&'static str, &'static str),
    pub(super) dropped: (&'static str, &'static str),
}

/// Writes the families of accounts: received, handled, and dropped by reason. `labels` returns the labels of each row.
pub(super) fn accounts(
    text: &mut Text,
    names: &AccountNames,
    label: &str,
    rows: &[(String, &Account)],
) {
    let mut received = text.family(names.received.0, MetricKind::Counter, names.received.1);
    rows.iter()
        .for_each(|(name, account)| received.sample(&[(label, name)], account.received));
    let mut handled = text.family(names.handled.0, MetricKind::Counter, names.handled.1);
    rows.iter()
        .for_each(|(name, account)| handled.sample(&[(label, name)], account.handled));
    let mut dropped = text.family(names.dropped.0, MetricKind::Counter, names.dropped.1);
    for (name, account) in rows {
        by(&mut dropped, &[(label, name)], "reason", &account.drops);
    }
}

/// Writes a sample for each name of a closed set.
pub(super) fn by(
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
