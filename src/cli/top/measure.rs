//! What the live view can show: the kinds of rows, and the numbers that each has. Everything else walks these lists.

/// A kind of row, and the table that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Routes,
    Handlers,
    Upstreams,
    Listeners,
    Workers,
}

/// A number of a row. Where a row has no such number it is 0, and its table has no such column.
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

impl Noun {
    /// In the order of the tabs.
    pub(super) const ALL: [Noun; 5] = [
        Noun::Routes,
        Noun::Handlers,
        Noun::Upstreams,
        Noun::Listeners,
        Noun::Workers,
    ];

    /// What the tab is called, and the list in JSON.
    pub(super) fn label(self) -> &'static str {
        match self {
            Noun::Routes => "routes",
            Noun::Handlers => "handlers",
            Noun::Upstreams => "upstreams",
            Noun::Listeners => "listeners",
            Noun::Workers => "workers",
        }
    }

    /// What one row is called.
    pub(super) fn singular(self) -> &'static str {
        self.label().trim_end_matches('s')
    }

    /// The head of a column for the notes beside rows' names, where it is worth its place.
    pub(super) fn note(self) -> Option<&'static str> {
        matches!(self, Noun::Upstreams | Noun::Workers).then_some("state")
    }

    /// The columns, the most telling first: a narrow terminal shows as many as it has room for.
    pub(super) fn measures(self) -> &'static [Measure] {
        use Measure::{
            Dropped, Handled, InFlight, KernelDrops, NotSent, Received, Replies, Sent, Sessions,
            Skipped,
        };
        match self {
            Noun::Routes | Noun::Workers => &[Received, Handled, Dropped, InFlight],
            Noun::Handlers => &[
                Received, Handled, Dropped, InFlight, Sent, Sessions, NotSent, Replies,
            ],
            Noun::Upstreams => &[Sent, NotSent, Replies, Sessions, Skipped, KernelDrops],
            Noun::Listeners => &[Received, Handled, Dropped, InFlight, KernelDrops],
        }
    }

    /// The number whose last two minutes are drawn.
    pub(super) fn pulse(self) -> Measure {
        self.measures()[0]
    }
}

impl Measure {
    /// How many there are.
    pub(super) const COUNT: usize = Measure::KernelDrops as usize + 1;

    /// What it counts.
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

    /// The head of its column.
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
            // It has to share 80 columns with others.
            Measure::KernelDrops => "kernel/s",
        }
    }

    /// Its key in JSON.
    pub(super) fn key(self) -> String {
        let label = self.label().replace(' ', "_");
        if self.only_rises() {
            format!("{label}_per_second")
        } else {
            label
        }
    }

    /// Whether it counts what happened, and so has a rate; the others are as many as there are now.
    pub(super) fn only_rises(self) -> bool {
        !matches!(self, Measure::InFlight | Measure::Sessions)
    }

    /// Whether any of it is bad news.
    pub(super) fn is_loss(self) -> bool {
        matches!(
            self,
            Measure::Dropped | Measure::NotSent | Measure::KernelDrops
        )
    }
}
