//! Tables for a terminal. Columns are as wide as their content, numbers are right-aligned, and control characters are
//! escaped.

use crate::config::diagnostics::one_line;

/// The blanks between two columns.
const GAP: &str = "  ";

/// A table, to which rows are added.
pub(super) struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Left-aligned, for text.
    Left,
    /// Right-aligned, for numbers.
    Right,
}

impl Table {
    /// Returns an empty table with these columns.
    pub(super) fn new(heads: &[(&'static str, Align)]) -> Table {
        Table {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with one cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// Returns the lines of the table.
    pub(super) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([self.heads[column].0.chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let heads: Vec<String> = self
            .heads
            .iter()
            .map(|(head, _)| (*head).to_owned())
            .collect();
        std::iter::once(&heads)
            .chain(&self.rows)
            .map(|row| self.line(row, &widths))
            .collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let cell = |((cell, width), (_, align)): ((&String, &usize), &(&str, Align))| match align {
            Align::Left => format!("{cell:width$}"),
            Align::Right => format!("{cell:>width$}"),
        };
        let cells: Vec<String> = cells
            .iter()
            .zip(widths)
            .zip(&self.heads)
            .map(cell)
            .collect();
        cells.join(GAP).trim_end().to_owned() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns are aligned, numbers at their right end, and escape sequences of a terminal are shown instead of
    /// interpreted.
    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[
            ("name", Align::Left),
            ("count", Align::Right),
            ("note", Align::Left),
        ]);
        table.row(["a".to_owned(), "7".to_owned(), "\u{1b}[2J".to_owned()]);
        table.row(["longer".to_owned(), "1234567".to_owned(), String::new()]);
        let expected = "name      count  note\na             7  \\u{1b}[2J\nlonger  1234567\n";
        assert_eq!(table.render(), expected);
    }
}
