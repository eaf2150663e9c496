//! The selection by `--only` and `--quick`.

use crate::cell::{Cell, Load};
use crate::goals;
use crate::row::Row;
use crate::subject::{SUBJECTS, Side};

/// Parts of the report beside the cells.
const PARTS: [&str; 5] = ["routes", "sessions", "receivers", "latency", "memory"];

/// The words of `--only`. A word that names a part selects such parts. Otherwise, one that names cells or loads selects
/// cells. Subjects are selected everywhere, and the yardstick always runs.
pub(crate) struct Selection {
    subjects: Vec<String>,
    cells: Vec<String>,
    loads: Vec<String>,
    parts: Vec<String>,
    is_quick: bool,
}

impl Selection {
    pub(crate) fn new(only: &[String], is_quick: bool) -> Self {
        let narrows = |names: &[String]| -> Vec<String> {
            only.iter()
                .filter(|word| names.iter().any(|name| name.contains(*word)))
                .cloned()
                .collect()
        };
        Self {
            subjects: narrows(&SUBJECTS.map(|subject| subject.name.to_string())),
            cells: narrows(&Cell::all().iter().map(Cell::to_string).collect::<Vec<_>>()),
            loads: narrows(&Load::ALL.map(load_name)),
            parts: narrows(&PARTS.map(String::from)),
            is_quick,
        }
    }

    pub(crate) fn has_subject(&self, name: &str) -> bool {
        let is_yardstick = SUBJECTS
            .iter()
            .any(|subject| subject.side == Side::Yardstick && subject.name == name);
        is_yardstick
            || self.subjects.is_empty()
            || self.subjects.iter().any(|word| name.contains(word))
    }

    pub(crate) fn has_part(&self, name: &str) -> bool {
        let no_words = self.parts.is_empty() && self.cells.is_empty() && self.loads.is_empty();
        no_words || self.parts.iter().any(|word| name.contains(word))
    }

    fn has(&self, cell: &Cell, load: Load) -> bool {
        let name = cell.to_string();
        let is_goal = || {
            goals::goals()
                .iter()
                .any(|goal| goal.cell == *cell && goal.load == load)
        };
        load.suits(cell)
            && (self.parts.is_empty() || !self.cells.is_empty() || !self.loads.is_empty())
            && self.cells.iter().all(|word| name.contains(word))
            && (self.loads.is_empty() || self.loads.contains(&load_name(load)))
            && (!self.is_quick || is_goal())
    }

    /// The rows of all selected cells.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for cell in Cell::all() {
            let loads: Vec<_> = Load::ALL
                .into_iter()
                .filter(|load| self.has(&cell, *load))
                .collect();
            if loads.is_empty() {
                continue;
            }
            for (number, subject) in SUBJECTS.iter().enumerate() {
                let wanted =
                    !self.is_quick || subject.side != Side::Variant || !self.subjects.is_empty();
                if wanted && (subject.suits)(&cell) && self.has_subject(subject.name) {
                    rows.push(Row::new(cell, number, &loads));
                }
            }
        }
        rows
    }
}

/// The name of a load for `--only`.
fn load_name(load: Load) -> String {
    format!("{load:?}").to_lowercase()
}
