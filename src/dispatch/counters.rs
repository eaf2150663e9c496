//! Declares counters. One declaration gives a counter its field, JSON key, label, kind and metric. `counters!`
//! generates the struct, its arithmetic and the list of its fields from it. Views walk that list: metrics, `status`,
//! `top`, the page and the table of the ledger. A new counter is one declaration and its increment.
//!
//! The fields are plain `u64`, which one worker owns and increments.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The declaration of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterField {
    /// The key in JSON, which is also the name of the field.
    pub key: &'static str,
    /// The text in tables: the heading of a column, or the text behind a number.
    pub label: &'static str,
    /// The meaning of the counter in one sentence. This is the doc comment of the field.
    pub help: &'static str,
    /// Whether the value only grows.
    pub kind: CounterKind,
    /// The metric that exports the counter.
    pub metric: Option<CounterMetric>,
    /// The text behind the number in a note below the row of the ledger's table. A counter with a note has no column of
    /// its own. The note is shown if the value is not 0, and names the remedy.
    pub note: Option<&'static str>,
    /// The key that processes of the former version read and write, if it differs.
    pub former_key: Option<&'static str>,
}

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterKind {
    /// The value is a number of events since the start, and only grows.
    Counter,
    /// The value is a number of things that exist now.
    Gauge,
}

/// The metric of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterMetric {
    /// The name of the family, without the prefix `udispatch_`.
    pub family: &'static str,
    /// The help text of the family.
    pub help: &'static str,
    /// The label that distinguishes this counter from the others of its family, with its value.
    pub part: Option<(&'static str, &'static str)>,
}

/// A metric family with one sample for each of several counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFamily {
    /// The name of the family, without the prefix `udispatch_`.
    pub name: &'static str,
    /// The help text of the family.
    pub help: &'static str,
    /// The label that distinguishes the counters.
    pub label: &'static str,
}

/// Declares a struct of counters. Each field is declared as
///
/// ```text
/// /// What is counted.
/// field: counter("label", metric "family_total", former "key", note "text");
/// ```
///
/// The kind is `counter` or `gauge`; everything after the label is optional, in this order. The help text of the metric
/// is the doc comment. Instead of `metric "family"`, `part "value" of FAMILY` makes the counter one sample of a
/// [`SharedFamily`], with that value of its label. Counters of one family stand next to each other.
///
/// `pub struct Row shared Stats` also declares the struct `Stats`, whose counters any thread may change.
macro_rules! counters {
    (@kind counter) => { $crate::dispatch::counters::CounterKind::Counter };
    (@kind gauge) => { $crate::dispatch::counters::CounterKind::Gauge };

    (@since counter $late:expr, $early:expr) => { $crate::dispatch::counters::growth($late, $early) };
    (@since gauge $late:expr, $early:expr) => { 0 };

    (@past counter $value:expr) => { $value };
    (@past gauge $value:expr) => { 0 };

    (@metric $help:expr;) => { None };
    (@metric $help:expr; $name:literal) => {
        Some($crate::dispatch::counters::CounterMetric { family: $name, help: $help, part: None })
    };
    (@metric $help:expr; $value:literal of $family:ident) => {
        Some($crate::dispatch::counters::CounterMetric {
            family: $family.name,
            help: $family.help,
            part: Some(($family.label, $value)),
        })
    };

    (@text) => { None };
    (@text $text:literal) => { Some($text) };

    (@shared $row:ident $(#[doc = $doc:literal])+ $shared:ident {
        $($(#[doc = $help:literal])+ $field:ident: $kind:ident($($rest:tt)*);)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Default)]
        pub struct $shared {
            $($(#[doc = $help])+ pub $field: $crate::dispatch::counters::SharedCounter,)+
        }

        impl $shared {
            /// Returns the current values of all counters.
            pub fn row(&self) -> $row {
                $row { $($field: self.$field.get(),)+ }
            }
        }
    };

    ($(#[doc = $doc:literal])+ pub struct $name:ident shared $shared:ident { $($body:tt)+ }) => {
        counters! { $(#[doc = $doc])+ pub struct $name { $($body)+ } }
        counters! { @shared $name $(#[doc = $doc])+ $shared { $($body)+ } }
    };

    ($(#[doc = $doc:literal])+ pub struct $name:ident {
        $($(#[doc = $help:literal])+ $field:ident: $kind:ident(
            $label:literal
            $(, metric $metric:literal)?
            $(, part $part:literal of $family:ident)?
            $(, former $former:literal)?
            $(, note $note:literal)?
        );)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[doc = $help])+ $(#[serde(alias = $former)])? pub $field: u64,)+
        }

        #[allow(clippy::allow_attributes, dead_code, reason = "not every struct of counters needs every method")]
        impl $name {
            /// The declarations of all counters.
            pub const FIELDS: &[$crate::dispatch::counters::CounterField] = &[$(
                $crate::dispatch::counters::CounterField {
                    key: stringify!($field),
                    label: $label,
                    help: concat!($($help),+).trim_ascii_start(),
                    kind: counters!(@kind $kind),
                    metric: counters!(@metric concat!($($help),+).trim_ascii_start();
                        $($metric)? $($part of $family)?),
                    note: counters!(@text $($note)?),
                    former_key: counters!(@text $($former)?),
                },
            )+];

            /// Returns the values in the order of the declarations.
            pub fn values(&self) -> [u64; Self::FIELDS.len()] {
                [$(self.$field,)+]
            }

            /// Returns each declaration with the current value.
            pub fn iter(
                &self,
            ) -> impl Iterator<Item = (&'static $crate::dispatch::counters::CounterField, u64)> + use<> {
                Self::FIELDS.iter().zip(self.values())
            }

            /// Adds the values of another row, gauges too.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }

            /// Returns by how much the counters have grown since an earlier copy. Gauges are 0.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: counters!(@since $kind self.$field, earlier.$field),)+ }
            }

            /// Returns the counters alone. Gauges are 0.
            pub fn without_gauges(&self) -> Self {
                Self { $($field: counters!(@past $kind self.$field),)+ }
            }
        }
    };
}

pub(crate) use counters;

/// Returns by how much a counter has grown. Counters only grow while a worker runs. A smaller value is a defect; the
/// growth is then 0 instead of nearly 2⁶⁴.
pub fn growth(late: u64, early: u64) -> u64 {
    let growth = late.checked_sub(early);
    debug_assert!(
        growth.is_some(),
        "a counter went back from {early} to {late}"
    );
    growth.unwrap_or(0)
}

/// A counter or gauge that any thread may change.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds one.
    pub fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts one, for gauges such as open connections.
    pub fn less(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by errno. There are few different ones, so a list is enough. An errno stays a number until a view names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrnoCounts(Vec<(i32, u64)>);

impl ErrnoCounts {
    /// Adds to the count of an errno. The sum saturates, since a daemon of another version may send any numbers.
    pub fn count(&mut self, errno: i32, more: u64) {
        match self.0.iter_mut().find(|count| count.0 == errno) {
            Some(count) => count.1 = count.1.saturating_add(more),
            None => self.0.push((errno, more)),
        }
    }

    /// Adds all counts of another row.
    pub fn add(&mut self, other: &ErrnoCounts) {
        for (errno, more) in other.iter() {
            self.count(errno, more);
        }
    }

    /// Returns by how much the counts have grown since an earlier copy. An errno that has not grown is left out.
    pub fn since(&self, earlier: &ErrnoCounts) -> ErrnoCounts {
        let grown = self.iter().map(|(errno, count)| {
            let before = earlier.0.iter().find(|early| early.0 == errno);
            (errno, growth(count, before.map_or(0, |early| early.1)))
        });
        ErrnoCounts(grown.filter(|(_, count)| *count > 0).collect())
    }

    /// Returns each errno with its count, in the order of their first occurrence.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> {
        self.0.iter().copied()
    }

    /// Returns the sum of all counts, which saturates.
    pub fn total(&self) -> u64 {
        self.iter()
            .fold(0, |sum: u64, (_, count)| sum.saturating_add(count))
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(i32, u64)> for ErrnoCounts {
    /// Adds up the counts of each errno.
    fn from_iter<I: IntoIterator<Item = (i32, u64)>>(counts: I) -> ErrnoCounts {
        let mut sums = ErrnoCounts::default();
        counts
            .into_iter()
            .for_each(|(errno, count)| sums.count(errno, count));
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: SharedFamily = SharedFamily {
        name: "ended_total",
        help: "Things that ended, by cause.",
        label: "cause",
    };

    counters! {
        /// Counters of things.
        pub struct ThingCounts shared ThingStats {
            /// Things that
            /// exist.
            open: gauge("open", metric "things", former "held");
            /// Things that were broken.
            broken: counter("broken", part "broken" of ENDED, note "were broken");
        }
    }

    /// Everything that is declared arrives in the list of the fields, in JSON, and in the arithmetic.
    #[test]
    fn one_declaration_is_enough() {
        let [open, broken] = ThingCounts::FIELDS else {
            panic!("there are two")
        };
        assert_eq!((open.key, open.label), ("open", "open"));
        assert_eq!(open.help, "Things that exist.");
        assert_eq!(
            (open.kind, open.former_key),
            (CounterKind::Gauge, Some("held"))
        );
        let metric = open.metric.unwrap();
        assert_eq!((metric.family, metric.help), ("things", open.help));
        let metric = broken.metric.unwrap();
        assert_eq!(
            (metric.help, metric.part),
            (ENDED.help, Some(("cause", "broken")))
        );
        assert_eq!((open.note, broken.note), (None, Some("were broken")));

        let early: ThingCounts = serde_json::from_str(r#"{"held": 4}"#).unwrap();
        let mut late = ThingCounts { open: 1, broken: 2 };
        assert_eq!(late.since(&early), ThingCounts { open: 0, broken: 2 });
        assert_eq!(late.without_gauges(), ThingCounts { open: 0, broken: 2 });
        late.add(&early);
        assert_eq!(late.values(), [5, 2]);
        assert_eq!(
            serde_json::to_string(&late).unwrap(),
            r#"{"open":5,"broken":2}"#
        );
        assert_eq!(
            late.iter().map(|(field, value)| (field.key, value)).last(),
            Some(("broken", 2))
        );

        let shared = ThingStats::default();
        shared.open.more();
        shared.open.less();
        shared.broken.more();
        assert_eq!(shared.row(), ThingCounts { open: 0, broken: 1 });
    }

    /// The counts of an errno are added up. An errno that has not grown is left out of a difference.
    #[test]
    fn errnos() {
        let early: ErrnoCounts = [(1, 2), (3, 4)].into_iter().collect();
        let mut late = early.clone();
        late.count(3, 1);
        late.add(&[(9, 5), (1, 0)].into_iter().collect());
        assert_eq!(late.since(&early), [(3, 1), (9, 5)].into_iter().collect());
        assert_eq!((late.total(), late.is_empty()), (12, false));
        assert_eq!(serde_json::to_string(&early).unwrap(), "[[1,2],[3,4]]");
    }
}
