//! The metric families that several kinds of rows share.

use std::collections::BTreeMap;

use super::text::{Family, MetricKind, Text};
use crate::dispatch::counters::{CounterField, CounterKind};
use crate::observe::snapshot::Account;

/// The names of the families for one kind of row with an account.
pub(super) struct AccountNames {
    pub(super) received: (&'static str, &'static str),
    pub(super) handled: (&'static str, &'static str),
    pub(super) dropped: (&'static str, &'static str),
}

/// Writes the families of accounts: received, handled, and dropped by reason. `label` is the name of the label that
/// identifies a row.
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

/// The counters of one row, with the labels of the row.
pub(super) struct CounterRow<'a> {
    pub(super) labels: Vec<(&'static str, &'a str)>,
    /// The values in the order of the declarations.
    pub(super) values: Vec<u64>,
}

/// Writes the families of declared counters, with the samples of all rows. Counters without a metric are left out.
pub(super) fn counters(text: &mut Text, fields: &[CounterField], rows: &[CounterRow<'_>]) {
    let family_of = |field: &CounterField| field.metric.map(|metric| metric.family);
    let mut start = 0;
    for fields in fields.chunk_by(|one, next| family_of(one) == family_of(next)) {
        let places = start..start + fields.len();
        start = places.end;
        let Some(metric) = fields[0].metric else {
            continue;
        };
        let kind = match fields[0].kind {
            CounterKind::Counter => MetricKind::Counter,
            CounterKind::Gauge => MetricKind::Gauge,
        };
        let mut family = text.family(metric.family, kind, metric.help);
        for row in rows {
            for (field, value) in fields.iter().zip(&row.values[places.clone()]) {
                let mut labels = row.labels.clone();
                labels.extend(field.metric.and_then(|metric| metric.part));
                family.sample(&labels, value);
            }
        }
    }
}
