//! In which order rows stand, and which of them are left by the filter. Pure.

use std::cmp::Ordering;

use super::measure::{Measure, Noun};
use super::rates::RateRow;

/// By which column rows stand, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// The column: 0 is the name, the measures follow.
    pub(super) column: usize,
    /// The most, or the last name, first.
    pub(super) is_falling: bool,
}

impl Order {
    /// The busiest first; workers by number, since they are few and alike.
    pub(super) fn default(noun: Noun) -> Order {
        match noun {
            Noun::Workers => Order {
                column: 0,
                is_falling: false,
            },
            _ => Order {
                column: 1,
                is_falling: true,
            },
        }
    }

    /// By another column, so many further to the right; after the last comes the first.
    pub(super) fn shift(self, noun: Noun, columns: isize) -> Order {
        let count = noun.measures().len().cast_signed() + 1;
        let column = (self.column.cast_signed() + columns).rem_euclid(count) as usize;
        Order {
            column,
            is_falling: column > 0,
        }
    }

    /// The other way round.
    pub(super) fn reverse(self) -> Order {
        Order {
            is_falling: !self.is_falling,
            ..self
        }
    }

    /// The number that decides; none, if names do.
    pub(super) fn measure(self, noun: Noun) -> Option<Measure> {
        self.column
            .checked_sub(1)
            .and_then(|column| noun.measures().get(column))
            .copied()
    }

    /// Which of two rows stands first. What is not known stands last, whichever way; the file's order settles the rest.
    fn compare(self, noun: Noun, one: &RateRow, other: &RateRow) -> Ordering {
        let way = |ordering: Ordering| {
            if self.is_falling {
                ordering.reverse()
            } else {
                ordering
            }
        };
        let ordering = match self.measure(noun) {
            // Their names hold numbers.
            None if noun == Noun::Workers => way(one.index.cmp(&other.index)),
            None => way(one.item.key.name.cmp(&other.item.key.name)),
            Some(measure) => match (one.value(measure), other.value(measure)) {
                (Some(one), Some(other)) => way(one.total_cmp(&other)),
                (one, other) => other.is_some().cmp(&one.is_some()),
            },
        };
        ordering.then(one.index.cmp(&other.index))
    }
}

/// The rows whose name or note has these letters, in this order.
pub(super) fn arrange<'a>(
    noun: Noun,
    rows: &'a [RateRow],
    filter: &str,
    order: Order,
) -> Vec<&'a RateRow> {
    let wanted = filter.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    let fits = |row: &&RateRow| wanted.is_empty() || has(&row.item.key.name) || has(&row.item.note);
    let mut rows: Vec<&RateRow> = rows.iter().filter(fits).collect();
    rows.sort_by(|one, other| order.compare(noun, one, other));
    rows
}
