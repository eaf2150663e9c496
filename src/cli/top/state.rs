//! What the live view is showing: which table, in which order, which row, and what lies over it. Changes only by the calls
//! below; reads no clock, draws nothing.

use std::time::{Duration, Instant};

use ratatui::layout::Rect;

use super::history::SnapshotHistory;
use super::measure::Noun;
use super::order::{Order, arrange};
use super::rates::RateRow;
use super::rows::RowKey;
use crate::observe::snapshot::Snapshot;

/// Letters of a filter.
const FILTER_CHARS_MAX: usize = 64;

/// What is shown.
#[derive(Debug)]
pub(super) struct TopState {
    /// What is known now.
    live: SnapshotHistory,
    /// What was known when somebody pressed pause.
    frozen: Option<SnapshotHistory>,
    /// Why no answer comes, while none does.
    pub(super) last_error: Option<String>,
    pub(super) noun: Noun,
    tabs: [Tab; 5],
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// Lines that the text of the mode is scrolled by.
    pub(super) scroll: usize,
    /// Whether colours may be used.
    pub(super) has_colours: bool,
}

/// One table.
#[derive(Debug)]
struct Tab {
    order: Order,
    selected: Option<RowKey>,
    /// The first row that was on the screen.
    first: usize,
}

/// What lies over the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing.
    Table,
    /// A filter is being written.
    Filter,
    /// One row, in full.
    Detail,
    /// All alarms.
    Alarms,
    /// The keys.
    Help,
}

/// Where on the screen things are that can be clicked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spots {
    pub(super) tabs: Vec<(Rect, Noun)>,
    /// Heads of columns, by the column's number.
    pub(super) heads: Vec<(Rect, usize)>,
    /// Where the table's rows are.
    pub(super) body: Rect,
    /// The row that is the first there.
    pub(super) first: usize,
    /// How far the text over the table can be scrolled.
    pub(super) scroll_max: usize,
}

impl TopState {
    /// At the start.
    pub(super) fn new(
        snapshot: Snapshot,
        at: Instant,
        interval: Duration,
        has_colours: bool,
    ) -> TopState {
        let tab = |noun| Tab {
            order: Order::default(noun),
            selected: None,
            first: 0,
        };
        TopState {
            live: SnapshotHistory::first(snapshot, at, interval),
            frozen: None,
            last_error: None,
            noun: Noun::Routes,
            tabs: Noun::ALL.map(tab),
            filter: String::new(),
            mode: Mode::Table,
            scroll: 0,
            has_colours,
        }
    }

    /// An answer came, or did not.
    pub(super) fn hear(&mut self, response: Result<Snapshot, String>, at: Instant) {
        match response {
            Ok(snapshot) => {
                self.live.advance(snapshot, at);
                self.last_error = None;
            }
            Err(why) => {
                self.live.miss();
                self.last_error = Some(why);
            }
        }
    }

    /// What is to be shown.
    pub(super) fn snapshots(&self) -> &SnapshotHistory {
        self.frozen.as_ref().unwrap_or(&self.live)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// The numbers stand still, or go on.
    pub(super) fn pause(&mut self) {
        self.frozen = match self.frozen {
            None => Some(self.live.clone()),
            Some(_) => None,
        };
    }

    fn tab(&self) -> &Tab {
        &self.tabs[self.noun as usize]
    }

    fn tab_mut(&mut self) -> &mut Tab {
        &mut self.tabs[self.noun as usize]
    }

    pub(super) fn order(&self) -> Order {
        self.tab().order
    }

    /// Rows of the table that is shown.
    pub(super) fn rows(&self) -> Vec<&RateRow> {
        arrange(
            self.noun,
            self.snapshots().rates.rows(self.noun),
            &self.filter,
            self.order(),
        )
    }

    /// Where the selected row is among those; the first, if that one is not there.
    pub(super) fn selected(&self, rows: &[&RateRow]) -> usize {
        let wanted = self.tab().selected.as_ref();
        rows.iter()
            .position(|row| Some(&row.item.key) == wanted)
            .unwrap_or(0)
    }

    /// The row that was chosen to be shown in full.
    pub(super) fn chosen(&self) -> Option<&RowKey> {
        self.tab().selected.as_ref()
    }

    /// The first row to be on a screen of so many, so that the selected one is among them and the others hardly move.
    pub(super) fn first(&self, rows: usize, selected: usize, height: usize) -> usize {
        let least = (selected + 1).saturating_sub(height);
        self.tab()
            .first
            .clamp(least, selected.max(least))
            .min(rows.saturating_sub(height))
    }

    /// It was drawn so: what no screen holds is not remembered.
    pub(super) fn settle(&mut self, spots: &Spots) {
        match self.mode {
            Mode::Table | Mode::Filter => self.tab_mut().first = spots.first,
            _ => self.scroll = self.scroll.min(spots.scroll_max),
        }
    }

    pub(super) fn show(&mut self, noun: Noun) {
        self.noun = noun;
        self.lay(Mode::Table);
    }

    /// The next table, or the one before.
    pub(super) fn turn(&mut self, by: isize) {
        let count = Noun::ALL.len().cast_signed();
        self.show(Noun::ALL[(self.noun as isize + by).rem_euclid(count) as usize]);
    }

    /// Lays something over the table.
    pub(super) fn lay(&mut self, mode: Mode) {
        self.mode = mode;
        self.scroll = 0;
    }

    pub(super) fn sort(&mut self, by: isize) {
        let noun = self.noun;
        self.tab_mut().order = self.order().shift(noun, by);
    }

    pub(super) fn reverse(&mut self) {
        self.tab_mut().order = self.order().reverse();
    }

    /// Selects the row so many below; or moves the text that lies over the table.
    pub(super) fn go(&mut self, by: isize) {
        match self.mode {
            Mode::Table | Mode::Filter => {
                let rows = self.rows();
                let at = self
                    .selected(&rows)
                    .saturating_add_signed(by)
                    .min(rows.len().saturating_sub(1));
                self.select(at);
            }
            _ => self.scroll = self.scroll.saturating_add_signed(by),
        }
    }

    /// Selects a row of those that are shown.
    pub(super) fn select(&mut self, at: usize) {
        let key = self.rows().get(at).map(|row| row.item.key.clone());
        self.tab_mut().selected = key;
    }

    /// Shows the selected row in full.
    pub(super) fn open(&mut self) {
        let rows = self.rows();
        let at = self.selected(&rows);
        if !rows.is_empty() {
            self.select(at);
            self.lay(Mode::Detail);
        }
    }

    /// One step back: what lies over the table goes, or else the filter.
    pub(super) fn back(&mut self) {
        if matches!(self.mode, Mode::Table | Mode::Filter) {
            self.filter.clear();
        }
        self.lay(Mode::Table);
    }

    /// A letter more in the filter.
    pub(super) fn write(&mut self, letter: char) {
        if self.filter.chars().count() < FILTER_CHARS_MAX && !letter.is_control() {
            self.filter.push(letter);
        }
    }
}
