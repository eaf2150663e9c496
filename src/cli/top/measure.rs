//! What the live view can show: the kinds of rows, and the measures of each. All other code iterates over these lists.

use crate::dispatch::counters::CounterField;

/// A kind of row, and the table that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Routes,
    Handlers,
    Upstreams,
    Listeners,
    Workers,
}

/// A number of a row. It is 0 in rows that do not have it, and their table has no such column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Measure {
    Received,
    Handled,
    Dropped,
    InFlight,
    Sent,
    NotSent,
    Skipped,
    Replies,
    Sessions,
    KernelDrops,
}

impl RowKind {
    /// All kinds, in the order of the tabs.
    pub(super) const ALL: [RowKind; 5] = [
        RowKind::Routes,
        RowKind::Handlers,
        RowKind::Upstreams,
        RowKind::Listeners,
        RowKind::Workers,
    ];

    /// Returns the name of the tab, which is also the key of the list in JSON.
    pub(super) fn label(self) -> &'static str {
        match self {
            RowKind::Routes => "routes",
            RowKind::Handlers => "handlers",
            RowKind::Upstreams => "upstreams",
            RowKind::Listeners => "listeners",
            RowKind::Workers => "workers",
        }
    }

    /// Returns the name of one row.
    pub(super) fn singular(self) -> &'static str {
        self.label().trim_end_matches('s')
    }

    /// Returns the heading of the column for notes beside the names, if the table has one.
    pub(super) fn note(self) -> Option<&'static str> {
        matches!(self, RowKind::Upstreams | RowKind::Workers).then_some("state")
    }

    /// Returns the columns, the most useful first. A narrow terminal shows as many as fit.
    pub(super) fn measures(self) -> &'static [Measure] {
        use Measure::{
            Dropped, Handled, InFlight, KernelDrops, NotSent, Received, Replies, Sent, Sessions,
            Skipped,
        };
        match self {
            RowKind::Routes | RowKind::Workers => &[Received, Handled, Dropped, InFlight],
            RowKind::Handlers => &[
                Received, Handled, Dropped, InFlight, Sent, Sessions, NotSent, Replies,
            ],
            RowKind::Upstreams => &[Sent, NotSent, Replies, Sessions, Skipped, KernelDrops],
            RowKind::Listeners => &[Received, Handled, Dropped, InFlight, KernelDrops],
        }
    }

    /// Returns the measure whose last two minutes are drawn.
    pub(super) fn pulse(self) -> Measure {
        self.measures()[0]
    }
}

impl Measure {
    const ALL: [Measure; 10] = [
        Measure::Received,
        Measure::Handled,
        Measure::Dropped,
        Measure::InFlight,
        Measure::Sent,
        Measure::NotSent,
        Measure::Skipped,
        Measure::Replies,
        Measure::Sessions,
        Measure::KernelDrops,
    ];
    /// Number of measures.
    pub(super) const COUNT: usize = Measure::ALL.len();

    /// Returns the measure that shows a counter; `None` if the counter has no column.
    pub(super) fn of(field: &CounterField) -> Option<Measure> {
        Measure::ALL
            .into_iter()
            .find(|measure| measure.label() == field.label)
    }

    /// Returns the name of the measure, which is the label of its counter.
    pub(super) fn label(self) -> &'static str {
        match self {
            Measure::Received => "received",
            Measure::Handled => "handled",
            Measure::Dropped => "dropped",
            Measure::InFlight => "in flight",
            Measure::Sent => "sent",
            Measure::NotSent => "not sent",
            Measure::Skipped => "skipped",
            Measure::Replies => "replies",
            Measure::Sessions => "sessions",
            Measure::KernelDrops => "kernel drops",
        }
    }

    /// Returns the heading of the measure's column.
    pub(super) fn head(self) -> &'static str {
        match self {
            Measure::Received => "received/s",
            Measure::Handled => "handled/s",
            Measure::Dropped => "dropped/s",
            Measure::InFlight => "in flight",
            Measure::Sent => "sent/s",
            Measure::NotSent => "not sent/s",
            Measure::Skipped => "skipped/s",
            Measure::Replies => "replies/s",
            Measure::Sessions => "sessions",
            // Short, since the column shares 80 columns with others.
            Measure::KernelDrops => "kernel/s",
        }
    }

    /// Returns the key of the measure in JSON.
    pub(super) fn key(self) -> String {
        let label = self.label().replace(' ', "_");
        if self.only_rises() {
            format!("{label}_per_second")
        } else {
            label
        }
    }

    /// Returns whether this is a counter, and so has a rate. The others are current values.
    pub(super) fn only_rises(self) -> bool {
        !matches!(self, Measure::InFlight | Measure::Sessions)
    }

    /// Returns whether any value above 0 is a problem.
    pub(super) fn is_loss(self) -> bool {
        matches!(
            self,
            Measure::Dropped | Measure::NotSent | Measure::KernelDrops
        )
    }
}
