//! The state of the live view: which table, order and row are shown, and what is drawn over the table. Only
//! the methods below change it. They read no clock and draw nothing.

use std::time::{Duration, Instant};

use ratatui::layout::Rect;

use super::history::SnapshotHistory;
use super::measure::RowKind;
use super::order::{Order, arrange};
use super::rates::RateRow;
use super::rows::RowKey;
use crate::observe::snapshot::Snapshot;

/// Largest number of characters in a filter.
const FILTER_CHARS_MAX: usize = 64;

/// The state of the live view.
#[derive(Debug)]
pub(super) struct TopState {
    /// The current data.
    live: SnapshotHistory,
    /// The data at the moment of the pause, while paused.
    frozen: Option<SnapshotHistory>,
    /// The reason for which the last response is missing; `None` while the daemon responds.
    pub(super) last_error: Option<String>,
    pub(super) row_kind: RowKind,
    tabs: [Tab; 5],
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// Number of lines by which the text of the mode is scrolled.
    pub(super) scroll: usize,
    /// Whether colours may be used.
    pub(super) has_colours: bool,
}

/// The state of one table.
#[derive(Debug)]
struct Tab {
    order: Order,
    selected: Option<RowKey>,
    /// The index of the first row on the screen.
    first: usize,
}

/// What is drawn over the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table alone.
    Table,
    /// A filter is being edited.
    Filter,
    /// The detail view of one row.
    Detail,
    /// The list of all alarms.
    Alarms,
    /// The list of the keys.
    Help,
}

/// The areas of the screen that can be clicked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spots {
    pub(super) tabs: Vec<(Rect, RowKind)>,
    /// Headings of columns, by the index of the column.
    pub(super) heads: Vec<(Rect, usize)>,
    /// The area of the table's rows.
    pub(super) body: Rect,
    /// The index of the first row in that area.
    pub(super) first: usize,
    /// Largest number of lines by which the text over the table can be scrolled.
    pub(super) scroll_max: usize,
}

impl TopState {
    /// Returns the state at the start.
    pub(super) fn new(
        snapshot: Snapshot,
        at: Instant,
        interval: Duration,
        has_colours: bool,
    ) -> TopState {
        let tab = |row_kind| Tab {
            order: Order::default(row_kind),
            selected: None,
            first: 0,
        };
        TopState {
            live: SnapshotHistory::first(snapshot, at, interval),
            frozen: None,
            last_error: None,
            row_kind: RowKind::Routes,
            tabs: RowKind::ALL.map(tab),
            filter: String::new(),
            mode: Mode::Table,
            scroll: 0,
            has_colours,
        }
    }

    /// Handles a response, or the error text of a missing one.
    pub(super) fn on_response(&mut self, response: Result<Snapshot, String>, at: Instant) {
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

    /// Returns the data to show.
    pub(super) fn snapshots(&self) -> &SnapshotHistory {
        self.frozen.as_ref().unwrap_or(&self.live)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Pauses or continues the updates of the numbers.
    pub(super) fn pause(&mut self) {
        self.frozen = match self.frozen {
            None => Some(self.live.clone()),
            Some(_) => None,
        };
    }

    fn tab(&self) -> &Tab {
        &self.tabs[self.row_kind as usize]
    }

    fn tab_mut(&mut self) -> &mut Tab {
        &mut self.tabs[self.row_kind as usize]
    }

    pub(super) fn order(&self) -> Order {
        self.tab().order
    }

    /// Returns the rows of the table that is shown.
    pub(super) fn rows(&self) -> Vec<&RateRow> {
        arrange(
            self.row_kind,
            self.snapshots().rates.rows(self.row_kind),
            &self.filter,
            self.order(),
        )
    }

    /// Returns the position of the selected row among these rows; 0 if it is not among them.
    pub(super) fn selected(&self, rows: &[&RateRow]) -> usize {
        let selected = self.tab().selected.as_ref();
        rows.iter()
            .position(|row| Some(&row.item.key) == selected)
            .unwrap_or(0)
    }

    /// Returns the row that was chosen for the detail view.
    pub(super) fn chosen(&self) -> Option<&RowKey> {
        self.tab().selected.as_ref()
    }

    /// Returns the index of the first row to show, so that the selected row is visible and the table scrolls as little
    /// as possible.
    pub(super) fn first(&self, rows: usize, selected: usize, height: usize) -> usize {
        let least = (selected + 1).saturating_sub(height);
        self.tab()
            .first
            .clamp(least, selected.max(least))
            .min(rows.saturating_sub(height))
    }

    /// Applies the limits of the frame that was drawn, so that no position outside the screen is kept.
    pub(super) fn settle(&mut self, spots: &Spots) {
        match self.mode {
            Mode::Table | Mode::Filter => self.tab_mut().first = spots.first,
            _ => self.scroll = self.scroll.min(spots.scroll_max),
        }
    }

    pub(super) fn show(&mut self, row_kind: RowKind) {
        self.row_kind = row_kind;
        self.set_mode(Mode::Table);
    }

    /// Shows the next table, or the previous one.
    pub(super) fn turn(&mut self, by: isize) {
        let count = RowKind::ALL.len().cast_signed();
        self.show(RowKind::ALL[(self.row_kind as isize + by).rem_euclid(count) as usize]);
    }

    /// Sets what is drawn over the table.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.scroll = 0;
    }

    pub(super) fn sort(&mut self, by: isize) {
        let row_kind = self.row_kind;
        self.tab_mut().order = self.order().shift(row_kind, by);
    }

    pub(super) fn reverse(&mut self) {
        self.tab_mut().order = self.order().reverse();
    }

    /// Moves the selection by `by` rows down, or scrolls the text that is drawn over the table.
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

    /// Opens the detail view of the selected row.
    pub(super) fn open(&mut self) {
        let rows = self.rows();
        let at = self.selected(&rows);
        if !rows.is_empty() {
            self.select(at);
            self.set_mode(Mode::Detail);
        }
    }

    /// Goes one step back: closes what is drawn over the table, or else clears the filter.
    pub(super) fn back(&mut self) {
        if matches!(self.mode, Mode::Table | Mode::Filter) {
            self.filter.clear();
        }
        self.set_mode(Mode::Table);
    }

    /// Adds a letter to the filter.
    pub(super) fn write(&mut self, letter: char) {
        if self.filter.chars().count() < FILTER_CHARS_MAX && !letter.is_control() {
            self.filter.push(letter);
        }
    }
}
