//! The order of the rows, and the filter that selects them. Pure.

use std::cmp::Ordering;

use super::measure::{Measure, RowKind};
use super::rates::RateRow;

/// The column that rows are sorted by, and the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// The column: 0 is the name, and the measures follow.
    pub(super) column: usize,
    /// Whether the largest number, or the last name, comes first.
    pub(super) is_falling: bool,
}

impl Order {
    /// Returns the default order: the busiest first. Workers are sorted by number, since they are few and similar.
    pub(super) fn default(row_kind: RowKind) -> Order {
        match row_kind {
            RowKind::Workers => Order {
                column: 0,
                is_falling: false,
            },
            _ => Order {
                column: 1,
                is_falling: true,
            },
        }
    }

    /// Returns the order by another column, `columns` further to the right. The first column follows the last.
    pub(super) fn shift(self, row_kind: RowKind, columns: isize) -> Order {
        let count = row_kind.measures().len().cast_signed() + 1;
        let column = (self.column.cast_signed() + columns).rem_euclid(count) as usize;
        Order {
            column,
            is_falling: column > 0,
        }
    }

    /// Returns the order in the opposite direction.
    pub(super) fn reverse(self) -> Order {
        Order {
            is_falling: !self.is_falling,
            ..self
        }
    }

    /// Returns the measure that rows are sorted by; `None` if they are sorted by name.
    pub(super) fn measure(self, row_kind: RowKind) -> Option<Measure> {
        self.column
            .checked_sub(1)
            .and_then(|column| row_kind.measures().get(column))
            .copied()
    }

    /// Compares two rows. Unknown values come last in either direction. Equal rows keep the order of the file.
    fn compare(self, row_kind: RowKind, one: &RateRow, other: &RateRow) -> Ordering {
        let directed = |ordering: Ordering| {
            if self.is_falling {
                ordering.reverse()
            } else {
                ordering
            }
        };
        let ordering = match self.measure(row_kind) {
            // The names of workers contain numbers, so compare the numbers.
            None if row_kind == RowKind::Workers => directed(one.index.cmp(&other.index)),
            None => directed(one.item.key.name.cmp(&other.item.key.name)),
            Some(measure) => match (one.value(measure), other.value(measure)) {
                (Some(one), Some(other)) => directed(one.total_cmp(&other)),
                (one, other) => other.is_some().cmp(&one.is_some()),
            },
        };
        ordering.then(one.index.cmp(&other.index))
    }
}

/// Returns the rows whose name or note contains the filter, in this order.
pub(super) fn arrange<'a>(
    row_kind: RowKind,
    rows: &'a [RateRow],
    filter: &str,
    order: Order,
) -> Vec<&'a RateRow> {
    let filter = filter.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&filter);
    let fits = |row: &&RateRow| filter.is_empty() || has(&row.item.key.name) || has(&row.item.note);
    let mut rows: Vec<&RateRow> = rows.iter().filter(fits).collect();
    rows.sort_by(|one, other| order.compare(row_kind, one, other));
    rows
}
